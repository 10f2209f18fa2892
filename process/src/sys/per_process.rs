//! A value that every process has for its own: a copy made by `fork` starts without one.
//!
//! What a process stored is never seen by a copy of it: a mutex that another thread held during
//! `fork` is locked for ever in the copy.

#![expect(unsafe_code, reason = "a pointer that is read without a lock")]

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

#[derive(Debug)]
struct Owned<T> {
    pid: u32,
    value: T,
}

/// A static place for one value in each process.
#[derive(Debug)]
pub(crate) struct PerProcess<T> {
    owned: AtomicPtr<Owned<T>>,
}

impl<T: Send + Sync + 'static> PerProcess<T> {
    pub(crate) const fn new() -> Self {
        Self { owned: AtomicPtr::new(ptr::null_mut()) }
    }

    /// The value of this process, if it has made one.
    pub(crate) fn get(&'static self) -> Option<&'static T> {
        let owned = self.owned.load(Ordering::Acquire);
        // SAFETY: null, or from `Box::into_raw` below, and never freed once published.
        let owned = unsafe { owned.as_ref() }?;
        (owned.pid == std::process::id()).then_some(&owned.value)
    }

    /// The value of this process, made now if there is none.
    pub(crate) fn get_or_init(&'static self, make: fn() -> T) -> &'static T {
        loop {
            let before = self.owned.load(Ordering::Acquire);
            if let Some(value) = self.get() {
                return value;
            }
            let mine = Box::into_raw(Box::new(Owned { pid: std::process::id(), value: make() }));
            let order = (Ordering::AcqRel, Ordering::Acquire);
            // A copy's original is leaked, not dropped: what it owns is another process's.
            if self.owned.compare_exchange(before, mine, order.0, order.1).is_err() {
                // SAFETY: from `Box::into_raw` above, and nobody else has seen it.
                drop(unsafe { Box::from_raw(mine) });
            }
        }
    }
}
