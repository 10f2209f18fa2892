//! Words that both ends share: one mapping, for ThreadSanitizer takes two for different memory.

use super::atomic::AtomicU64;

/// Never freed: that an `Arc` is dropped in order is said by a fence, which ThreadSanitizer does not see.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SharedWords(&'static [AtomicU64]);

impl SharedWords {
    pub(crate) fn new(words: usize) -> Self {
        Self(Vec::leak((0..words).map(|_| AtomicU64::new(0)).collect()))
    }

    pub(crate) fn words(&self) -> &[AtomicU64] {
        self.0
    }
}
