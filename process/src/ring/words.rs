//! Answers of a word each, many of them one after the other: what a number in a map costs its child is in
//! here.

use super::far::Open;
use super::{Region, WORD, pair};
use crate::sys::atomic::{AtomicU64, Ordering};

/// Room in the open record for answers of a word each. The book is kept when this is dropped: who
/// writes many has it in registers until then.
#[derive(Debug)]
pub(crate) struct Words<'f> {
    pub(super) words: &'f [AtomicU64],
    pub(super) replies: Region,
    pub(super) next: u64,
    pub(super) progress: &'f AtomicU64,
    pub(super) whole: usize,
    pub(super) count: u32,
    pub(super) left: usize,
    pub(super) book: Book<'f>,
}

#[derive(Debug)]
pub(super) struct Book<'f> {
    pub(super) index: &'f mut u32,
    pub(super) open: &'f mut Option<Open>,
    pub(super) whole: &'f mut usize,
    pub(super) written_out: &'f mut usize,
}

impl Words<'_> {
    /// Whether there is room for another one.
    #[inline]
    pub(crate) fn has_room(&self) -> bool {
        self.left > 0
    }

    /// Answers an item, for which there [is room](Words::has_room): what `Far::stage` and `Far::commit`
    /// would do.
    #[inline]
    pub(crate) fn put(&mut self, word: u64) {
        debug_assert!(self.has_room());
        self.replies.word(self.words, self.next).store(word, Ordering::Relaxed);
        self.next += 1;
        self.whole += WORD;
        self.count += 1;
        self.left -= 1;
        self.progress.store(pair(self.whole as u32, self.count), Ordering::Release);
    }
}

impl Drop for Words<'_> {
    #[inline]
    fn drop(&mut self) {
        let Book { index, open, whole, written_out } = &mut self.book;
        if let Some(open) = open {
            **index += self.count - open.count;
            open.count = self.count;
        }
        (**whole, **written_out) = (self.whole, self.whole);
        // A record that none was written to is not there, for one of another form may follow.
        open.take_if(|open| open.count == 0);
    }
}
