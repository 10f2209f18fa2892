//! A shared page of words: written by a parent and one child, each through atomics only.

#![expect(unsafe_code, reason = "shared mappings are raw memory")]

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use super::process::check_file_size;

/// How many words a page of claims has.
pub(crate) const WORDS: usize = PAGE / size_of::<AtomicU64>();
const PAGE: usize = 4096;

/// A page of zeroed words, mapped for as long as this lives.
#[derive(Debug)]
pub(crate) struct SharedWords {
    words: NonNull<AtomicU64>,
}

// SAFETY: the page is only ever reached through `&AtomicU64`, which is made for sharing.
unsafe impl Send for SharedWords {}
// SAFETY: as above.
unsafe impl Sync for SharedWords {}

impl SharedWords {
    /// Makes a page, and the descriptor by which the child maps it too.
    pub(crate) fn create() -> io::Result<(Self, OwnedFd)> {
        check_file_size(PAGE)?;
        let fd =
            memfd_create(c"epilogue-claims", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
        nix::unistd::ftruncate(&fd, PAGE as libc::off_t)?;
        // Without the seal the child could shrink the file, and a load here would be a SIGBUS.
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&fd, FcntlArg::F_ADD_SEALS(seals))?;
        Ok((Self::map(&fd)?, fd))
    }

    /// Maps the page behind `fd`, which a parent made by [`SharedWords::create`].
    pub(crate) fn map(fd: impl AsFd) -> io::Result<Self> {
        const LENGTH: NonZeroUsize = NonZeroUsize::new(PAGE).expect("a page has a size");
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping, at a place of the kernel's choice, replaces nothing.
        let page = unsafe { mmap(None, LENGTH, protection, MapFlags::MAP_SHARED, fd, 0) }?;
        Ok(Self { words: page.cast() })
    }

    /// The word at `index`, or none beyond the page.
    pub(crate) fn word(&self, index: usize) -> Option<&AtomicU64> {
        if index >= WORDS {
            return None;
        }
        // SAFETY: the index lies within the page.
        let word = unsafe { self.words.add(index) };
        // SAFETY: mapped while `self` lives, aligned, sealed against shrinking, and any bit
        // pattern is a valid word.
        Some(unsafe { word.as_ref() })
    }
}

impl Drop for SharedWords {
    fn drop(&mut self) {
        // SAFETY: our own mapping, of this length, and no reference outlives `self`.
        let _ = unsafe { munmap(self.words.cast(), PAGE) };
    }
}
