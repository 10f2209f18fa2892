//! A semaphore in this process's own memory: a handler wakes a thread with it.
//!
//! Not a pipe: that would be a descriptor, and one shared with every copy made by `fork`.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;

/// Counts wake-ups that nobody has waited for yet. Never moves once it is in use.
#[derive(Debug)]
pub(crate) struct Wake(Box<UnsafeCell<libc::sem_t>>);

// SAFETY: every access to the semaphore goes through the C library, which synchronizes it.
unsafe impl Send for Wake {}
// SAFETY: as above; no method gives a reference to the inside.
unsafe impl Sync for Wake {}

impl Wake {
    pub(crate) fn new() -> Self {
        // SAFETY: plain data, which `sem_init` overwrites before any use.
        let semaphore = unsafe { MaybeUninit::<libc::sem_t>::zeroed().assume_init() };
        let wake = Self(Box::new(UnsafeCell::new(semaphore)));
        // SAFETY: the place is boxed, so it stays where it is; nobody else knows it yet.
        unsafe { libc::sem_init(wake.0.get(), 0, 0) };
        wake
    }

    /// Wakes the waiting thread. Async-signal-safe.
    pub(crate) fn post(&self) {
        // SAFETY: initialized in `new`. At the largest count it fails, with a wake-up left.
        unsafe { libc::sem_post(self.0.get()) };
    }

    /// Waits for a wake-up. May return without one, after a signal.
    pub(crate) fn wait(&self) {
        // SAFETY: initialized in `new`.
        unsafe { libc::sem_wait(self.0.get()) };
    }
}
