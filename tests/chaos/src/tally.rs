//! What became of the cases of a run, and whether that is enough.

use std::fmt;

use crate::cli::Length;

/// Counts cases, each of which is one of these.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) not_tried: u64,
    pub(crate) not_reached: u64,
    pub(crate) failed: u64,
    /// The time was up before, or the run was to stop.
    pub(crate) not_begun: u64,
}

impl Tally {
    /// What is wrong with the run as a whole, besides the cases that failed. One before a change has to
    /// begin all of its cases.
    pub(crate) fn problem(&self, length: Length) -> Option<String> {
        let Self { passed, not_tried, not_reached, failed, not_begun } = *self;
        let begun = passed + not_tried + not_reached + failed;
        let may_wait = match length {
            Length::Ci => 0,
            Length::Full => begun,
        };
        if not_begun > may_wait {
            return Some(format!("of {} cases only {begun} were begun in time", begun + not_begun));
        }
        // One that looks at the table of all others may be among those that passed.
        (not_reached > passed)
            .then(|| format!("{not_reached} cases never came to their fault, {passed} did"))
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { passed, not_tried, not_reached, failed, not_begun } = *self;
        write!(f, "{passed} passed, ")?;
        let rest =
            [(not_tried, "not tried"), (not_reached, "not reached"), (not_begun, "not begun")];
        for (count, what) in rest {
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
    fn by_hand_half_of_the_cases_is_enough_and_before_a_change_all_are() {
        let half = Tally { passed: 3, not_tried: 1, failed: 1, not_begun: 5, not_reached: 0 };
        assert_eq!(half.problem(Length::Full), None);
        assert_eq!(half.to_string(), "3 passed, 1 not tried, 5 not begun, 1 failed");
        let fewer = Tally { not_begun: 6, ..half };
        let problem = fewer.problem(Length::Full).unwrap();
        assert_eq!(problem, "of 11 cases only 5 were begun in time");
        for length in [Length::Ci, Length::Full] {
            assert_eq!(Tally::default().problem(length), None);
            assert!(Tally { not_begun: 1, ..Tally::default() }.problem(length).is_some());
        }
        let all_but_one = Tally { passed: 300, not_begun: 1, ..Tally::default() };
        assert_eq!(all_but_one.problem(Length::Full), None);
        let problem = all_but_one.problem(Length::Ci).unwrap();
        assert_eq!(problem, "of 301 cases only 300 were begun in time");
    }

    #[test]
    fn a_run_in_which_next_to_nothing_happened_fails_unless_the_machine_allows_no_more() {
        let census_alone = Tally { passed: 1, not_reached: 300, ..Tally::default() };
        let problem = census_alone.problem(Length::Ci).unwrap();
        assert_eq!(problem, "300 cases never came to their fault, 1 did");
        let most = Tally { passed: 300, not_reached: 4, ..Tally::default() };
        assert_eq!(most.problem(Length::Ci), None);
        assert_eq!(most.to_string(), "300 passed, 4 not reached, 0 failed");
        assert_eq!(Tally { not_tried: 200, ..Tally::default() }.problem(Length::Ci), None);
    }
}
