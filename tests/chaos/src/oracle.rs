//! What a case left behind, as its subreaper and its cgroup see it.

use std::time::{Duration, Instant};

use support::Oracle;

use crate::group::Group;

/// Asserts that all that the case started is gone within `bound`; how long it took.
#[track_caller]
pub(crate) fn gone_within(oracle: &Oracle, group: &Group, bound: Duration) -> Duration {
    let start = Instant::now();
    oracle.orphans_end_within(bound);
    // Whoever left this subreaper could not leave the cgroup.
    assert!(!group.is_populated(), "no child is left, and still somebody is in the cgroup");
    start.elapsed()
}
