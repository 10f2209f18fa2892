//! The standard library's atomics, or the same without any order, to see that it is missed.

use std::sync::atomic::{self, AtomicBool};

pub(crate) use std::sync::atomic::{Ordering, fence};

static IS_WEAK: AtomicBool = AtomicBool::new(false);

pub(crate) fn weaken() {
    IS_WEAK.store(true, Ordering::Relaxed);
}

fn order(order: Ordering) -> Ordering {
    if IS_WEAK.load(Ordering::Relaxed) { Ordering::Relaxed } else { order }
}

/// What is not ordered must still not be lost: nobody would see more than a hang. A fence is nothing
/// that ThreadSanitizer takes for order.
fn flush(by: Ordering) {
    if by == Ordering::SeqCst {
        fence(by);
    }
}

#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct AtomicU64(atomic::AtomicU64);

impl AtomicU64 {
    pub(crate) fn new(value: u64) -> Self {
        Self(atomic::AtomicU64::new(value))
    }

    pub(crate) fn word(&self) -> &atomic::AtomicU64 {
        &self.0
    }

    pub(crate) fn load(&self, by: Ordering) -> u64 {
        self.0.load(order(by))
    }

    pub(crate) fn store(&self, value: u64, by: Ordering) {
        self.0.store(value, order(by));
        flush(by);
    }

    pub(crate) fn swap(&self, value: u64, by: Ordering) -> u64 {
        self.0.swap(value, order(by))
    }

    pub(crate) fn fetch_or(&self, bits: u64, by: Ordering) -> u64 {
        self.0.fetch_or(bits, order(by))
    }

    pub(crate) fn compare_exchange_weak(
        &self,
        from: u64,
        to: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        self.0.compare_exchange_weak(from, to, order(success), order(failure))
    }
}
