//! What an encoder wrote, for a decoder that reads it at once: the names that the bytes leave out.
//!
//! Only a rehearsal takes notes (see the module above). Everywhere else they are `()`, which the
//! compiler takes away.

/// One struct or enum variant.
#[derive(Debug)]
struct Note {
    name: &'static str,
    variant: Option<(u32, &'static str)>,
    fields: Vec<&'static str>,
}

/// Takes notes and reads them, or does neither.
pub(super) trait Notes {
    /// A struct begins to be written. Returns what [`Notes::field`] is to be called with.
    fn structure(&mut self, name: &'static str) -> usize;
    /// As [`Notes::structure`], for a variant, whether or not it has named fields.
    fn variant(&mut self, name: &'static str, index: u32, variant: &'static str) -> usize;
    /// A named field was written.
    fn field(&mut self, note: usize, name: &'static str);

    /// A struct or enum of this name begins to be read. Returns what the others are to be called
    /// with.
    fn next(&mut self, name: &'static str) -> usize;
    /// The fields that were written.
    fn fields(&self, note: usize) -> &[&'static str];
    /// The variant that was written, if it now reads as one that is listed after it.
    fn shifted(&self, note: usize, variants: &[&str]) -> Option<&'static str>;
}

impl Notes for () {
    #[inline]
    fn structure(&mut self, _: &'static str) -> usize {
        0
    }

    #[inline]
    fn variant(&mut self, _: &'static str, _: u32, _: &'static str) -> usize {
        0
    }

    #[inline]
    fn field(&mut self, _: usize, _: &'static str) {}

    #[inline]
    fn next(&mut self, _: &'static str) -> usize {
        0
    }

    #[inline]
    fn fields(&self, _: usize) -> &[&'static str] {
        &[]
    }

    #[inline]
    fn shifted(&self, _: usize, _: &[&str]) -> Option<&'static str> {
        None
    }
}

/// Notes that are taken.
#[derive(Debug, Default)]
pub(super) struct Notebook {
    notes: Vec<Note>,
    read: usize,
}

impl Notes for Notebook {
    fn structure(&mut self, name: &'static str) -> usize {
        self.notes.push(Note { name, variant: None, fields: Vec::new() });
        self.notes.len() - 1
    }

    fn variant(&mut self, name: &'static str, index: u32, variant: &'static str) -> usize {
        self.notes.push(Note { name, variant: Some((index, variant)), fields: Vec::new() });
        self.notes.len() - 1
    }

    fn field(&mut self, note: usize, name: &'static str) {
        if let Some(note) = self.notes.get_mut(note) {
            note.fields.push(name);
        }
    }

    fn next(&mut self, name: &'static str) -> usize {
        let note = self.read;
        // Reader and writer may differ in what they call a struct, which is allowed. From there
        // on the notes would be taken for those of another struct: past the end there are none.
        self.read = match self.notes.get(note) {
            Some(note) if note.name == name => self.read + 1,
            _ => usize::MAX,
        };
        if self.read == usize::MAX { usize::MAX } else { note }
    }

    fn fields(&self, note: usize) -> &[&'static str] {
        self.notes.get(note).map_or(&[], |note| &note.fields)
    }

    fn shifted(&self, note: usize, variants: &[&str]) -> Option<&'static str> {
        let (index, variant) = self.notes.get(note)?.variant?;
        // The list leaves out variants that are never read, and names some twice (aliases). So a
        // variant listed before its number was given a number that leaves out nothing.
        let listed = variants.iter().position(|&listed| listed == variant)?;
        (listed < index as usize).then_some(variant)
    }
}
