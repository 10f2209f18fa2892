//! What makes a pool end by itself, and what becomes of its tasks then.

use std::ffi::c_int;
use std::time::{Duration, Instant};

use epilogue_embed::ending::{Cause, Ending, StopReason};
use epilogue_embed::stop_requested;
use epilogue_process::child::Work;
use nix::libc::SIGINT;

use crate::builder::Builder;
use crate::terms::earlier;

/// Why a pool ends that nobody closes.
///
/// A pool that is used in a worker or a [`Process`](epilogue_process::Process) ends also because
/// the parent of that process asks it to stop, or is gone. There is no policy for that: the
/// function that the pool worked for was abandoned, so the pool stops, and its running tasks get no
/// time to return.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndCause {
    /// Its handle is dropped: at the end of a scope, by `?`, by `return`.
    Drop,
    /// Its handle is dropped by a panic that unwinds.
    Panic,
    /// The program returns from `main` or calls `std::process::exit`, and the pool is in a static,
    /// was leaked, or belongs to a thread that goes on.
    Exit,
    /// The program calls `cleanup`, `exit`, `exit_now` or `exec` of `epilogue::embed`.
    Cleanup,
    /// `SIGINT`, which is what Ctrl-C sends, where `epilogue::embed` handles it.
    Interrupt,
    /// Any other signal that `epilogue::embed` handles.
    Signal,
}

/// What becomes of a pool's tasks as it ends.
///
/// Whatever it is, each task has exactly one outcome, and each worker ends by the same ladder: its
/// finalizers run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndPolicy {
    /// All that was submitted is done, as by [`Pool::close`](crate::Pool::close).
    Finish,
    /// What has not begun is cancelled. What runs is not asked to return, and has the time that it
    /// needs.
    FinishBegun,
    /// What has not begun is cancelled. What runs is asked to return, and has two fifths of the
    /// grace period for it, as by [`Pool::terminate`](crate::Pool::terminate).
    Stop,
}

impl Builder {
    /// Sets what becomes of the tasks if the pool ends for this cause. [`Pool::close`] and
    /// [`Pool::terminate`] say so themselves.
    ///
    /// | cause | by default |
    /// |---|---|
    /// | [`EndCause::Drop`], [`EndCause::Exit`] | [`EndPolicy::Finish`] |
    /// | [`EndCause::Panic`], [`EndCause::Cleanup`], [`EndCause::Interrupt`], [`EndCause::Signal`] | [`EndPolicy::Stop`] |
    ///
    /// Where the program's own end has a deadline, no policy goes beyond it. After a signal that is
    /// three seconds, unless `epilogue::embed::set_deadline` says otherwise: less than the grace
    /// period of five. A pool that stops has four fifths of what is left of it, if that is less
    /// than its grace period. What is to be finished has two fifths of what is left; then the pool
    /// stops, in as much again. The rest is for other finalizers.
    ///
    /// [`Pool::close`]: crate::Pool::close
    /// [`Pool::terminate`]: crate::Pool::terminate
    ///
    /// # Examples
    ///
    /// ```
    /// use epilogue_pool::{EndCause, EndPolicy, Pool, TaskError};
    ///
    /// let builder = Pool::builder().workers(1).on_end(EndCause::Drop, EndPolicy::FinishBegun);
    /// let pool = builder.start()?;
    /// let tasks = pool.submit_all(0..1000u64, |x| x)?;
    /// drop(pool);
    /// for (x, task) in tasks.into_iter().enumerate() {
    ///     match task.join() {
    ///         Ok(value) => assert_eq!(value, x as u64),
    ///         Err(error) => assert!(matches!(error, TaskError::Cancelled { begun: false })),
    ///     }
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on_end(mut self, cause: EndCause, policy: EndPolicy) -> Self {
        self.on_end.set(cause, policy);
        self
    }
}

impl EndCause {
    fn of_signal(signal: c_int) -> Self {
        if signal == SIGINT { Self::Interrupt } else { Self::Signal }
    }

    fn default_policy(self) -> EndPolicy {
        match self {
            Self::Drop | Self::Exit => EndPolicy::Finish,
            Self::Panic | Self::Cleanup | Self::Interrupt | Self::Signal => EndPolicy::Stop,
        }
    }
}

