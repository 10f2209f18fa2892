//! Awaiting a process, in any runtime and in none.
//!
//! The first poll starts a thread that waits for the process and then wakes the task. A runtime
//! of ours, or a registration with somebody else's, would be needed for anything less.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread;

use crate::running::{SharedRunning, look, wait_for};

/// A thread that waits for a process on behalf of a task.
#[derive(Debug)]
pub(crate) struct Waiter {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
enum State {
    Waiting(Waker),
    Ended,
}

impl Waiter {
    pub(crate) fn start(running: &SharedRunning, context: &Context<'_>) -> io::Result<Self> {
        let state = Arc::new(Mutex::new(State::Waiting(context.waker().clone())));
        let (running, told) = (Arc::clone(running), Arc::clone(&state));
        let thread = thread::Builder::new().name("epilogue-await".into());
        thread.spawn(move || {
            // Without the lock: whoever has the handle may want to stop the process meanwhile.
            while let Some(sight) = look(&running) {
                wait_for(&[sight]);
            }
            // The task may be polled as soon as it is woken, so this thread must have let go.
            drop(running);
            let ended = std::mem::replace(&mut *state_of(&told), State::Ended);
            if let State::Waiting(waker) = ended {
                waker.wake();
            }
        })?;
        Ok(Self { state })
    }

    /// Whether the process has ended; if not, the task of `context` will be woken.
    pub(crate) fn poll(&self, context: &Context<'_>) -> Poll<()> {
        match &mut *state_of(&self.state) {
            State::Ended => Poll::Ready(()),
            State::Waiting(waker) => {
                waker.clone_from(context.waker());
                Poll::Pending
            }
        }
    }
}

fn state_of(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
