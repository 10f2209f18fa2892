//! When a worker has done enough, and another one takes its place.
//!
//! No task waits for that. The next worker is started while the one before it still works, and waits,
//! up, until that leaves; so for a while there are more workers than run tasks.

use std::time::Duration;

/// After how many tasks a worker is replaced, and how early the next is started.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Recycling {
    most_tasks: Option<u64>,
    growth: Growth,
    /// How long a worker took to come up, its initializer included; the slowest so far.
    slowest_start: Duration,
}

/// Whether workers are replaced that have grown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Growth {
    Any,
    Bounded,
}

impl Recycling {
    /// A worker is started at least so long before it is needed.
    const LEAST_LEAD: Duration = Duration::from_millis(20);

    pub(crate) fn new(most_tasks: Option<u64>, growth: Growth) -> Self {
        Self { most_tasks, growth, slowest_start: Duration::ZERO }
    }

    /// Whether workers leave that have done enough.
    pub(crate) fn is_on(&self) -> bool {
        self.most_tasks.is_some() || self.growth == Growth::Bounded
    }

    /// How many tasks a worker may do after those that it has done or has.
    pub(crate) fn left_after(&self, tasks: u64) -> Option<u64> {
        self.most_tasks.map(|most| most.saturating_sub(tasks))
    }

    /// Whether the next worker is to be started: this one may do so many more tasks, each of which
    /// takes about so long, if that is known.
    pub(crate) fn is_due(&self, left: u64, each: Option<Duration>) -> bool {
        let lead = (self.slowest_start * 4).max(Self::LEAST_LEAD);
        match (self.most_tasks, each) {
            (None, _) => false,
            (Some(_), _) if left <= 1 => true,
            (Some(_), Some(each)) => {
                each.saturating_mul(u32::try_from(left).unwrap_or(u32::MAX)) <= lead
            }
            (Some(most), None) => left <= most / 2,
        }
    }

    /// A worker took so long to come up.
    pub(crate) fn note_start(&mut self, took: Duration) {
        self.slowest_start = self.slowest_start.max(took);
    }
}

#[cfg(test)]
mod tests {
    use super::{Growth, Recycling};
    use std::time::Duration;

    #[test]
    fn the_next_worker_is_started_before_the_last_task() {
        let recycling = Recycling::new(Some(1000), Growth::Any);
        assert_eq!(recycling.left_after(999), Some(1));
        assert_eq!(recycling.left_after(2000), Some(0));
        let (short, long) = (Duration::from_micros(1), Duration::from_secs(1));
        for each in [None, Some(short), Some(long)] {
            assert!(recycling.is_due(0, each) && recycling.is_due(1, each), "{each:?}");
        }
        assert!(recycling.is_due(900, Some(short)) && !recycling.is_due(2, Some(long)));
        assert!(recycling.is_due(500, None) && !recycling.is_due(501, None));
    }

    #[test]
    fn the_longer_a_start_takes_the_earlier_it_is_made() {
        let (mut recycling, each) =
            (Recycling::new(Some(1000), Growth::Any), Some(Duration::from_millis(10)));
        assert!(!recycling.is_due(400, each));
        recycling.note_start(Duration::from_secs(1));
        assert!(recycling.is_due(400, each));
    }
}
