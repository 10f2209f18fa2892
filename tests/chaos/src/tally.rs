//! What became of the cases of a run, and whether that is enough.

use std::fmt;

/// Counts cases, each of which is one of these.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) not_tried: u64,
    pub(crate) failed: u64,
    /// The time was up before.
    pub(crate) not_begun: u64,
}

impl Tally {
    /// What is wrong with the run as a whole, besides the cases that failed.
    pub(crate) fn problem(&self) -> Option<String> {
        let Self { passed, not_tried, failed, not_begun } = *self;
        let begun = passed + not_tried + failed;
        (begun < not_begun)
            .then(|| format!("of {} cases only {begun} were begun in time", begun + not_begun))
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { passed, not_tried, failed, not_begun } = *self;
        write!(f, "{passed} passed, ")?;
        for (count, what) in [(not_tried, "not tried"), (not_begun, "not begun")] {
            if count > 0 {
                write!(f, "{count} {what}, ")?;
            }
        }
        write!(f, "{failed} failed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_cases_is_enough_and_fewer_are_not() {
        let half = Tally { passed: 3, not_tried: 1, failed: 1, not_begun: 5 };
        assert_eq!(half.problem(), None);
        assert_eq!(half.to_string(), "3 passed, 1 not tried, 5 not begun, 1 failed");
        let fewer = Tally { not_begun: 6, ..half };
        assert_eq!(fewer.problem().unwrap(), "of 11 cases only 5 were begun in time");
        assert_eq!(Tally::default().problem(), None);
        assert!(Tally { not_begun: 1, ..Tally::default() }.problem().is_some());
    }
}
