//! A value that is made once and lives as long as the image, readable from a handler.
//!
//! Not a `OnceLock`: a thread that was initializing one during `fork` never finishes in the copy.

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// A static place for one value.
#[derive(Debug)]
pub(crate) struct Published<T>(AtomicPtr<T>);

impl<T: Sync + 'static> Published<T> {
    pub(crate) const fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// The value, if there is one. Async-signal-safe.
    pub(crate) fn get(&'static self) -> Option<&'static T> {
        let value = self.0.load(Ordering::Acquire);
        // SAFETY: null, or from `Box::into_raw` in `publish`, and never freed once published.
        unsafe { value.as_ref() }
    }

    /// Publishes `value`, unless another thread was first.
    pub(crate) fn publish(&'static self, value: T) {
        let value = Box::into_raw(Box::new(value));
        let order = (Ordering::AcqRel, Ordering::Acquire);
        if self.0.compare_exchange(ptr::null_mut(), value, order.0, order.1).is_err() {
            // SAFETY: from `Box::into_raw` above, and nobody else has seen it.
            drop(unsafe { Box::from_raw(value) });
        }
    }
}
