//! Callbacks on completion, and the thread that calls them.
//!
//! It is one a pool, started when the first callback is set and joined as the pool ends. So a callback
//! may panic, block, submit, close the pool or drop it: nothing else of the pool waits for it.

use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, unbounded};
use epilogue_process::Portable;
use nix::sys::signal::SigSet;

use crate::error::TaskError;
use crate::own_thread::{OwnThread, Until};
use crate::task::Task;
use crate::wakes::Told;

impl<R: Portable + 'static> Task<R> {
    /// Has `callback` called with the task's outcome, on a thread of the pool's that does nothing
    /// else. Callbacks of one pool are called one after the other, in the order in which their tasks
    /// are done.
    ///
    /// A callback may panic, which ends that callback only; and it may block, submit tasks and set
    /// callbacks of theirs, and close or drop the pool. As a pool ends, all callbacks have been called
    /// before [`Pool::close`](crate::Pool::close) returns, or the drop; unless it is a callback that
    /// ends the pool: those after it are called when it has returned. Where it exits the program, they are
    /// not called any more.
    ///
    /// If the pool has ended already, or no thread can be started, or in a fork, it is called here,
    /// before this returns, and its panic is not caught. Without a thread, this first waits for the
    /// task.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::mpsc::channel;
    ///
    /// let pool = epilogue_pool::Pool::new(2)?;
    /// let (sender, outcomes) = channel();
    /// for x in 0..10u64 {
    ///     let sender = sender.clone();
    ///     pool.submit(x, |x| x * x)?.on_done(move |square| drop(sender.send(square)));
    /// }
    /// drop(sender);
    /// let squares: Result<Vec<u64>, _> = outcomes.into_iter().collect();
    /// assert_eq!(squares?.iter().sum::<u64>(), 285);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on_done(self, callback: impl FnOnce(Result<R, TaskError>) + Send + 'static) {
        let (mailbox, queue) = (Arc::clone(&self.mailbox), self.callbacks());
        let call = move || callback(self.join());
        let Some((pool, queue)) = queue else { return call() };
        // Whoever receives is there as long as there is one who sends.
        let hand_over = move || drop(queue.send(Box::new(call)));
        match mailbox.subscribe(Told::Called(Box::new(hand_over)), &pool.wakes) {
            Ok(()) => pool.attend(),
            Err(told) => told.tell(),
        }
    }
}

pub(crate) type Callback = Box<dyn FnOnce() + Send>;

/// The thread that calls back.
#[derive(Debug, Default)]
pub(crate) struct Callbacks(Mutex<State>);

#[derive(Debug, Default)]
enum State {
    /// Nobody has asked for it.
    #[default]
    Idle,
    Running(Sender<Callback>, Caller),
    /// The pool has ended, and it calls what there is, or has done so.
    Leaving(Caller),
    Ended,
}

#[derive(Debug)]
struct Caller {
    own: OwnThread,
    /// Until somebody joins it.
    thread: Option<JoinHandle<()>>,
}

impl Caller {
    fn start(callbacks: Receiver<Callback>) -> io::Result<Self> {
        let (own, thread) = OwnThread::start("epilogue-done", move || call(&callbacks))?;
        Ok(Self { own, thread: Some(thread) })
    }
}

impl Callbacks {
    /// Where callbacks go; none if the pool has ended or there is no thread to be had.
    pub(crate) fn queue(&self) -> Option<Sender<Callback>> {
        let mut state = self.lock();
        match &*state {
            State::Running(queue, _) => Some(queue.clone()),
            State::Leaving(_) | State::Ended => None,
            State::Idle => {
                let (queue, callbacks) = unbounded();
                *state = State::Running(queue.clone(), Caller::start(callbacks).ok()?);
                Some(queue)
            }
        }
    }

    /// Calls what there is and ends the thread; waits for that as long as said. All tasks have their outcomes.
    /// One that is called by it cannot wait for it; each other one who ends the pool does, but for the thread
    /// that tells of events, which a callback may wait for as it ends the pool.
    pub(crate) fn end(&self, observer: Option<&OwnThread>, until: Until<'_>) {
        let mut state = self.lock();
        let mut caller = match std::mem::replace(&mut *state, State::Ended) {
            State::Running(_, caller) | State::Leaving(caller) => caller,
            State::Idle | State::Ended => return,
        };
        let waits = !observer.is_some_and(OwnThread::is_here) && !caller.own.is_here();
        let (own, thread) = (caller.own.clone(), caller.thread.take_if(|_| waits));
        // It stays there for who ends the pool meanwhile, and has to wait as well.
        *state = State::Leaving(caller);
        // A callback may ask for the state.
        drop(state);
        if waits && own.ends(until) {
            let _ = thread.map(JoinHandle::join);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn call(callbacks: &Receiver<Callback>) {
    // The program's signal handlers have nothing to do on this thread.
    let _ = SigSet::all().thread_block();
    for callback in callbacks {
        if let Err(payload) = panic::catch_unwind(AssertUnwindSafe(callback)) {
            // The payload is the user's, and its `Drop` may panic again.
            if let Err(second) = panic::catch_unwind(AssertUnwindSafe(|| drop(payload))) {
                std::mem::forget(second);
            }
        }
    }
}
