//! Who waits for an outcome without a thread: what polls a task, or is called back, is woken.
//!
//! # Invariants
//!
//! 1. As long as somebody waits in this way, someone reads: see [`Floor::needs_supervisor`].
//! 2. To wake somebody is to call code that is not ours. It is called when the lock of the floor has
//!    been given back, by a thread that neither reads nor follows a reader: it may wait for a task in
//!    turn. Its panic ends there.
//!
//! [`Floor::needs_supervisor`]: crate::floor::Floor::needs_supervisor

use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, PoisonError};
use std::task::Waker;

use crate::sync::{AtomicBool, AtomicUsize, Mutex, MutexGuard, Ordering};

/// Those of one pool.
#[derive(Debug, Default)]
pub(crate) struct Wakes {
    /// How many wait.
    waiting: AtomicUsize,
    /// Those whose outcome is there.
    due: Mutex<Vec<Waker>>,
    is_due: AtomicBool,
}

impl Wakes {
    /// Whether anybody waits.
    pub(crate) fn are_awaited(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Whether somebody whose outcome is there was not woken yet.
    pub(crate) fn are_due(&self) -> bool {
        self.is_due.load(Ordering::Relaxed)
    }

    /// Wakes those whose outcome is there.
    pub(crate) fn wake(&self) {
        // Most of the time nobody is, and everybody who has had the lock comes by here.
        if !self.are_due() || !self.is_due.swap(false, Ordering::AcqRel) {
            return;
        }
        // Not in the head of the loop: there the lock would be held while foreign code runs, which may
        // come back here.
        let due = std::mem::take(&mut *self.lock());
        for waker in due {
            // A pool's own thread comes by here, too.
            if let Err(payload) = panic::catch_unwind(AssertUnwindSafe(|| waker.wake()))
                && let Err(second) = panic::catch_unwind(AssertUnwindSafe(|| drop(payload)))
            {
                // The payload is foreign, too, and so may be what its `Drop` panics with.
                std::mem::forget(second);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Waker>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Wakes {
    fn drop(&mut self) {
        self.wake();
    }
}

/// As long as there is one, someone reads what workers answer.
#[derive(Debug)]
pub(crate) struct Presence(Arc<Wakes>);

impl Presence {
    pub(crate) fn new(wakes: &Arc<Wakes>) -> Self {
        wakes.waiting.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(wakes))
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Somebody who waits for one outcome.
#[derive(Debug)]
pub(crate) struct Subscriber {
    waker: Waker,
    presence: Presence,
}

impl Subscriber {
    pub(crate) fn new(waker: Waker, wakes: &Arc<Wakes>) -> Self {
        Self { waker, presence: Presence::new(wakes) }
    }

    /// The outcome is there: to be woken by whoever gives the lock back.
    pub(crate) fn fulfil(self) {
        let wakes = Arc::clone(&self.presence.0);
        wakes.lock().push(self.waker);
        wakes.is_due.store(true, Ordering::Release);
    }
}
