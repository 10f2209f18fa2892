//! Which process this is, without a system call.
//!
//! A copy made by `fork` runs on in the middle of our code and must not take the original's
//! workers, calls and answers for its own. The number is asked for with every task, and the kernel
//! takes longer for it than a task may.

#![expect(unsafe_code, reason = "a page that the kernel empties in a copy")]

use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use epilogue_embed::lent::Once;
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous};

/// A word that is zero in each new process. It is never unmapped.
#[derive(Debug)]
struct Word(NonNull<AtomicU32>);

// SAFETY: it is only ever reached through `&AtomicU32`.
unsafe impl Send for Word {}
// SAFETY: as above.
unsafe impl Sync for Word {}

/// The id of the process that calls this.
#[inline]
pub fn own() -> u32 {
    static WORD: Once<Option<Word>> = Once::new();
    let Some(Word(word)) = WORD.get_or_make(make) else { return std::process::id() };
    // SAFETY: mapped for ever, aligned to a page, and zero is a valid number.
    let word = unsafe { word.as_ref() };
    match word.load(Ordering::Relaxed) {
        0 => {
            let id = std::process::id();
            word.store(id, Ordering::Relaxed);
            id
        }
        id => id,
    }
}

/// None where the kernel does not empty pages for us.
fn make() -> Option<Word> {
    let page = NonZeroUsize::new(size_of::<AtomicU32>())?;
    let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: a new mapping, at a place of the kernel's choice, replaces nothing.
    let word = unsafe { mmap_anonymous(None, page, protection, MapFlags::MAP_PRIVATE) }.ok()?;
    // SAFETY: it is our own page, and nothing is in it yet.
    unsafe { madvise(word, page.get(), MmapAdvise::MADV_WIPEONFORK) }.ok()?;
    Some(Word(word.cast()))
}
