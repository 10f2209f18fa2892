//! How many workers a pool has: as many as were asked for, or as many as there is work for.

use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit};

/// How many workers this process has descriptors for.
pub(crate) fn most_workers() -> usize {
    /// Socket, pidfd, ring and doorbell, and what values of 64 KiB and more lie in.
    const EACH: u64 = 5;
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
    usize::try_from(limit / EACH).unwrap_or(usize::MAX)
}

/// How many workers there shall be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    min: usize,
    max: usize,
    wanted: usize,
    /// How long a worker has nothing to do until it is one too many.
    idle_timeout: Option<Duration>,
    /// When to look for such workers next; none while there are no more than have to be.
    look_at: Option<Instant>,
}

impl Size {
    /// A backlog below this is done before another worker would be up.
    pub(crate) const WORTH_A_WORKER: Duration = Duration::from_millis(1);

    pub(crate) fn new(min: usize, max: usize, idle_timeout: Option<Duration>) -> Self {
        Self { min, max, wanted: min, idle_timeout, look_at: None }
    }

    /// How many there shall be now.
    pub(crate) fn wanted(&self) -> usize {
        self.wanted
    }

    /// Whether there can be more than there are to be now.
    pub(crate) fn can_grow(&self) -> bool {
        self.wanted < self.max
    }

    /// So many tasks have no outcome: each could have a worker.
    pub(crate) fn grow(&mut self, tasks: usize, now: Instant) {
        self.wanted = tasks.clamp(self.wanted, self.max);
        if self.wanted > self.min && self.look_at.is_none() {
            self.look_at = self.idle_timeout.and_then(|timeout| now.checked_add(timeout));
        }
    }

    /// From now on there shall be just so many.
    pub(crate) fn set(&mut self, workers: usize) {
        *self = Self::new(workers, workers, self.idle_timeout);
    }

    /// When to look for workers that have nothing to do.
    pub(crate) fn look_at(&self) -> Option<Instant> {
        self.look_at
    }

    /// Whether to look now; and when next.
    pub(crate) fn is_due(&mut self, now: Instant) -> bool {
        if self.look_at.is_none_or(|at| now < at) {
            return false;
        }
        self.look_at = self.idle_timeout.and_then(|timeout| now.checked_add(timeout));
        true
    }

    /// A worker has nothing to do: whether it shall leave.
    pub(crate) fn shrink(&mut self) -> bool {
        let is_one_too_many = self.wanted > self.min;
        if is_one_too_many {
            self.wanted -= 1;
        }
        if self.wanted == self.min {
            self.look_at = None;
        }
        is_one_too_many
    }
}

#[cfg(test)]
mod tests {
    use super::Size;
    use std::time::{Duration, Instant};

    #[test]
    fn there_are_as_many_as_tasks_within_the_bounds() {
        let (mut size, now) = (Size::new(1, 4, None), Instant::now());
        for (tasks, workers) in [(0, 1), (2, 2), (1, 2), (9, 4), (0, 4)] {
            size.grow(tasks, now);
            assert_eq!(size.wanted(), workers, "{tasks} tasks");
        }
    }

    #[test]
    fn a_pool_at_its_smallest_has_nothing_to_look_for() {
        let (mut size, now) = (Size::new(1, 3, Some(Duration::from_secs(1))), Instant::now());
        assert_eq!(size.look_at(), None);
        size.grow(3, now);
        assert!(size.look_at().is_some() && !size.is_due(now));
        assert!(size.is_due(now + Duration::from_secs(1)));
        assert!(size.shrink() && size.look_at().is_some());
        assert!(size.shrink() && size.look_at().is_none());
        assert!(!size.shrink());
    }
}
