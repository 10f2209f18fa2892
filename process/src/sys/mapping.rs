//! Memory files: made, filled, sealed, and mapped where nobody can change them any more.
//!
//! What makes a reference into a mapping sound is the file's seals, which no process can take
//! back. Here they are put on and looked at; what a file must have is decided in `shared`.

#![expect(unsafe_code, reason = "mappings are raw memory")]

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::slice;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, SealFlag, fallocate, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::sys::stat::fstat;
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};
use nix::unistd::ftruncate;

/// What a file must have for its content never to change.
pub(crate) const FROZEN: SealFlag =
    SealFlag::F_SEAL_SHRINK.union(SealFlag::F_SEAL_GROW).union(SealFlag::F_SEAL_WRITE);

/// Makes a file of `len` zeroes in memory. All of it is there: a full memory is an error now, not
/// a signal later.
pub(crate) fn create(len: usize) -> io::Result<OwnedFd> {
    let base = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let name = c"epilogue-shared";
    if len > LARGE && len as u64 > available_memory() {
        // The kernel would try, and kill somebody for the last pages.
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    super::process::check_file_size(len)?;
    // Before Linux 6.3 there is no such flag.
    let file = memfd_create(name, base | MFdFlags::from_bits_retain(libc::MFD_NOEXEC_SEAL))
        .or_else(|error| match error {
            Errno::EINVAL => memfd_create(name, base),
            error => Err(error),
        })?;
    let too_large = |_| io::Error::from(io::ErrorKind::FileTooLarge);
    let len = i64::try_from(len).map_err(too_large)?;
    ftruncate(&file, len)?;
    // In steps: an interrupted call gives its memory back and begins again.
    const STEP: i64 = 64 << 20;
    let mut done = 0;
    while done < len {
        match fallocate(&file, FallocateFlags::empty(), done, STEP.min(len - done)) {
            Ok(()) => done += STEP,
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(file)
}

/// From which size on a look at the memory that is left costs nothing in comparison.
const LARGE: usize = 16 << 20;

/// How much memory can be had at most without taking it from somebody, in bytes.
fn available_memory() -> u64 {
    let variable = |name| nix::unistd::sysconf(name).ok().flatten();
    let pages = variable(nix::unistd::SysconfVar::_PHYS_PAGES);
    let page = variable(nix::unistd::SysconfVar::PAGE_SIZE);
    let total = pages.zip(page).map_or(u64::MAX, |(pages, size)| {
        u64::try_from(pages).unwrap_or(0).saturating_mul(size.unsigned_abs())
    });
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kibibytes.map_or(total, |kibibytes| total.min(kibibytes.saturating_mul(1024)))
}

/// Seals a file for ever. Fails while somebody has it mapped for writing.
pub(crate) fn freeze(file: &OwnedFd) -> io::Result<()> {
    // The kernel waits for pages that it has in its own hands, but for 150 ms only, and on a busy
    // machine some are on another core's list for longer. Each attempt has such lists emptied first. Of
    // a mapping it says the same, at once.
    let mut attempts = 1..=10;
    loop {
        match fcntl(file, FcntlArg::F_ADD_SEALS(FROZEN | SealFlag::F_SEAL_SEAL)) {
            Err(Errno::EBUSY) if attempts.next().is_some() => {}
            result => return result.map(drop).map_err(io::Error::from),
        }
    }
}

/// Whether nobody can change the file any more, and all of it is in memory.
pub(crate) fn is_frozen(file: &OwnedFd) -> io::Result<bool> {
    // Files on a disk have no seals; files of huge pages have, but may lack the pages.
    let Ok(seals) = fcntl(file, FcntlArg::F_GET_SEALS) else {
        return Ok(false);
    };
    if !SealFlag::from_bits_retain(seals).contains(FROZEN) {
        return Ok(false);
    }
    is_whole(file)
}

/// Whether all of a file is in memory, which nobody can make shorter or longer any more.
pub(crate) fn is_whole(file: &OwnedFd) -> io::Result<bool> {
    if fstatfs(file)?.filesystem_type() != TMPFS_MAGIC {
        return Ok(false);
    }
    // Memory that its maker claimed behind the end counts as well, in place of a hole. To set the
    // length that it has lets go of that, and with the seals on none is claimed there again.
    ftruncate(file, fstat(file)?.st_size)?;
    let stat = fstat(file)?;
    // A hole would be filled at the expense of whoever looks into it, or end it by a signal.
    Ok(i128::from(stat.st_blocks) * 512 >= i128::from(stat.st_size))
}

/// How long a file is, in bytes.
pub(crate) fn len_of(file: &OwnedFd) -> io::Result<usize> {
    usize::try_from(fstat(file)?.st_size).map_err(|_| io::ErrorKind::FileTooLarge.into())
}

/// Reads the first `len` bytes of a file that is frozen into a buffer of its own.
pub(crate) fn read(file: &OwnedFd, len: usize) -> io::Result<Vec<u8>> {
    // Before there is room for it: `len` is what somebody says, who need not have put anything there.
    if len_of(file)? < len {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len)?;
    bytes.resize(len, 0);
    let mut done = 0;
    while done < len {
        match nix::sys::uio::pread(file, &mut bytes[done..], done as i64) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(some) => done += some,
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(bytes)
}

/// Writes to a file that nobody else has.
pub(crate) fn write(file: &OwnedFd, bytes: &[u8]) -> io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        match nix::sys::uio::pwrite(file, &bytes[done..], done as i64) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(some) => done += some,
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// A whole file that never changes, mapped.
#[derive(Debug)]
pub(crate) struct Frozen(Pages);

/// A whole file that nobody else has, mapped for writing.
#[derive(Debug)]
pub(crate) struct Draft(Pages);

/// A mapping, or none where there is nothing to map.
#[derive(Debug)]
struct Pages {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the memory belongs to the mapping alone, and no thread is special to it.
unsafe impl Send for Pages {}
// SAFETY: through a shared reference it can only be read.
unsafe impl Sync for Pages {}

impl Pages {
    fn map(file: impl AsFd, len: usize, write: bool) -> io::Result<Self> {
        let Some(size) = NonZeroUsize::new(len) else {
            // As aligned as any mapping.
            return Ok(Self { start: NonNull::<Page>::dangling().cast(), len });
        };
        let (protection, flags) = match write {
            true => (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED),
            // Before Linux 6.7 a file sealed against writing cannot be mapped as shared. Without
            // writes, a private mapping consists of the same pages.
            false => (ProtFlags::PROT_READ, MapFlags::MAP_PRIVATE),
        };
        // SAFETY: a new mapping, at a place of the kernel's choice, replaces nothing.
        let start = unsafe { mmap(None, size, protection, flags, file, 0) }?;
        Ok(Self { start: start.cast(), len })
    }
}

#[repr(align(4096))]
struct Page;

impl Drop for Pages {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: our own mapping, of this length, and no reference outlives `self`.
            let _ = unsafe { munmap(self.start.cast(), self.len) };
        }
    }
}

impl Frozen {
    /// Maps all of `file`, which is to have so many bytes at least, or says why it must not be looked at.
    pub(crate) fn map(file: &OwnedFd, at_least: usize) -> io::Result<Self> {
        if !is_frozen(file)? {
            let message = "the memory is not sealed against changes, or not all there";
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        let len = len_of(file)?;
        if len < at_least {
            let message = "the memory is shorter than what is said to be in it";
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(Self(Pages::map(file, len, false)?))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: mapped while `self` lives, and within a file that `map` saw to be sealed against
        // shrinking and writing, so the bytes are there and never change.
        unsafe { slice::from_raw_parts(self.0.start.as_ptr(), self.0.len) }
    }
}

impl Draft {
    /// Maps a file that [`create`] has just made, with its length.
    pub(crate) fn map(file: &OwnedFd, len: usize) -> io::Result<Self> {
        debug_assert!(file.as_raw_fd() >= 0 && len_of(file)? == len);
        Ok(Self(Pages::map(file, len, true)?))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: mapped while `self` lives; nobody else has the file, and writing takes a
        // mutable reference to `self`.
        unsafe { slice::from_raw_parts(self.0.start.as_ptr(), self.0.len) }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and the reference is exclusive.
        unsafe { slice::from_raw_parts_mut(self.0.start.as_ptr(), self.0.len) }
    }
}
