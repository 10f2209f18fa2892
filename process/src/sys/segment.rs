//! Segments: files in memory that one process writes and others read, again and again.
//!
//! What makes a read sound is the file's seals, which no process can take back: nobody can take
//! the memory away. Its maker may go on to write, so it is read through atomics only.

#![expect(unsafe_code, reason = "mappings are raw memory")]

use std::io;
use std::iter;
use std::mem::MaybeUninit;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use super::mapping::{create, is_whole, len_of};
use super::raw::Source;

/// What a segment must have to be read. Whoever could shrink it, or punch holes into it, could
/// end its readers by a signal.
const SEALS: SealFlag =
    SealFlag::F_SEAL_SHRINK.union(SealFlag::F_SEAL_GROW).union(SealFlag::F_SEAL_FUTURE_WRITE);

/// A mapping of a whole segment.
#[derive(Debug)]
struct Mapping {
    start: NonNull<AtomicU64>,
    /// In bytes.
    len: NonZeroUsize,
}

// SAFETY: the memory belongs to the mapping alone, and no thread is special to it.
unsafe impl Send for Mapping {}
// SAFETY: through a shared reference it is only reached through `&AtomicU64`.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(file: &OwnedFd, len: usize, protection: ProtFlags) -> io::Result<Self> {
        let len = NonZeroUsize::new(len).ok_or(io::ErrorKind::InvalidData)?;
        // SAFETY: a new mapping, at a place of the kernel's choice, replaces nothing.
        let start = unsafe { mmap(None, len, protection, MapFlags::MAP_SHARED, file, 0) }?;
        Ok(Self { start: start.cast(), len })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: our own mapping, of this length, and no reference outlives `self`.
        let _ = unsafe { munmap(self.start.cast(), self.len.get()) };
    }
}

/// A segment, as its maker has it. Nobody else can write to it.
#[derive(Debug)]
pub(crate) struct Segment {
    mapping: Mapping,
    file: Arc<OwnedFd>,
}

impl Segment {
    /// Makes a segment of `len` bytes. All of its memory is there from now on.
    pub(crate) fn create(len: usize) -> io::Result<Self> {
        let file = create(len)?;
        let mapping = Mapping::new(&file, len, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)?;
        // Our own mapping can be written to; no other will.
        fcntl(&file, FcntlArg::F_ADD_SEALS(SEALS | SealFlag::F_SEAL_SEAL))?;
        Ok(Self { mapping, file: Arc::new(file) })
    }

    pub(crate) fn len(&self) -> usize {
        self.mapping.len.get()
    }

    pub(crate) fn file(&self) -> &Arc<OwnedFd> {
        &self.file
    }

    /// Writes these bytes from the beginning on; as many as there is room for.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        let len = bytes.len().min(self.len());
        let to = self.mapping.start.cast::<u8>().as_ptr();
        // SAFETY: so many bytes are mapped for writing, by nobody else, and the reference to
        // `self` is exclusive.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), to, len) };
    }

    /// The first `len` bytes, or all.
    pub(crate) fn bytes(&self, len: usize) -> &[u8] {
        // SAFETY: mapped while `self` lives; nobody else can write, and writing takes an exclusive
        // reference to `self`.
        unsafe { slice::from_raw_parts(self.mapping.start.cast().as_ptr(), len.min(self.len())) }
    }
}

/// A segment that another process made, mapped for reading.
#[derive(Debug)]
pub(crate) struct Window(Mapping);

impl Window {
    /// Maps all of it.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::InvalidData`] if it is no segment: its memory could be taken away.
    pub(crate) fn open(file: &OwnedFd) -> io::Result<Self> {
        // Files on a disk have no seals.
        let seals = fcntl(file, FcntlArg::F_GET_SEALS).unwrap_or(0);
        // In this order: with the seals on, what is there stays there.
        if !SealFlag::from_bits_retain(seals).contains(SEALS) || !is_whole(file)? {
            let message = "the memory is not sealed against being taken away, or not all there";
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(Self(Mapping::new(file, len_of(file)?, ProtFlags::PROT_READ)?))
    }

    /// How long it is, in bytes.
    pub(crate) fn len(&self) -> usize {
        self.0.len.get()
    }

    fn words(&self) -> &[AtomicU64] {
        // A file's last page is mapped whole.
        let words = self.len().div_ceil(size_of::<AtomicU64>());
        // SAFETY: mapped while `self` lives, aligned to a page, sealed against shrinking, and any
        // bit pattern is a valid word.
        unsafe { slice::from_raw_parts(self.0.start.as_ptr(), words) }
    }
}

/// The first bytes of a window.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Start<'a>(pub(crate) &'a Window, pub(crate) usize);

// SAFETY: it writes to all of the target, whose length is no longer than the window: `len` says so.
unsafe impl Source for Start<'_> {
    fn len(&self) -> usize {
        self.1.min(self.0.len())
    }

