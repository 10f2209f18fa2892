//! A value that every process has for its own: a copy made by `fork` starts with a new one.
//!
//! # Invariants
//! 1. What one process stored is never seen, locked or dropped by a copy of it: a mutex that
//!    another thread held during `fork` is locked for ever in the copy.
//! 2. [`PerProcess::get`] is async-signal-safe: one atomic load and `getpid`.

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// The value, and the process that made it.
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
    /// An empty place.
    pub(crate) const fn new() -> Self {
        Self { owned: AtomicPtr::new(ptr::null_mut()) }
    }

    /// The value of this process, if it has made one.
    pub(crate) fn get(&'static self) -> Option<&'static T> {
        let owned = self.owned.load(Ordering::Acquire);
        // SAFETY: the pointer is null or comes from `Box::into_raw` in `get_or_init`, which never
        // frees what it has published, so it is valid for the rest of the process.
        let owned = unsafe { owned.as_ref() }?;
        (owned.pid == std::process::id()).then_some(&owned.value)
    }

    /// The value of this process, made now if there is none.
    pub(crate) fn get_or_init(&'static self, make: fn() -> T) -> &'static T {
        if let Some(value) = self.get() {
            return value;
        }
        let pid = std::process::id();
        let before = self.owned.load(Ordering::Acquire);
        let mine = Box::new(Owned { pid, value: make() });
        // A copy's original is leaked, not dropped: its threads do not exist here.
        let mine = Box::into_raw(mine);
        match self.owned.compare_exchange(before, mine, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => {}
            // SAFETY: `mine` comes from `Box::into_raw` above, and nobody else has seen it.
            Err(_) => drop(unsafe { Box::from_raw(mine) }),
        }
        // Another thread of this process may have published between `get` and the load above.
        self.get_or_init(make)
    }
}
