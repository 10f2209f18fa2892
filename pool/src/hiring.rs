//! How fast workers that die are replaced, and when a pool gives up.

use std::time::{Duration, Instant};

/// How fast workers that die for nothing are replaced.
///
/// A task that kills its worker is one death, and there are only as many as tasks. Workers that
/// die without a task could do so for ever: each is replaced a little later than the one before,
/// and after too many in a row the pool gives up.
#[derive(Debug, Default)]
pub(crate) struct Hiring {
    failures: u32,
    /// When the first of them was.
    since: Option<Instant>,
    retry_at: Option<Instant>,
}

impl Hiring {
    const FIRST_DELAY: Duration = Duration::from_millis(1);
    const LAST_DELAY: Duration = Duration::from_secs(2);
    /// How long nobody is started after a start that failed.
    const RARE: Duration = Duration::from_millis(50);
    /// How many deaths in a row a pool survives, besides two for each of its workers.
    const MAX_FAILURES: usize = 8;

    pub(crate) fn is_allowed(&mut self, now: Instant) -> bool {
        if self.retry_at.is_some_and(|at| now < at) {
            return false;
        }
        self.retry_at = None;
        true
    }

    pub(crate) fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
        self.since = None;
    }

    /// Notes that a worker could not even be started: what it lacks is not there a moment later.
    pub(crate) fn start_failed(&mut self, now: Instant) {
        self.retry_at = self.retry_at.max(Some(now + Self::RARE));
    }

    /// Notes a failure; true if there were too many.
    pub(crate) fn failed(&mut self, now: Instant, workers: usize) -> bool {
        // The first deaths may be anybody's: an idle worker that was killed is replaced at once.
        let delay = match self.failures.checked_sub(workers as u32) {
            Some(more) => {
                (Self::FIRST_DELAY * 2u32.saturating_pow(more.min(16))).min(Self::LAST_DELAY)
            }
            None => Duration::ZERO,
        };
        self.retry_at = Some(now + delay);
        self.failures += 1;
        self.since.get_or_insert(now);
        self.is_hopeless(workers)
    }

    /// Whether all have failed for so long.
    pub(crate) fn has_failed_for(&self, time: Duration, now: Instant) -> bool {
        self.since.is_some_and(|since| now.duration_since(since) >= time)
    }

    /// Whether there were too many in a row.
    pub(crate) fn is_hopeless(&self, workers: usize) -> bool {
        self.failures as usize > Self::MAX_FAILURES + 2 * workers
    }
}

#[cfg(test)]
mod tests {
    use super::Hiring;
    use std::time::{Duration, Instant};

    #[test]
    fn a_pool_gives_up_after_too_many_deaths_in_a_row_and_not_before() {
        let (mut hiring, now) = (Hiring::default(), Instant::now());
        let in_a_row = |hiring: &mut Hiring| (1..).find(|_| hiring.failed(now, 2));
        assert_eq!(in_a_row(&mut hiring), Some(13));
        hiring.succeeded();
        assert_eq!(in_a_row(&mut hiring), Some(13));
    }

    #[test]
    fn how_long_all_have_failed_counts_from_the_first_since_one_succeeded() {
        let (mut hiring, now, time) = (Hiring::default(), Instant::now(), Duration::from_secs(1));
        for _ in 0..2 {
            assert!(!hiring.has_failed_for(time, now + time));
            hiring.failed(now, 1);
            hiring.failed(now + time / 2, 1);
            assert!(!hiring.has_failed_for(time, now + time / 2));
            assert!(hiring.has_failed_for(time, now + time));
            hiring.succeeded();
        }
    }
}
