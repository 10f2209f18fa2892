//! Memory that a process and its forks have in common.
#![expect(unsafe_code, reason = "mappings are raw memory")]

use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::ptr::{self, NonNull};

use bytemuck::Zeroable;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// Pages that a fork does not copy.
struct Pages {
    start: NonNull<u8>,
    len: NonZeroUsize,
}

impl Pages {
    /// Zeroes, all of them in memory already.
    fn new(len: usize) -> Self {
        let len = NonZeroUsize::new(len).expect("something to share");
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_POPULATE;
        // SAFETY: a new mapping, at a place of the kernel's choice, replaces nothing.
        let start = unsafe { mmap_anonymous(None, len, protection, flags) };
        Self { start: start.expect("memory to share").cast(), len }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: our own mapping, of this length, and no reference outlives `self`.
        let _ = unsafe { munmap(self.start.cast(), self.len.get()) };
    }
}

/// A value in shared memory, at first all zeroes. The other process is like another thread: what
/// it may do through a shared reference is what `Sync` allows.
pub(crate) struct Shared<T> {
    pages: Pages,
    value: PhantomData<T>,
}

impl<T: Zeroable + Sync> Shared<T> {
    pub(crate) fn new() -> Self {
        assert!(align_of::<T>() <= 4096, "pages are aligned to no more");
        Self { pages: Pages::new(size_of::<T>()), value: PhantomData }
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: mapped while `self` lives, large and aligned enough, and zeroes are a valid `T`.
        unsafe { self.pages.start.cast().as_ref() }
    }
}

/// Bytes in shared memory. Who may read and write which part when is the business of its users:
/// bytes have no invalid values, so a mistake shows as a wrong sum.
pub(crate) struct Segment(Pages);

impl Segment {
    pub(crate) fn new(len: usize) -> Self {
        Self(Pages::new(len))
    }

    pub(crate) fn write(&self, offset: usize, bytes: &[u8]) {
        let to = self.part(offset, bytes.len());
        // SAFETY: `part` checked that the bytes lie within the mapping; ours cannot overlap it.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
    }

    pub(crate) fn read(&self, offset: usize, bytes: &mut [u8]) {
        let from = self.part(offset, bytes.len());
        // SAFETY: as above.
        unsafe { ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), bytes.len()) };
    }

    fn part(&self, offset: usize, len: usize) -> *mut u8 {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.0.len.get()));
        // SAFETY: within the mapping, as was just checked.
        unsafe { self.0.start.as_ptr().add(offset) }
    }
}
