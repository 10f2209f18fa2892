//! The segments of a child that its parent has done with: a word of one bit each.

use std::sync::Arc;

use super::RETURNED;
use crate::sys::atomic::Ordering;
use crate::sys::memory::SharedWords;
use crate::sys::pid;

/// A segment of the child's that the parent reads. It is given back by being dropped.
#[derive(Debug)]
pub(crate) struct Deposit {
    shared: Arc<SharedWords>,
    slot: u32,
    owner: u32,
}

impl Deposit {
    pub(super) fn new(shared: &Arc<SharedWords>, slot: u32) -> Self {
        Self { shared: Arc::clone(shared), slot, owner: pid::own() }
    }

    /// Gives it back, and says that it was never mapped: the child is to send it again.
    pub(crate) fn refuse(self) {
        self.set(1 << (self.slot + Returned::UNKNOWN));
    }

    fn set(&self, bit: u64) {
        // In a copy made by `fork` it is still the original that reads.
        if pid::own() == self.owner {
            // After all that was read: from here on the child may write.
            self.shared.words()[RETURNED].fetch_or(bit, Ordering::Release);
        }
    }
}

impl Drop for Deposit {
    fn drop(&mut self) {
        self.set(1 << self.slot);
    }
}

/// What a parent has given back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Returned(u64);

impl Returned {
    const UNKNOWN: u32 = 32;

    /// Takes notice of it: it is told once.
    pub(super) fn take(shared: &SharedWords) -> Self {
        let word = &shared.words()[RETURNED];
        match word.load(Ordering::Relaxed) {
            0 => Self(0),
            _ => Self(word.swap(0, Ordering::Acquire)),
        }
    }

    pub(crate) fn has(self, slot: usize) -> bool {
        self.0 & (1 << slot) != 0
    }

    pub(crate) fn is_unknown(self, slot: usize) -> bool {
        self.0 & (1 << slot << Self::UNKNOWN) != 0
    }
}
