//! Tasks one by one: each is submitted by itself, and has a handle.

use std::sync::Arc;

use epilogue_process::Portable;
use epilogue_process::entry::{Entry, Request};

use crate::call::{NO_STATE, head};
use crate::error::{Refusal, SubmitError};
use crate::mailbox::Mailbox;
use crate::pool::Pool;
use crate::task::{Task, TaskOptions};

impl Pool {
    /// Hands a task to the pool: `f` is called with `argument` in a worker.
    ///
    /// When this returns, the task is queued and will have exactly one outcome.
    ///
    /// # Errors
    ///
    /// [`SubmitError`] gives the argument back, and says why the pool did not take it.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = epilogue_pool::Pool::new(1)?;
    /// let task = pool.submit(21u64, |x| x * 2)?;
    /// assert_eq!(task.join()?, 42);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn submit<T, R>(&self, argument: T, f: fn(T) -> R) -> Result<Task<R>, SubmitError<T>>
    where
        T: Portable,
        R: Portable,
    {
        self.submit_with(&TaskOptions::new(), argument, f)
    }

    /// Like [`Pool::submit`], with options for this one task.
    ///
    /// # Errors
    ///
    /// As [`Pool::submit`].
    ///
    /// # Examples
    ///
    /// ```
    /// use epilogue_pool::{Pool, TaskOptions};
    ///
    /// let pool = Pool::new(1)?;
    /// let task = pool.submit_with(&TaskOptions::new().name("double"), 21u64, |x| x * 2)?;
    /// assert_eq!(task.name(), Some("double"));
    /// assert_eq!(task.join()?, 42);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
        match self.try_submit(options, &argument, f) {
            Ok(task) => Ok(task),
            Err(reason) => Err(SubmitError { value: argument, reason }),
        }
    }

    fn try_submit<T, R>(
        &self,
        options: &TaskOptions,
        argument: &T,
        f: fn(T) -> R,
    ) -> Result<Task<R>, Refusal>
    where
        T: Portable,
        R: Portable,
    {
        let shared = self.shared();
        shared.check()?;
        let mut request = Request::new(head(Entry::plain(f)?, NO_STATE));
        request.push(argument, &shared.limits, &shared.stock).map_err(Refusal::Encode)?;
        let senders = request.parcel().senders().to_vec();
        let mailbox = Arc::new(Mailbox::default());
        let terms = options.terms.or(shared.terms);
        let submitted = shared.submit(&terms, None, NO_STATE, request, 0, &mailbox)?;
        Ok(Task::new(shared, options, submitted.job, mailbox, senders))
    }
}
