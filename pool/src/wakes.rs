//! Who waits for an outcome without a thread: what polls a task, or is called back, is woken.
//!
//! # Invariants
//!
//! 1. As long as somebody waits in this way, someone reads: see [`Floor::needs_supervisor`].
//! 2. To wake a waker is to call code that is not ours. It is called when the lock of the floor has
//!    been given back, by a thread that neither reads nor follows a reader: it may wait for a task in
//!    turn. Its panic ends there.
//! 3. Whoever may not call one more, as it is in the middle of so many, leaves those that are due to the
//!    supervisor, and sleeps like anybody else who waits. So does the supervisor's own thread, until one of
//!    its wakers returns: a chain of more than that many, of which each one waits in its `wake` for what the
//!    next one does, stands still there.
//!
//! [`Floor::needs_supervisor`]: crate::floor::Floor::needs_supervisor

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, PoisonError};
use std::task::Waker;

use crate::sync::{AtomicBool, AtomicUsize, Mutex, MutexGuard, Ordering, thread_local};

thread_local! {
    /// How many wakers this thread is in the middle of, each within the one before, of whatever pools.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// How many those may be. A waker that uses the pool comes back here and wakes the next one, so without a
/// bound thousands that are due at once would overflow the stack.
const DEEPEST: usize = 64;

/// Those of one pool.
#[derive(Debug, Default)]
pub(crate) struct Wakes {
    /// How many wait.
    waiting: AtomicUsize,
    /// Those whose outcome is there.
    due: Mutex<VecDeque<Waker>>,
    is_due: AtomicBool,
}

impl Wakes {
    /// Whether anybody waits.
    pub(crate) fn are_awaited(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Whether somebody whose outcome is there was not woken yet.
    pub(crate) fn are_due(&self) -> bool {
        self.is_due.load(Ordering::SeqCst)
    }

    /// Whether this thread has somebody to wake before it sleeps.
    pub(crate) fn are_due_here(&self) -> bool {
        self.are_due() && may_call()
    }

    /// Wakes those whose outcome is there. False if that is left to another thread, which has to be told.
    #[must_use]
    pub(crate) fn wake(&self) -> bool {
        // Most of the time nobody is, and everybody who has had the lock comes by here.
        if !self.are_due() {
            return true;
        }
        if may_call() {
            self.wake_all();
            return true;
        }
        false
    }

    /// One after the other: a waker that waits for what the next one would do, as by ending the pool, comes
    /// back here and finds that one.
    fn wake_all(&self) {
        while let Some(waker) = self.next() {
            DEPTH.with(|depth| depth.set(depth.get() + 1));
            call(waker);
            DEPTH.with(|depth| depth.set(depth.get() - 1));
        }
    }

    /// Who is to be woken next. The lock is not held while foreign code runs, which may come back here.
    fn next(&self) -> Option<Waker> {
        let mut due = self.lock();
        let next = due.pop_front();
        if due.is_empty() {
            // Behind the lock, as it is set: one that is added meanwhile is not passed by.
            self.is_due.store(false, Ordering::Relaxed);
        }
        next
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Waker>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether this thread may call one more within those that it calls.
fn may_call() -> bool {
    DEPTH.with(Cell::get) < DEEPEST
}

/// Calls foreign code. A pool's own thread comes by here, too.
fn call(waker: Waker) {
    if let Err(payload) = panic::catch_unwind(AssertUnwindSafe(|| waker.wake()))
        && let Err(second) = panic::catch_unwind(AssertUnwindSafe(|| drop(payload)))
    {
        // The payload is foreign, too, and so may be what its `Drop` panics with.
        std::mem::forget(second);
    }
}

impl Drop for Wakes {
    fn drop(&mut self) {
        // Nobody comes after this one.
        self.wake_all();
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

/// How somebody hears that the outcome is there.
pub(crate) enum Told {
    /// From whoever gives the lock back: it is code that is not ours.
    Woken(Waker),
    /// At once, in the order in which outcomes come: it is ours, and neither waits nor takes our locks.
    Called(Box<dyn FnOnce() + Send>),
}

impl Told {
    /// Tells it here.
    pub(crate) fn tell(self) {
        match self {
            Self::Woken(waker) => call(waker),
            Self::Called(call) => call(),
        }
    }
}

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Woken(_) => "Woken",
            Self::Called(_) => "Called",
        })
    }
}

/// Somebody who waits for one outcome.
#[derive(Debug)]
pub(crate) struct Subscriber {
    told: Told,
    presence: Presence,
}

impl Subscriber {
    pub(crate) fn new(told: Told, wakes: &Arc<Wakes>) -> Self {
        Self { told, presence: Presence::new(wakes) }
    }

    /// The outcome is there.
    pub(crate) fn fulfil(self) {
        let waker = match self.told {
            Told::Woken(waker) => waker,
            Told::Called(call) => return call(),
        };
        let wakes = &self.presence.0;
        let mut due = wakes.lock();
        due.push_back(waker);
        wakes.is_due.store(true, Ordering::SeqCst);
    }
}
