//! How one call goes, measured by its terms: a pure machine that is told the time.
//!
//! Nobody tells when a task begins. At the earliest moment at which a limit could have been reached
//! somebody looks: at whether the worker has claimed the call, and at the time that it wrote beside.
//! A call that has not begun by then cannot reach its limit for as long again. So a limit costs one
//! look, and not a message; and a call that is answered before costs none.

use std::time::{Duration, Instant};

use crate::error::{Poisoned, TaskError, WorkerLost};
use crate::terms::{Terms, earlier};

/// Why a task that runs gets no value, whatever comes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    TimedOut,
    Cancelled,
}

impl From<Verdict> for TaskError {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::TimedOut => Self::TimedOut,
            Verdict::Cancelled => Self::Cancelled { begun: true },
        }
    }
}

/// What is to be done about a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing before then, if ever.
    Wait(Option<Instant>),
    /// It waited too long, and shall not begin any more.
    Expire,
    /// Ask it to return; then look again.
    Ask,
    /// End its worker.
    End(Verdict),
}

/// How far a call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It had not begun by then.
    Waiting {
        not_before: Instant,
    },
    Running {
        since: Instant,
    },
    /// It runs, and was asked to return.
    Asked {
        since: Instant,
    },
    /// Its worker is being ended.
    Over(Verdict),
}

/// How one call goes.
#[derive(Debug, Clone)]
pub(crate) struct Course {
    terms: Terms,
    queued: Instant,
    stage: Stage,
    /// When it was cancelled, if it was and went on.
    cancelled: Option<Instant>,
    /// How the workers ended that had begun it; the last ones.
    ends: Vec<WorkerLost>,
    attempts: u32,
}

impl Course {
    /// How many ends are told of a task that killed its workers.
    const MOST_ENDS: usize = 8;

    pub(crate) fn new(terms: Terms, now: Instant) -> Self {
        let stage = Stage::Waiting { not_before: now };
        Self { terms, queued: now, stage, cancelled: None, ends: Vec::new(), attempts: 0 }
    }

    /// When to look for the first time.
    pub(crate) fn first_look(&self) -> Option<Instant> {
        earlier(self.expires_at(), after(self.queued, self.terms.first_limit()))
    }

    fn expires_at(&self) -> Option<Instant> {
        after(self.queued, self.terms.queue_timeout)
    }

    /// What is to be done about a call that nobody has begun.
    pub(crate) fn look_at_waiting(&mut self, now: Instant) -> Step {
        let expires_at = self.expires_at();
        if expires_at.is_some_and(|at| at <= now) {
            return Step::Expire;
        }
        self.stage = Stage::Waiting { not_before: now };
        Step::Wait(earlier(expires_at, after(now, self.terms.first_limit())))
    }

    /// What is to be done about a call that runs, for so long as its worker says. A worker that lies
    /// gains nothing: what it says first is what counts, and that cannot be before the last look.
    pub(crate) fn look_at_running(&mut self, now: Instant, running_for: Duration) -> Step {
        let since = match self.stage {
            Stage::Over(_) => return Step::Wait(None),
            Stage::Running { since } | Stage::Asked { since } => since,
            Stage::Waiting { not_before } => {
                let since = now.checked_sub(running_for).unwrap_or(not_before);
                let since = since.max(not_before).min(now);
                self.stage = Stage::Running { since };
                since
            }
        };
        let ends_at = after(since, self.terms.timeout);
        let cancelled_at = self.cancelled.and_then(|at| after(at, self.terms.cancel_within));
        let has_passed = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if has_passed(ends_at) {
            return Step::End(Verdict::TimedOut);
        }
        if has_passed(cancelled_at) {
            return Step::End(Verdict::Cancelled);
        }
        let asked_at = match self.stage {
            Stage::Asked { .. } => None,
            _ => after(since, self.terms.soft_timeout),
        };
        if has_passed(asked_at) {
            self.stage = Stage::Asked { since };
            return Step::Ask;
        }
        Step::Wait(earlier(earlier(ends_at, cancelled_at), asked_at))
    }

