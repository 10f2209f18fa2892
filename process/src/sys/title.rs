//! The command line of this process, as `ps` shows it, written over in place.
//!
//! A child that is forked gets no arguments of its own. The server is started with room in its
//! only argument, and each child writes its name there.

#![expect(unsafe_code, reason = "the kernel reads the command line from this process's memory")]

use std::fs;
use std::ptr;

/// The memory of the arguments that this process was started with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Title {
    start: usize,
    length: usize,
}

impl Title {
    /// Looks the place up. None where `/proc` does not tell.
    pub(crate) fn find() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        // The name of the process may hold blanks and parentheses. Behind it the third field is
        // first; the places of the arguments are the fields 48 and 49.
        let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace().skip(45);
        let start: usize = fields.next()?.parse().ok()?;
        let end: usize = fields.next()?.parse().ok()?;
        let length = end.checked_sub(start).filter(|_| start != 0)?;
        Some(Self { start, length })
    }

    /// Shows `text`, as far as there is room. Only while no other thread runs.
    pub(crate) fn set(&self, text: &[u8]) {
        let area = ptr::with_exposed_provenance_mut::<u8>(self.start);
        // The last byte stays zero: without it the kernel would show what follows, too.
        let text = text.iter().copied().filter(|&byte| byte != 0);
        let padded = text.chain(std::iter::repeat(0)).take(self.length.saturating_sub(1));
        for (at, byte) in padded.enumerate() {
            // SAFETY: within the arguments, which the kernel put on the stack of this process for
            // as long as it lives; they may be written, and no other thread reads them meanwhile.
            unsafe { area.wrapping_add(at).write_volatile(byte) };
        }
    }
}
