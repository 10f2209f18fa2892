//! Words that both ends share: one mapping, where two processes have one each.

use std::sync::Arc;

use super::atomic::{AtomicU64, Writers};

/// Whether the child sleeps, and who wants to be told: in `process/src/ring/mod.rs`, `ASLEEP` and `BELL`.
const BOTH: [usize; 2] = [16, 40];

#[derive(Debug, Clone)]
pub(crate) struct SharedWords(Arc<[AtomicU64]>);

impl SharedWords {
    pub(crate) fn new(words: usize) -> Self {
        let writers = |at| if BOTH.contains(&at) { Writers::Both } else { Writers::One };
        Self((0..words).map(|at| AtomicU64::new(writers(at))).collect())
    }

    pub(crate) fn words(&self) -> &[AtomicU64] {
        &self.0
    }
}