    /// All stood still for a while, its worker and who looks after it: all of its limits count anew.
    pub(crate) fn resume(&mut self, now: Instant) {
        self.queued = now;
        self.cancelled = self.cancelled.map(|_| now);
        self.stage = match self.stage {
            Stage::Waiting { .. } => Stage::Waiting { not_before: now },
            Stage::Running { .. } => Stage::Running { since: now },
            Stage::Asked { .. } => Stage::Asked { since: now },
            Stage::Over(verdict) => Stage::Over(verdict),
        };
    }

    /// Its caller does not want it any more, and it runs.
    pub(crate) fn cancel(&mut self, now: Instant) {
        self.cancelled.get_or_insert(now);
    }

    /// Its worker is being ended for this reason.
    pub(crate) fn condemn(&mut self, verdict: Verdict) {
        self.stage = Stage::Over(verdict);
    }

    pub(crate) fn verdict(&self) -> Option<Verdict> {
        match self.stage {
            Stage::Over(verdict) => Some(verdict),
            Stage::Waiting { .. } | Stage::Running { .. } | Stage::Asked { .. } => None,
        }
    }

    /// Whether it may be begun again after this.
    pub(crate) fn retries(&self) -> bool {
        self.cancelled.is_none() && self.attempts < self.terms.retries.unwrap_or(0)
    }

    /// Whether a worker died during it.
    pub(crate) fn began_before(&self) -> bool {
        self.attempts > 0
    }

    /// Its worker died during it, and it is to be begun again.
    pub(crate) fn begin_anew(&mut self, loss: WorkerLost, now: Instant) {
        self.note(loss);
        self.queued = now;
        self.stage = Stage::Waiting { not_before: now };
    }

    fn note(&mut self, loss: WorkerLost) {
        self.attempts = self.attempts.saturating_add(1);
        if self.ends.len() == Self::MOST_ENDS {
            self.ends.remove(0);
        }
        self.ends.push(loss);
    }

    /// Its worker died during it, once too often.
    pub(crate) fn give_up(&mut self, loss: WorkerLost) -> TaskError {
        if self.terms.retries.is_none_or(|retries| retries == 0) {
            return TaskError::WorkerLost(loss);
        }
        self.note(loss);
        let (attempts, ends) = (self.attempts, std::mem::take(&mut self.ends));
        TaskError::Poisoned(Poisoned { attempts, ends })
    }

    /// The course of tasks that are split off from these, of which none has begun.
    pub(crate) fn of_the_rest(&self) -> Self {
        let not_before = match self.stage {
            Stage::Waiting { not_before } => not_before,
            Stage::Running { since } | Stage::Asked { since } => since,
            Stage::Over(_) => self.queued,
        };
        Self { stage: Stage::Waiting { not_before }, cancelled: None, ..self.clone() }
    }
}

/// So long after that. None if there is no limit, or if it is beyond all time.
fn after(since: Instant, limit: Option<Duration>) -> Option<Instant> {
    since.checked_add(limit?)
}

#[cfg(test)]
mod tests {
    use super::{Course, Step, Verdict};
    use crate::error::WorkerLost;
    use crate::terms::Terms;
    use epilogue_process::ExitStatus;
    use std::time::{Duration, Instant};

    const SECOND: Duration = Duration::from_secs(1);

    fn limited() -> (Course, Instant) {
        let (timeout, soft_timeout) = (Some(SECOND * 4), Some(SECOND * 2));
        let now = Instant::now();
        (Course::new(Terms { timeout, soft_timeout, ..Terms::default() }, now), now)
    }

