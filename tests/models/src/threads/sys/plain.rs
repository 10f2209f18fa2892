//! Memory that is no atomic.

#![expect(unsafe_code, reason = "whether its accesses race is what is to be found out")]

use std::cell::UnsafeCell;

pub(crate) struct Plain(Box<[UnsafeCell<u64>]>);

// SAFETY: a thread reaches a cell only while the ring says that it is its own; if the ring were wrong,
// ThreadSanitizer, for which this is made, would say so.
unsafe impl Sync for Plain {}

impl Plain {
    pub(crate) fn new(cells: usize) -> Self {
        Self((0..cells).map(|_| UnsafeCell::new(0)).collect())
    }

    #[inline(never)]
    pub(crate) fn get(&self, at: u64) -> u64 {
        // SAFETY: no other thread has this cell, see above.
        unsafe { *self.0[at as usize].get() }
    }

    #[inline(never)]
    pub(crate) fn set(&self, at: u64, value: u64) {
        // SAFETY: as above.
        unsafe { *self.0[at as usize].get() = value }
    }
}
