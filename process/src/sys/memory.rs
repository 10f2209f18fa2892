//! Memory that a parent and one child share: words, each reached through an atomic only.

#![expect(unsafe_code, reason = "shared mappings are raw memory")]

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::AtomicU64;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, munmap};
use nix::sys::stat::fstat;

use super::process::check_file_size;

/// So many zeroed words, mapped for as long as this lives.
#[derive(Debug)]
pub(crate) struct SharedWords {
    start: NonNull<AtomicU64>,
    len: usize,
}

// SAFETY: the memory is only ever reached through `&AtomicU64`, which is made for sharing.
unsafe impl Send for SharedWords {}
// SAFETY: as above.
unsafe impl Sync for SharedWords {}

impl SharedWords {
    /// Makes so many words, and the descriptor by which the child maps them too.
    pub(crate) fn create(words: usize) -> io::Result<(Self, OwnedFd)> {
        check_file_size(words * size_of::<AtomicU64>())?;
        let fd =
            memfd_create(c"epilogue-ring", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
        let bytes = words * size_of::<AtomicU64>();
        nix::unistd::ftruncate(&fd, libc::off_t::try_from(bytes).map_err(io::Error::other)?)?;
        // Without the seal the child could shrink the file, and a load here would be a SIGBUS.
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&fd, FcntlArg::F_ADD_SEALS(seals))?;
        Ok((Self::map(&fd)?, fd))
    }

    /// Maps all the words behind `fd`, which a parent made by [`SharedWords::create`].
    pub(crate) fn map(fd: impl AsFd) -> io::Result<Self> {
        let bytes = usize::try_from(fstat(&fd)?.st_size).map_err(io::Error::other)?;
        let size = NonZeroUsize::new(bytes).ok_or(io::ErrorKind::UnexpectedEof)?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping, at a place of the kernel's choice, replaces nothing.
        let start = unsafe { mmap(None, size, protection, MapFlags::MAP_SHARED, fd, 0) }?;
        Ok(Self { start: start.cast(), len: bytes / size_of::<AtomicU64>() })
    }

    /// Leaves the words out of every copy of this process that `fork` makes from now on. A copy must
    /// not touch this, nor drop it: something else may lie there by then.
    pub(crate) fn keep_from_copies(&self) -> io::Result<()> {
        let bytes = self.len * size_of::<AtomicU64>();
        // SAFETY: our own mapping, of this length, which stays as it is in this process.
        Ok(unsafe { madvise(self.start.cast(), bytes, MmapAdvise::MADV_DONTFORK) }?)
    }

    #[inline]
    pub(crate) fn words(&self) -> &[AtomicU64] {
        // SAFETY: mapped while `self` lives, aligned to a page, sealed against shrinking, and any
        // bit pattern is a valid word.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl Drop for SharedWords {
    fn drop(&mut self) {
        // SAFETY: our own mapping, of this length, and no reference outlives `self`.
        let _ = unsafe { munmap(self.start.cast(), self.len * size_of::<AtomicU64>()) };
    }
}
