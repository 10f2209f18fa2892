//! A value that is made once and lives as long as the image, readable from a handler.
//!
//! Not a `OnceLock`: a thread that was making one during `fork` never finishes in the copy, where
//! whoever needs it would wait for ever. Here several threads may make one at once, and the first is
//! kept.

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// A static place for one value.
#[derive(Debug)]
pub struct Once<T>(AtomicPtr<T>);

impl<T: Send + Sync + 'static> Once<T> {
    /// An empty place.
    #[expect(
        clippy::new_without_default,
        reason = "made for statics, in which there is no default"
    )]
    pub const fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// The value, if there is one. Async-signal-safe.
    #[inline]
    pub fn get(&'static self) -> Option<&'static T> {
        let value = self.0.load(Ordering::Acquire);
        // SAFETY: null, or from `Box::into_raw` in `publish`, and never freed once published.
        unsafe { value.as_ref() }
    }

    /// The value, made now if there is none.
    #[inline]
    pub fn get_or_make(&'static self, make: fn() -> T) -> &'static T {
        match self.get() {
            Some(value) => value,
            None => self.publish(make()),
        }
    }

    /// Publishes `value`, unless another thread was first, and returns what is published.
    #[cold]
    pub fn publish(&'static self, value: T) -> &'static T {
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
