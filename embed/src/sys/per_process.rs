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
pub struct PerProcess<T> {
    owned: AtomicPtr<Owned<T>>,
}

impl<T: Send + Sync + 'static> PerProcess<T> {
    /// An empty place.
    #[expect(
        clippy::new_without_default,
        reason = "made for statics, in which there is no default"
    )]
    pub const fn new() -> Self {
        Self { owned: AtomicPtr::new(ptr::null_mut()) }
    }

    /// The value of this process, if it has made one.
    pub fn get(&'static self) -> Option<&'static T> {
        Self::own(self.owned.load(Ordering::Acquire))
    }

    /// The value of this process, made now if there is none.
    pub fn get_or_init(&'static self, make: fn() -> T) -> &'static T {
        loop {
            // Judged and replaced by one load: between two, another thread of this process may have
            // published, and its value would be replaced, with all that it has put there.
            let found = self.owned.load(Ordering::Acquire);
            if let Some(value) = Self::own(found) {
                return value;
            }
            self.replace(found, make());
        }
    }

    /// What `owned` points to, if this process made it.
    fn own(owned: *mut Owned<T>) -> Option<&'static T> {
        // SAFETY: the pointer is null or comes from `Box::into_raw` in `replace`, which never frees
        // what it has published, so it is valid for the rest of the process.
        let owned = unsafe { owned.as_ref() }?;
        (owned.pid == std::process::id()).then_some(&owned.value)
    }

    /// Publishes `value`, unless another thread has replaced `found` meanwhile. What a copy found of
    /// its original's is leaked, not dropped: its threads do not exist here.
    fn replace(&'static self, found: *mut Owned<T>, value: T) {
        let mine = Box::into_raw(Box::new(Owned { pid: std::process::id(), value }));
        let order = (Ordering::AcqRel, Ordering::Acquire);
        if self.owned.compare_exchange(found, mine, order.0, order.1).is_err() {
            // SAFETY: `mine` comes from `Box::into_raw` above, and nobody else has seen it.
            drop(unsafe { Box::from_raw(mine) });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    #[test]
    fn threads_that_need_it_first_at_once_get_the_same_value() {
        static PLACES: [PerProcess<Box<u8>>; 1_000] = [const { PerProcess::new() }; 1_000];
        for place in &PLACES {
            let barrier = Barrier::new(4);
            let address = || {
                barrier.wait();
                ptr::from_ref(place.get_or_init(Box::default)) as usize
            };
            thread::scope(|scope| {
                let first = scope.spawn(address);
                let others = [(); 3].map(|()| scope.spawn(address));
                let first = first.join().unwrap();
                assert!(others.into_iter().all(|other| other.join().unwrap() == first));
            });
        }
    }
}
