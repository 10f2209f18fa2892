//! A value that is made when it is first needed, and lives as long as the image.
//!
//! Not a `OnceLock`: a thread that was making one during `fork` never finishes in the copy, where
//! whoever needs it would wait for ever. Here several threads may make one at once, and the first is
//! kept.

#![expect(unsafe_code, reason = "a pointer that is read without a lock")]

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// A static place for one value.
#[derive(Debug)]
pub(crate) struct Once<T>(AtomicPtr<T>);

impl<T: Send + Sync + 'static> Once<T> {
    pub(crate) const fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// The value, made now if there is none.
    #[inline]
    pub(crate) fn get_or_make(&'static self, make: fn() -> T) -> &'static T {
        // SAFETY: null, or from `Box::into_raw` in `keep`, and never freed once published.
        match unsafe { self.0.load(Ordering::Acquire).as_ref() } {
            Some(value) => value,
            None => self.keep(make()),
        }
    }

    #[cold]
    fn keep(&'static self, value: T) -> &'static T {
        let mine = Box::into_raw(Box::new(value));
        let order = (Ordering::AcqRel, Ordering::Acquire);
        let kept = match self.0.compare_exchange(ptr::null_mut(), mine, order.0, order.1) {
            Ok(_) => mine,
            Err(first) => {
                // SAFETY: from `Box::into_raw` above, and nobody else has seen it.
                drop(unsafe { Box::from_raw(mine) });
                first
            }
        };
        // SAFETY: not null, and never freed from here on.
        unsafe { &*kept }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use super::Once;
    use crate::sys::copy::ends_well_in_a_copy;

    #[test]
    fn a_copy_that_is_made_in_the_middle_makes_its_own() {
        static BARRIER: Barrier = Barrier::new(2);
        static PLACE: Once<u8> = Once::new();
        let slow = thread::spawn(|| {
            PLACE.get_or_make(|| {
                BARRIER.wait();
                BARRIER.wait();
                1
            })
        });
        BARRIER.wait();
        assert!(ends_well_in_a_copy(|| assert_eq!(*PLACE.get_or_make(|| 2), 2)));
        BARRIER.wait();
        assert_eq!((*slow.join().unwrap(), *PLACE.get_or_make(|| 3)), (1, 1));
    }
}
