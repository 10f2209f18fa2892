//! The ladder: how a child is brought to its end, as a state machine that only moves forward.
//!
//! Every ending, of a handle that is dropped, a pool that closes, a panic, an exit, a signal,
//! climbs the same ladder; they differ in the rung at which they enter it and in the time they
//! grant. The machine is pure: it is told what happened and what time it is, and answers with
//! the step to take. Its table of states and events stands in the project's DESIGN.md.

use std::fmt;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::sys::pidfd::AGAIN;

/// How far up the ladder a child had to be taken. Later is rougher.
///
/// # Examples
///
/// ```
/// use epilogue_process::Rung;
///
/// assert!(Rung::Kill > Rung::Finish);
/// assert_eq!(Rung::Signal.to_string(), "sent SIGTERM");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Rung {
    /// Nothing was asked: it ended by itself.
    None,
    /// It was told that no more work comes, as a [`Process`](crate::Process) is from its start, and
    /// ended without being asked to stop: well or by a crash, as its status says.
    Finish,
    /// It was told to stop, with the time that is left.
    Stop,
    /// It was sent `SIGTERM`, then `SIGCONT` in case it was stopped.
    Signal,
    /// It was killed: its finalizers did not run to their end.
    Kill,
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "by itself",
            Self::Finish => "finished",
            Self::Stop => "asked to stop",
            Self::Signal => "sent SIGTERM",
            Self::Kill => "killed",
        })
    }
}

/// What has to be done to the child now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Tell it that no more work comes.
    Finish,
    /// Tell it to stop; it has this long until it is killed.
    Stop {
        /// The time until the last rung.
        remaining: Duration,
    },
    /// Send `SIGTERM`, then `SIGCONT`.
    Signal,
    /// Send `SIGKILL`.
    Kill,
}

/// Where one child is on its way down.
#[derive(Debug, Clone)]
pub struct Ladder {
    rung: Rung,
    grace_period: Duration,
    /// When the next rung is due. None while the child may take as long as it needs.
    due: Option<Instant>,
    /// When the last rung is due, once it is decided. It only ever moves closer.
    kill_at: Option<Instant>,
}

impl Ladder {
    /// The ladder of a child that nobody has asked for anything yet.
    pub fn new(grace_period: Duration) -> Self {
        Self { rung: Rung::None, grace_period, due: None, kill_at: None }
    }

    /// The highest rung that was needed so far.
    pub fn rung(&self) -> Rung {
        self.rung
    }

    /// When [`Ladder::tick`] has to be called next, if ever.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// No more work comes. The child may take as long as the work that it has.
    pub fn finish(&mut self) -> Option<Step> {
        match self.rung {
            Rung::None => {
                self.rung = Rung::Finish;
                Some(Step::Finish)
            }
            Rung::Finish | Rung::Stop | Rung::Signal | Rung::Kill => None,
        }
    }

    /// The child has no work left: from now on it only has to leave, within the grace period.
    pub fn drained(&mut self, now: Instant) {
        match self.rung {
            Rung::None | Rung::Finish if self.due.is_none() => {
                self.due = Some(now + self.grace_period);
            }
            Rung::None | Rung::Finish | Rung::Stop | Rung::Signal | Rung::Kill => {}
        }
    }

    /// The child has to stop within the grace period, or within `limit` if that is shorter.
    pub fn stop(&mut self, now: Instant, limit: Option<Duration>) -> Option<Step> {
        let remaining = limit.map_or(self.grace_period, |limit| limit.min(self.grace_period));
        let kill_at = self.kill_at.map_or(now + remaining, |earlier| earlier.min(now + remaining));
        match self.rung {
            Rung::None | Rung::Finish => {
                self.kill_at = Some(kill_at);
                self.rung = Rung::Stop;
                // Half for the request, half for the signal: finalizers may need either.
                self.due = Some(now + remaining / 2);
                Some(Step::Stop { remaining })
            }
            Rung::Stop | Rung::Signal => {
                self.kill_at = Some(kill_at);
                self.due = self.due.map(|due| due.min(kill_at));
                None
            }
            Rung::Kill => None,
        }
    }

    /// The child has to end now.
    pub fn kill(&mut self) -> Option<Step> {
        match self.rung {
            Rung::None | Rung::Finish | Rung::Stop | Rung::Signal => {
                self.rung = Rung::Kill;
                self.due = None;
                Some(Step::Kill)
            }
            Rung::Kill => None,
        }
    }

    /// The kernel has refused to kill it, which will be due again in a moment: the child may never
    /// end otherwise.
    pub fn refused(&mut self, now: Instant) {
        match self.rung {
            Rung::Kill => self.due = Some(now + AGAIN),
            Rung::None | Rung::Finish | Rung::Stop | Rung::Signal => {}
        }
    }

    /// Takes the next rung if it is due.
    pub fn tick(&mut self, now: Instant) -> Option<Step> {
        if self.due.is_none_or(|due| now < due) {
            return None;
        }
        match self.rung {
            Rung::None | Rung::Finish | Rung::Stop => {
                let kill_at = self.kill_at.unwrap_or(now + self.grace_period / 2);
                self.rung = Rung::Signal;
                self.kill_at = Some(kill_at);
                self.due = Some(kill_at);
                Some(Step::Signal)
            }
            Rung::Signal => self.kill(),
            Rung::Kill => {
                self.due = None;
                Some(Step::Kill)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Ladder, Rung, Step};
    use std::time::{Duration, Instant};

    const GRACE: Duration = Duration::from_secs(4);

    #[test]
    fn a_child_with_work_is_given_all_the_time_it_needs() {
        let (mut ladder, now) = (Ladder::new(GRACE), Instant::now());
        assert_eq!(ladder.finish(), Some(Step::Finish));
        assert_eq!(ladder.tick(now + GRACE * 100), None);
        ladder.drained(now);
        assert_eq!(ladder.tick(now), None);
        assert_eq!(ladder.tick(now + GRACE), Some(Step::Signal));
    }

    #[test]
    fn every_rung_is_taken_once_and_in_order() {
        let (mut ladder, now) = (Ladder::new(GRACE), Instant::now());
        assert_eq!(ladder.stop(now, None), Some(Step::Stop { remaining: GRACE }));
        assert_eq!(ladder.finish(), None);
        assert_eq!(ladder.tick(now + GRACE / 2), Some(Step::Signal));
        assert_eq!(ladder.tick(now + GRACE / 2), None);
        assert_eq!(ladder.tick(now + GRACE), Some(Step::Kill));
        assert_eq!(ladder.tick(now + GRACE * 2), None);
        assert_eq!(ladder.rung(), Rung::Kill);
    }

    #[test]
    fn a_kill_that_was_refused_is_due_again() {
        let (mut ladder, now) = (Ladder::new(GRACE), Instant::now());
        assert_eq!(ladder.kill(), Some(Step::Kill));
        assert_eq!(ladder.due(), None);
        ladder.refused(now);
        assert_eq!(ladder.tick(now), None);
        let due = ladder.due().unwrap();
        assert_eq!(ladder.tick(due), Some(Step::Kill));
        assert_eq!(ladder.due(), None);
    }

    #[test]
    fn a_second_stop_never_grants_more_time() {
        let (mut ladder, now) = (Ladder::new(GRACE), Instant::now());
        ladder.stop(now, Some(GRACE / 2));
        assert_eq!(ladder.stop(now + GRACE / 4, None), None);
        assert_eq!(ladder.tick(now + GRACE / 4), Some(Step::Signal));
        assert_eq!(ladder.tick(now + GRACE / 2), Some(Step::Kill));
    }
}
