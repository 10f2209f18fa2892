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
    let Some(word) = word() else { return std::process::id() };
    match word.load(Ordering::Relaxed) {
        0 => {
            let id = std::process::id();
            word.store(id, Ordering::Relaxed);
            id
        }
        id => id,
    }
}

/// A process, told from the copies that `fork` makes of it. Made once, it is asked for less than
/// [`own`].
#[derive(Debug, Clone, Copy)]
pub struct Original {
    id: u32,
    word: Option<&'static AtomicU32>,
}

impl Original {
    /// The process that calls this.
    pub fn this() -> Self {
        Self { id: own(), word: word() }
    }

    /// Whether it is that process that calls this, and not a copy of it.
    #[inline]
    pub fn is_here(self) -> bool {
        // Zero, in a copy that has not asked yet, is nobody's.
        self.id == self.word.map_or_else(std::process::id, |word| word.load(Ordering::Relaxed))
    }
}

#[inline]
fn word() -> Option<&'static AtomicU32> {
    static WORD: Once<Option<Word>> = Once::new();
    let Word(word) = WORD.get_or_make(make).as_ref()?;
    // SAFETY: mapped for ever, aligned to a page, and zero is a valid number.
    Some(unsafe { word.as_ref() })
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
