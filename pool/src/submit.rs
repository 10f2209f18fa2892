//! Tasks one by one: each is submitted by itself, and has a handle.

use std::sync::Arc;

use epilogue_process::Portable;
use epilogue_process::entry::{Entry, ForeignFunction, Request};

use crate::call::{NO_STATE, head};
use crate::error::{Refusal, SubmitError};
use crate::mailbox::{Arrival, Mailbox, Outcomes};
use crate::map::Input;
use crate::pool::Pool;
use crate::shared::Shared;
use crate::task::{Task, TaskOptions};

impl Pool {
    /// Hands a task to the pool: `f` is called with `argument` in a worker.
    ///
    /// When this returns, the task is queued and will have exactly one outcome. It does not wait
    /// for room: the queue has no bound, and keeps the encoded arguments. [`Pool::imap`] takes from
    /// its input within bounds.
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
        self.shared().submit_entry(options, argument, Entry::plain(f), Mailbox::default())
    }

    /// Hands a task for each item to the pool, and gives their handles in the order of the items.
    ///
    /// All items are taken before this returns, so there must be an end to them; for an endless input
    /// there is [`Pool::imap`]. A task that the pool does not take, because the pool is closed
    /// meanwhile or the item cannot be encoded, has that as its outcome.
    ///
    /// # Errors
    ///
    /// [`Refusal`] if the pool is closed from the start, or the iterator panics or has no end: it
    /// gives more than 2³² − 1 items, or says that it will. Then what was submitted and has not
    /// begun is cancelled, and what runs is asked to return.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = epilogue_pool::Pool::new(2)?;
    /// let tasks = pool.submit_all(0..3u64, |x| x * x)?;
    /// let squares = tasks.into_iter().map(|task| task.join()).collect::<Result<Vec<_>, _>>()?;
    /// assert_eq!(squares, [0, 1, 4]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn submit_all<I, T, R>(&self, items: I, f: fn(T) -> R) -> Result<Vec<Task<R>>, Refusal>
    where
        I: IntoIterator<Item = T>,
        T: Portable,
        R: Portable,
    {
        self.shared().check()?;
        let mut tasks = Vec::new();
        match self.submit_each(items, f, &mut tasks) {
            Ok(()) => Ok(tasks),
            Err(refusal) => {
                for task in &tasks {
                    task.cancel();
                }
                Err(refusal)
            }
        }
    }

    fn submit_each<I, T, R>(
        &self,
        items: I,
        f: fn(T) -> R,
        tasks: &mut Vec<Task<R>>,
    ) -> Result<(), Refusal>
    where
        I: IntoIterator<Item = T>,
        T: Portable,
        R: Portable,
    {
        let options = TaskOptions::new();
        let mut input = Input::new(items)?;
        while let Some(item) = input.next()? {
            // The iterator may have forked, and goes on in the copy as well.
            self.shared().require_owner()?;
            tasks.push(
                self.shared()
                    .try_submit(&options, &item, Entry::plain(f), Mailbox::default())
                    .unwrap_or_else(|refusal| {
                        let outcomes = Outcomes::Failed { count: 1, error: refusal.into() };
                        let mailbox = Arc::new(Mailbox::default());
                        mailbox.put(Arrival { first: 0, outcomes });
                        Task::new(self.shared(), &options, NO_STATE, mailbox, Vec::new())
                    }),
            );
        }
        Ok(())
    }
}

impl Shared {
    pub(crate) fn submit_entry<T, R>(
        self: &Arc<Self>,
        options: &TaskOptions,
        argument: T,
        entry: Result<Entry, ForeignFunction>,
        mailbox: Mailbox,
    ) -> Result<Task<R>, SubmitError<T>>
    where
        T: Portable,
        R: Portable,
    {
        match self.try_submit(options, &argument, entry, mailbox) {
            Ok(task) => Ok(task),
            Err(reason) => Err(SubmitError { value: argument, reason }),
        }
    }

    fn try_submit<T, R>(
        self: &Arc<Self>,
        options: &TaskOptions,
        argument: &T,
        entry: Result<Entry, ForeignFunction>,
        mailbox: Mailbox,
    ) -> Result<Task<R>, Refusal>
    where
        T: Portable,
        R: Portable,
    {
        self.check()?;
        let mut request = Request::new(head(entry?, NO_STATE));
        request.push(argument, &self.limits, &self.stock).map_err(Refusal::Encode)?;
        let senders = request.parcel().senders().to_vec();
        let mailbox = Arc::new(mailbox);
        let terms = options.terms.or(self.terms);
        let submitted = self.submit(&terms, None, NO_STATE, request, 0, &mailbox)?;
        Ok(Task::new(self, options, submitted.job, mailbox, senders))
    }
}