    fn copy_to(&self, target: &mut [MaybeUninit<u8>]) {
        let words = self.0.words();
        let (whole, rest) = target.as_chunks_mut::<{ size_of::<u64>() }>();
        assert!(whole.len() + usize::from(!rest.is_empty()) <= words.len(), "within the window");
        let last = words.get(whole.len());
        for (to, word) in iter::zip(whole, words) {
            *to = word.load(Ordering::Relaxed).to_ne_bytes().map(MaybeUninit::new);
        }
        let last = last.map_or(0, |word| word.load(Ordering::Relaxed)).to_ne_bytes();
        for (to, byte) in iter::zip(rest, last) {
            to.write(byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use nix::fcntl::{FallocateFlags, FcntlArg, SealFlag, fallocate, fcntl};
    use nix::sys::memfd::{MFdFlags, memfd_create};

    use super::{Segment, Start, Window};
    use crate::sys::{mapping, raw};

    #[test]
    fn what_is_written_to_a_segment_is_read_from_its_window_at_any_length() {
        let mut segment = Segment::create(3 << 12).unwrap();
        let window = Window::open(segment.file()).unwrap();
        for len in [0, 1, 7, 8, 9, 4095, 4096, 3 << 12] {
            let bytes: Vec<u8> = (0..len).map(|i| (i * 7 + len) as u8).collect();
            segment.write(&bytes);
            assert_eq!(segment.bytes(len), bytes);
            assert_eq!(raw::vector::<Vec<u8>>(&Start(&window, len)), Some(bytes));
        }
        assert_eq!(raw::vector::<Vec<u64>>(&Start(&window, 9)), None);
    }

    #[test]
    fn nobody_but_its_maker_writes_to_a_segment_or_takes_it_away() {
        let segment = Segment::create(2 << 12).unwrap();
        let file = segment.file();
        assert!(nix::unistd::ftruncate(file, 1).is_err());
        assert!(nix::sys::uio::pwrite(file, &[1], 0).is_err());
        let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        assert!(fallocate(file, hole, 0, 4096).is_err());
        assert!(mapping::Draft::map(file, 2 << 12).is_err());
    }

    #[test]
    fn what_its_maker_could_take_away_is_not_mapped() {
        let sealed = |file: OwnedFd, seals: SealFlag| {
            fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).unwrap();
            Window::open(&file)
        };
        for missing in [SealFlag::F_SEAL_SHRINK, SealFlag::F_SEAL_FUTURE_WRITE] {
            let file = mapping::create(4096).unwrap();
            assert!(sealed(file, super::SEALS.difference(missing)).is_err());
        }
        let holes = memfd_create(c"holes", MFdFlags::MFD_ALLOW_SEALING);
        let holes = holes.unwrap();
        nix::unistd::ftruncate(&holes, 1 << 20).unwrap();
        assert!(sealed(holes, super::SEALS).is_err());
        for seals in [super::SEALS, mapping::FROZEN] {
            let behind = memfd_create(c"behind", MFdFlags::MFD_ALLOW_SEALING);
            let behind = behind.unwrap();
            nix::unistd::ftruncate(&behind, 1 << 20).unwrap();
            // As much as it lacks, but behind its end.
            let keep_size = FallocateFlags::FALLOC_FL_KEEP_SIZE;
            fallocate(&behind, keep_size, 1 << 20, 1 << 20).unwrap();
            fcntl(&behind, FcntlArg::F_ADD_SEALS(seals)).unwrap();
            assert!(Window::open(&behind).is_err());
            assert!(mapping::Frozen::map(&behind, 1).is_err());
        }
        assert!(sealed(mapping::create(4096).unwrap(), super::SEALS).is_ok());
        let disk = std::fs::File::open("/proc/self/exe").unwrap();
        assert!(Window::open(&disk.into()).is_err());
    }
}