    #[test]
    fn the_clock_starts_when_the_task_does() {
        let (mut course, now) = limited();
        assert_eq!(course.first_look(), Some(now + SECOND * 2));
        let later = now + SECOND * 100;
        assert_eq!(course.look_at_waiting(later), Step::Wait(Some(later + SECOND * 2)));
        // It has run for a second, says its worker.
        let then = later + SECOND * 2;
        assert_eq!(course.look_at_running(then, SECOND), Step::Wait(Some(then + SECOND)));
        assert_eq!(course.look_at_running(then + SECOND, SECOND * 2), Step::Ask);
        let ends = Step::Wait(Some(then + SECOND * 3));
        assert_eq!(course.look_at_running(then + SECOND, SECOND * 2), ends);
        let end = course.look_at_running(then + SECOND * 3, SECOND * 4);
        assert_eq!(end, Step::End(Verdict::TimedOut));
    }

    #[test]
    fn what_stood_still_has_all_of_its_time_again() {
        let (mut course, now) = limited();
        let begun = now + SECOND * 2;
        assert_eq!(course.look_at_running(begun, SECOND), Step::Wait(Some(begun + SECOND)));
        let late = begun + SECOND * 100;
        course.resume(late);
        let asks = Step::Wait(Some(late + SECOND * 2));
        assert_eq!(course.look_at_running(late, SECOND * 101), asks);
        let ends = course.look_at_running(late + SECOND * 4, SECOND * 105);
        assert_eq!(ends, Step::End(Verdict::TimedOut));
    }

    #[test]
    fn a_worker_that_lies_about_the_time_gains_one_limit_at_most() {
        let (mut course, now) = limited();
        let look = now + SECOND * 2;
        assert_eq!(
            course.look_at_running(look, Duration::ZERO),
            Step::Wait(Some(look + SECOND * 2))
        );
        let end = course.look_at_running(look + SECOND * 4, Duration::ZERO);
        assert_eq!(end, Step::End(Verdict::TimedOut));
        // Nor can it take time from a task by saying that it began before it was submitted.
        let (mut course, now) = limited();
        let step = course.look_at_running(now + SECOND, Duration::MAX);
        assert_eq!(step, Step::Wait(Some(now + SECOND * 2)));
    }

    #[test]
    fn waiting_has_a_limit_of_its_own() {
        let now = Instant::now();
        let terms = Terms { queue_timeout: Some(SECOND), ..Terms::default() };
        let mut course = Course::new(terms, now);
        assert_eq!(course.look_at_waiting(now), Step::Wait(Some(now + SECOND)));
        assert_eq!(course.look_at_running(now + SECOND * 9, SECOND * 9), Step::Wait(None));
        let mut course = Course::new(terms, now);
        assert_eq!(course.look_at_waiting(now + SECOND), Step::Expire);
    }

    #[test]
    fn what_is_begun_again_has_its_time_to_wait_anew() {
        let now = Instant::now();
        let terms = Terms { queue_timeout: Some(SECOND), ..Terms::default() };
        let mut course = Course::new(terms, now);
        let (worker, status) = ("w".to_owned(), ExitStatus::Exited(0));
        let died = now + SECOND * 9;
        course.begin_anew(WorkerLost { worker, pid: 1, status, begun: true, detail: None }, died);
        assert_eq!(course.look_at_waiting(died), Step::Wait(Some(died + SECOND)));
        assert_eq!(course.look_at_waiting(died + SECOND), Step::Expire);
    }

    #[test]
    fn a_task_that_was_cancelled_has_its_own_time_to_return() {
        let (mut course, now) = limited();
        course.terms = Terms { cancel_within: Some(SECOND), ..Terms::default() };
        assert_eq!(course.look_at_running(now, Duration::ZERO), Step::Wait(None));
        course.cancel(now);
        assert_eq!(course.look_at_running(now, Duration::ZERO), Step::Wait(Some(now + SECOND)));
        let end = course.look_at_running(now + SECOND, SECOND);
        assert_eq!(end, Step::End(Verdict::Cancelled));
    }
}
