//! The pool as its owner sees it.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use epilogue_embed::Finalizer;
use epilogue_embed::ending::{self, Ending};

use crate::builder::Builder;
use crate::ends::{Deadline, EndCause, Order};
use crate::error::{BuildError, CloseError};
use crate::observer::Observer;
use crate::own_thread::Until;
use crate::report::Report;
use crate::shared::Shared;

/// A number of worker processes, and one queue of tasks for them.
///
/// # Shutdown
///
/// Dropping a pool closes it, as [`Pool::close`] does: it waits until all tasks that were
/// submitted are done and all workers have ended. While a panic unwinds, dropping cancels what has
/// not begun and stops the workers within the grace period. A pool in a static, or one that was
/// leaked, is closed as the program exits. [`Builder::on_end`] sets what happens in each case.
///
/// # Memory
///
/// An argument or a value of more than 64 KiB lies in memory that the pool and a worker share. It
/// is kept until the pool is closed, to be used again: up to 128 MiB for arguments, and up to
/// 64 MiB a worker for values. What is beyond that is freed once it has been read.
///
/// # Forks
///
/// In a process that was forked from the one that owns it, a pool refuses everything with an
/// error, and dropping it does nothing.
///
/// # Examples
///
/// ```
/// let pool = epilogue_pool::Pool::new(2)?;
/// let lengths = pool.map(["a", "bb"].map(String::from), |word| word.len())?;
/// assert_eq!(lengths, [1, 2]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    at_exit: Mutex<Option<Finalizer>>,
}

impl Pool {
    /// Starts a pool of `workers` processes.
    ///
    /// When this returns, every worker has been started and the first is up.
    ///
    /// # Errors
    ///
    /// [`BuildError`]; then nothing of the pool is left.
    pub fn new(workers: usize) -> Result<Self, BuildError> {
        Self::builder().workers(workers).start()
    }

    /// Sets how the pool is started: how many workers, its name, its times, its limits.
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn start(builder: Builder) -> Result<Self, BuildError> {
        let name = format!("epilogue: close pool {}", builder.spec.name);
        let shared = Shared::start(builder)?;
        let (hook, asked) = (Arc::clone(&shared), Arc::clone(&shared));
        let ask = move |ending: &Ending| asked.begin_to_end_with_program(ending);
        let at_exit =
            ending::register_asked(name, ask, move |ending| hook.end_with_program(ending));
        Ok(Self { shared, at_exit: Mutex::new(Some(at_exit)) })
    }

    /// Finishes what was submitted, ends the workers, and returns the proof of it.
    ///
    /// From the moment of this call the pool takes no new tasks. When it returns, every task has
    /// its outcome, and every worker has ended and been reaped, after its finalizers unless it died
    /// or had to be killed; the report says which. Calling it again returns the same report.
    ///
    /// It takes as long as the tasks do, and as the callbacks
    /// ([`Task::on_done`](crate::Task::on_done)) and listeners ([`Builder::on_event`]) that are
    /// still to be called. A pool that had given up closes without an error: [`Report::broken`]
    /// says why it did.
    ///
    /// # Errors
    ///
    /// [`CloseError`]; see there.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = epilogue_pool::Pool::new(2)?;
    /// let task = pool.submit((), |()| std::process::id())?;
    /// let report = pool.close()?;
    /// assert!(report.is_clean());
    /// assert_eq!(report.done, 1);
    /// task.join()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn close(&self) -> Result<Report, CloseError> {
        self.end(Order::CLOSE)
    }

    /// Finishes what was submitted within `timeout`, and terminates the pool if that is not enough.
    ///
    /// As [`Pool::close`], until the time is up. Then it goes on as [`Pool::terminate`] does: what has
    /// not begun is cancelled, and what runs has two fifths of the grace period to return. When
    /// this returns, every task has its outcome, and every worker has ended and been reaped.
    ///
    /// The report says whether the time was enough: how many tasks were
    /// [cancelled](Report::cancelled), and how many of them had begun and in
    /// [which worker](crate::WorkerReport::cancelled). Which ones they are says each task's handle.
    /// Callbacks and listeners are not held to the time: this waits for them, as [`Pool::close`]
    /// does.
    ///
    /// If several threads end a pool, the one that grants the least time is obeyed. A timeout that
    /// is too long for the clock is none.
    ///
    /// # Errors
    ///
    /// [`CloseError`]; see there.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use epilogue_pool::{Pool, TaskError};
    ///
    /// let pool = Pool::new(1)?;
    /// let endless = pool.submit((), |()| while !epilogue_pool::task::should_stop() {})?;
    /// let behind = pool.submit((), |()| ())?;
    /// let report = pool.close_timeout(Duration::from_millis(50))?;
    /// assert_eq!(report.workers.len(), 1);
    /// println!("{report}");
    /// # drop((endless, behind));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn close_timeout(&self, timeout: Duration) -> Result<Report, CloseError> {
        self.end(Order::Finish { deadline: Deadline::after(timeout) })
    }

    /// Cancels what has not begun, stops the workers within the grace period, and returns the
    /// proof of it.
    ///
    /// The tasks that run have two fifths of the grace period to return; their values count. When
    /// this returns, every task has its outcome, and every worker has ended and been reaped.
    ///
    /// # Errors
    ///
    /// [`CloseError`]; see there.
    pub fn terminate(&self) -> Result<Report, CloseError> {
        self.end(Order::TERMINATE)
    }

    fn end(&self, order: Order) -> Result<Report, CloseError> {
        if !self.shared.is_ours() {
            return Err(CloseError::NotOwner);
        }
        let report = self.shared.end(order);
        if let Err(CloseError::OnOwnThread) = report {
            // It goes on, and who drops the handle waits for it, or else the hook.
            return report;
        }
        self.shared.end_observation(Until::Done);
        // Now there is nothing left to do at exit.
        if let Some(hook) = self.take_hook() {
            hook.cancel();
        }
        report
    }

    fn take_hook(&self) -> Option<Finalizer> {
        self.at_exit.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // In a fork the workers are the business of the process that owns the pool.
        if self.shared.is_ours() {
            // Errors have no reader here. `close` returns them.
            let cause = if thread::panicking() { EndCause::Panic } else { EndCause::Drop };
            let outcome = self.end(self.shared.on_end.order(cause, None));
            if let Err(CloseError::OnOwnThread) = outcome {
                self.shared.leave_alone(self.take_hook());
            }
        }
    }
}

impl Shared {
    /// Nobody has the handle any more, and nobody waits for the pool's own thread, but this hook.
    fn leave_alone(&self, hook: Option<Finalizer>) {
        *self.left_alone.lock().unwrap_or_else(PoisonError::into_inner) = hook;
    }

    /// The pool has ended. If it was left alone, what it holds goes now, and not as the program exits.
    pub(crate) fn end_alone(&self) {
        let hook = self.left_alone.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(hook) = hook else { return };
        self.callbacks.end(self.observer.as_ref().map(Observer::own_thread), Until::Done);
        self.end_observation(Until::Within(Self::LISTENING));
        self.stock.close();
        // Until here the program's end waits for all of it. The hook holds what is left.
        hook.cancel();
    }
}
