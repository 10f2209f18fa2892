//! The pages that every forked child writes, copied before anybody waits for it.
//!
//! A child that is forked shares each page until it writes there, which costs it about a
//! microsecond, and twice that once it has a second thread. These few are written by every child.

#![expect(unsafe_code, reason = "mappings are raw memory")]

use std::ffi::c_void;
use std::fs;
use std::hint;
use std::num::NonZeroUsize;
use std::ptr::{self, NonNull};

use nix::sys::mman::{MmapAdvise, madvise};

/// The variables of the program, of its libraries and of the thread: writable mappings of a page
/// or two. In longer ones most pages are written by no child.
#[derive(Debug)]
pub(crate) struct Variables(Vec<Mapping>);

#[derive(Debug)]
struct Mapping {
    start: usize,
    length: NonZeroUsize,
}

impl Variables {
    const LONGEST: usize = 8192;

    /// Looks them up. There are none where `/proc` does not tell.
    pub(crate) fn find() -> Self {
        let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
        let all = maps.lines().filter_map(parse);
        Self(all.filter(|mapping| mapping.length.get() <= Self::LONGEST).collect())
    }

    /// Gives this process copies of its own.
    pub(crate) fn copy(&self) {
        for Mapping { start, length } in &self.0 {
            let start = ptr::with_exposed_provenance_mut::<c_void>(*start);
            let Some(start) = NonNull::new(start) else { continue };
            // Before Linux 5.14 it fails, and each page is copied when it is written.
            // SAFETY: touches pages as a write would, and changes nothing in them; where there is
            // no such mapping any more it fails.
            let _ = unsafe { madvise(start, length.get(), MmapAdvise::MADV_POPULATE_WRITE) };
        }
        touch_stack();
    }
}

/// A line of `/proc/self/maps`, if it is of private memory that can be written.
fn parse(line: &str) -> Option<Mapping> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    if fields.next()? != "rw-p" {
        return None;
    }
    let [start, end] = [start, end].map(|bound| usize::from_str_radix(bound, 16).ok());
    let length = NonZeroUsize::new(end?.checked_sub(start?)?)?;
    Some(Mapping { start: start?, length })
}

/// Writes to the stack as deep as a child goes.
#[inline(never)]
fn touch_stack() {
    hint::black_box([1u8; 12 * 1024]);
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn only_private_memory_that_can_be_written_is_copied() {
        let found = parse("7f00-8f00 rw-p 000ff000 fe:00 10618709   /a/program").unwrap();
        assert_eq!((found.start, found.length.get()), (0x7f00, 0x1000));
        assert!(parse("7f00-8f00 r--p 00000000 00:00 0 [vvar]").is_none());
        assert!(parse("7f00-8f00 rw-s 00000000 00:01 7 /memfd:epilogue-ring (deleted)").is_none());
    }
}
