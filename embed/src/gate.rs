//! Who may end this process: one thread at a time, and only one for ever.
//!
//! # Invariants
//! 1. At most one thread is past the gate. The others wait, and find the work done.
//! 2. [`Phase::Ended`] is final: the finalizers have run, and the process is on its way out.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use libc::pid_t;

use crate::ending::Cause;
use crate::state::lock;
use crate::sys::action::this_thread;

/// Where this process is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Phase {
    /// Nobody is ending it.
    #[default]
    Open,
    /// A thread runs the finalizers for this cause.
    Busy(pid_t, Cause),
    /// The finalizers have run; this thread takes the process to its exit.
    Ended(pid_t, Cause),
}

impl Phase {
    fn take_turn(&mut self, cause: Cause) -> Option<Result<(), Self>> {
        match *self {
            Self::Open => {
                *self = Self::Busy(this_thread(), cause);
                Some(Ok(()))
            }
            Self::Busy(owner, _) if owner == this_thread() => Some(Err(*self)),
            // A normal exit never gives its turn back; who waits here would wait for ever.
            Self::Busy(..) => None,
            Self::Ended(..) => Some(Err(*self)),
        }
    }
}

/// The gate and those who wait at it.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    phase: Mutex<Phase>,
    changed: Condvar,
    leavers: Mutex<Vec<pid_t>>,
}

impl Gate {
    /// Waits for a turn and takes it. An error is the phase that will never give one.
    pub(crate) fn enter(&self, cause: Cause) -> Result<(), Phase> {
        let mut phase = lock(&self.phase);
        if let Some(turn) = phase.take_turn(cause) {
            return turn;
        }
        self.join_leavers();
        let turn = loop {
            phase = self.wait(phase);
            if let Some(turn) = phase.take_turn(cause) {
                break turn;
            }
        };
        self.quit_leavers();
        turn
    }

    /// As [`Gate::enter`]; none where it would wait.
    pub(crate) fn try_enter(&self, cause: Cause) -> Option<Result<(), Phase>> {
        lock(&self.phase).take_turn(cause)
    }

    /// Whether nobody is ending this process.
    pub(crate) fn is_open(&self) -> bool {
        *lock(&self.phase) == Phase::Open
    }

    /// This thread waits for who has the turn, or for the end of the process.
    pub(crate) fn join_leavers(&self) {
        lock(&self.leavers).push(this_thread());
    }

    /// This thread waits no more, or once less than it did.
    pub(crate) fn quit_leavers(&self) {
        let mut leavers = lock(&self.leavers);
        if let Some(place) = leavers.iter().rposition(|leaver| *leaver == this_thread()) {
            leavers.swap_remove(place);
        }
    }

    /// Whether `thread` has the turn, or waits for who has.
    pub(crate) fn is_left_by(&self, thread: pid_t) -> bool {
        let owner = match *lock(&self.phase) {
            Phase::Open => None,
            Phase::Busy(owner, _) | Phase::Ended(owner, _) => Some(owner),
        };
        owner == Some(thread) || lock(&self.leavers).contains(&thread)
    }

    /// Whether this thread has the turn.
    pub(crate) fn is_mine(&self) -> bool {
        let phase = lock(&self.phase);
        matches!(*phase, Phase::Busy(owner, _) if owner == this_thread())
    }

    /// Whether this thread takes the process to its exit.
    pub(crate) fn was_ended_here(&self) -> bool {
        let phase = lock(&self.phase);
        matches!(*phase, Phase::Ended(owner, _) if owner == this_thread())
    }

    /// Whether a thread takes the process to its exit.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(*lock(&self.phase), Phase::Ended(..))
    }

    /// Gives the turn back: the program goes on.
    pub(crate) fn open(&self) {
        self.set(Phase::Open);
    }

    /// Keeps the turn for ever: the process leaves.
    pub(crate) fn end(&self, cause: Cause) {
        self.set(Phase::Ended(this_thread(), cause));
    }

    fn set(&self, phase: Phase) {
        *lock(&self.phase) = phase;
        self.changed.notify_all();
    }

    fn wait<'a>(&self, phase: MutexGuard<'a, Phase>) -> MutexGuard<'a, Phase> {
        self.changed.wait(phase).unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps the calling thread here until the process is gone.
pub(crate) fn park_for_ever() -> ! {
    loop {
        thread::park();
    }
}
