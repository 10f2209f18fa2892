//! Scopes: whatever was submitted in one has its outcome when it returns.
//!
//! What is counted is outcomes as they arrive, not handles: those may be joined, dropped, leaked or
//! taken along, and change nothing.

use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use epilogue_process::Portable;
use epilogue_process::entry::Entry;

use crate::call::Which;
use crate::error::{SubmitError, TaskError};
use crate::mailbox::{Arrival, Mailbox, Outcomes};
use crate::pool::Pool;
use crate::reader::Need;
use crate::task::{Task, TaskOptions};

/// Submits tasks that have their outcomes before the call of [`Pool::scope`] returns.
pub struct TaskScope<'pool> {
    pool: &'pool Pool,
    tally: Arc<Tally>,
}

/// How many tasks of a scope have no outcome yet.
#[derive(Debug)]
pub(crate) struct Tally {
    open: AtomicUsize,
    /// Something arrives here once there are none.
    done: Arc<Mailbox>,
}

/// Dropped when a task has its outcome, or was not taken by the pool.
#[derive(Debug)]
pub(crate) struct Ticket(Arc<Tally>);

impl Ticket {
    fn new(tally: &Arc<Tally>) -> Self {
        tally.open.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(tally))
    }

    pub(crate) fn is_of(&self, tally: &Arc<Tally>) -> bool {
        Arc::ptr_eq(&self.0, tally)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // Whoever sees that there are none sees all that was done before.
        if self.0.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            let outcomes = Outcomes::Failed { count: 0, error: TaskError::AlreadyJoined };
            self.0.done.put(Arrival { first: 0, outcomes });
        }
    }
}

impl Pool {
    /// Calls `f` with a scope, and waits for whatever was submitted in it before returning.
    ///
    /// However `f` is left, when this returns (or unwinds) every task that was submitted in the scope
    /// has its outcome, whatever became of its handle, and none of them runs. The pool goes on.
    /// Handles may leave the scope: to join them takes no time then.
    ///
    /// If `f` panics, what has not begun is cancelled, and what runs is asked to return, as by
    /// [`Task::cancel`]: it takes the time that it needs, or that
    /// [`TaskOptions::cancel_within`] leaves it. Then the panic goes on.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = epilogue_pool::Pool::new(2)?;
    /// let sum = pool.scope(|s| {
    ///     let (a, b) = (s.submit(1u64, |x| x + 1)?, s.submit(10u64, |x| x * 2)?);
    ///     Ok::<_, Box<dyn std::error::Error>>(a.join()? + b.join()?)
    /// })?;
    /// assert_eq!(sum, 22);
    ///
    /// let tasks = pool.scope(|s| [1u64, 2].map(|x| s.submit(x, |x| x * 10).unwrap()));
    /// assert!(tasks.iter().all(|task| task.is_finished()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// The scope itself cannot be taken along:
    ///
    /// ```compile_fail
    /// # let pool = epilogue_pool::Pool::new(2).unwrap();
    /// let mut kept = None;
    /// pool.scope(|s| kept = Some(s));
    /// ```
    pub fn scope<R>(&self, f: impl FnOnce(&TaskScope<'_>) -> R) -> R {
        let tally = Arc::new(Tally { open: AtomicUsize::new(0), done: Arc::default() });
        // Until the end the scope itself counts, so that there are none left only once.
        let own = Ticket::new(&tally);
        let scope = TaskScope { pool: self, tally };
        let result = panic::catch_unwind(AssertUnwindSafe(|| f(&scope)));
        drop(own);
        // In a fork there is nobody who would bring the outcomes.
        if self.shared().is_ours() {
            if result.is_err() {
                self.shared().cancel(Which::Scope(&scope.tally));
            }
            // What the tasks send to receivers here, or they might wait for us as we wait for them.
            let _drain = self.shared().drain();
            self.shared().wait(&scope.tally.done, Need::Each, None);
        }
        result.unwrap_or_else(|payload| panic::resume_unwind(payload))
    }
}

impl TaskScope<'_> {
    /// As [`Pool::submit`]; the task has its outcome before the scope ends.
    ///
    /// # Errors
    ///
    /// As [`Pool::submit`].
    pub fn submit<T, R>(&self, argument: T, f: fn(T) -> R) -> Result<Task<R>, SubmitError<T>>
    where
        T: Portable,
        R: Portable,
    {
        self.submit_with(&TaskOptions::new(), argument, f)
    }

    /// As [`Pool::submit_with`]; the task has its outcome before the scope ends.
    ///
    /// # Errors
    ///
    /// As [`Pool::submit`].
    pub fn submit_with<T, R>(
        &self,
        options: &TaskOptions,
        argument: T,
        f: fn(T) -> R,
    ) -> Result<Task<R>, SubmitError<T>>
    where
        T: Portable,
        R: Portable,
    {
        let mailbox = Mailbox::with_ticket(Ticket::new(&self.tally));
        self.pool.shared().submit_entry(options, argument, Entry::plain(f), mailbox)
    }
}

impl fmt::Debug for TaskScope<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskScope").field("open", &self.tally.open).finish_non_exhaustive()
    }
}
