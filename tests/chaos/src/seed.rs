//! Seeds: one for a run, and from it one for each of its cases.

use support::Random;

/// Names a case for good: the same seed and number are the same case.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seed {
    pub(crate) run: u64,
    pub(crate) case: u64,
}

impl Seed {
    /// What is random in this case. Two parts of it, such as the one who acts and the one who is
    /// acted upon, have numbers of their own.
    pub(crate) fn random(self, part: u64) -> Random {
        let mut runs = Random::new(self.run);
        let mixed = runs.below(u64::MAX >> 11) ^ self.case.rotate_left(24) ^ part.rotate_left(56);
        Random::new(mixed)
    }
}