/// How a pool is to end.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Order {
    /// Finish what was submitted, and stop when it is too late.
    Finish { deadline: Option<Deadline> },
    /// Cancel what has not begun, finish what has, and stop when it is too late.
    FinishBegun { deadline: Option<Deadline> },
    /// Stop within the grace period, or within `limit` if that is shorter.
    Stop { limit: Option<Duration>, work: Work },
}

impl Order {
    pub(crate) const CLOSE: Self = Self::Finish { deadline: None };
    pub(crate) const TERMINATE: Self = Self::Stop { limit: None, work: Work::Finish };
}

/// When a pool that finishes its tasks stops instead, and within what time if not the grace period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deadline {
    pub(crate) at: Instant,
    pub(crate) limit: Option<Duration>,
}

impl Deadline {
    /// None if that is too far away for the clock.
    pub(crate) fn after(time: Duration) -> Option<Self> {
        Some(Self { at: Instant::now().checked_add(time)?, limit: None })
    }

    /// What holds if both do: nobody who asks later grants more time.
    pub(crate) fn or_sooner(self, other: Self) -> Self {
        let limit = earlier(self.limit, other.limit);
        Self { at: self.at.min(other.at), limit }
    }
}

/// What was set for each cause; the last that was set for it holds.
#[derive(Debug, Clone, Default)]
pub(crate) struct EndPolicies(Vec<(EndCause, EndPolicy)>);

impl EndPolicies {
    fn set(&mut self, cause: EndCause, policy: EndPolicy) {
        self.0.push((cause, policy));
    }

    fn of(&self, cause: EndCause) -> EndPolicy {
        let set = self.0.iter().rev().find(|(other, _)| *other == cause);
        set.map_or_else(|| cause.default_policy(), |(_, policy)| *policy)
    }

    /// How to end for this cause, within this time if there is a limit to it.
    pub(crate) fn order(&self, cause: EndCause, limit: Option<Duration>) -> Order {
        // As much to stop in as there was to finish in.
        let half = limit.map(|limit| limit / 2);
        let deadline =
            half.and_then(Deadline::after).map(|deadline| Deadline { limit: half, ..deadline });
        match self.of(cause) {
            EndPolicy::Finish => Order::Finish { deadline },
            EndPolicy::FinishBegun => Order::FinishBegun { deadline },
            EndPolicy::Stop => Order::Stop { limit, work: Work::Finish },
        }
    }

    /// How to end with the program.
    pub(crate) fn order_with_program(&self, ending: &Ending) -> Order {
        // A part of it is needed for the finalizers that come after this one.
        let limit = ending.remaining().map(|left| left * 4 / 5);
        let cause = match (ending.cause(), limit) {
            (Cause::Exit, None) => EndCause::Exit,
            (Cause::Signal(signal), _) => EndCause::of_signal(signal),
            // A signal has begun to end the program that was exiting.
            (Cause::Exit, Some(_)) if stop_requested() => EndCause::Signal,
            // Our own call was abandoned, so nobody is left who would take these values; at each
            // level of nested pools, waiting for them would take its time anew.
            (Cause::Parent, _) => return Order::Stop { limit, work: Work::Abandon },
            _ => EndCause::Cleanup,
        };
        self.order(cause, limit)
    }

    /// How to end, if the program was already ending and is asked to stop.
    pub(crate) fn order_on_request(&self, reason: StopReason, limit: Option<Duration>) -> Order {
        match reason {
            StopReason::Signal(signal) => self.order(EndCause::of_signal(signal), limit),
            _ => Order::Stop { limit, work: Work::Finish },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_deadline_never_grants_more_time() {
        let now = Instant::now();
        let soon = Deadline { at: now, limit: None };
        let late = Deadline { at: now + Duration::from_secs(9), limit: Some(Duration::ZERO) };
        let both = Deadline { at: now, limit: Some(Duration::ZERO) };
        assert_eq!((soon.or_sooner(late), late.or_sooner(soon)), (both, both));
    }

    #[test]
    fn the_policy_that_was_set_last_for_a_cause_holds_and_only_for_it() {
        let mut policies = EndPolicies::default();
        policies.set(EndCause::Panic, EndPolicy::Finish);
        policies.set(EndCause::Panic, EndPolicy::FinishBegun);
        assert_eq!(policies.of(EndCause::Panic), EndPolicy::FinishBegun);
        assert_eq!(policies.of(EndCause::Drop), EndPolicy::Finish);
        assert_eq!(policies.of(EndCause::Signal), EndPolicy::Stop);
    }
}
