//! The handle of one task.

use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Weak};

use epilogue_process::channel::Drain;
use epilogue_process::child::this_process;
use epilogue_process::entry::{answer, only_answer};
use epilogue_process::{Limits, Portable};

use crate::error::{Refusal, TaskError};
use crate::mailbox::{Mailbox, Outcomes};
use crate::pool::Shared;
use crate::reader::Need;

/// One task that was submitted, and its value to come.
///
/// Dropping the handle does not cancel the task: it is done, and its value is thrown away.
#[must_use = "a task's error is only told to who joins it"]
pub struct Task<R> {
    /// The pool, as long as it is there. When it is gone, all outcomes have arrived.
    pool: Weak<Shared>,
    mailbox: Arc<Mailbox>,
    limits: Limits,
    owner: u32,
    /// The channels whose sending end went along with the argument.
    senders: Vec<u64>,
    result: PhantomData<fn() -> R>,
}

impl<R> Task<R> {
    pub(crate) fn new(pool: &Arc<Shared>, mailbox: Arc<Mailbox>, senders: Vec<u64>) -> Self {
        let (limits, owner) = (pool.limits.clone(), this_process());
        Self { pool: Arc::downgrade(pool), mailbox, limits, owner, senders, result: PhantomData }
    }

    /// Waits for the task's outcome.
    ///
    /// # Errors
    ///
    /// [`TaskError`] says why there is no value, and whether the task may have had effects.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = epilogue_pool::Pool::new(1)?;
    /// let task = pool.submit(21u64, |x| x * 2)?;
    /// assert_eq!(task.join()?, 42);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn join(self) -> Result<R, TaskError>
    where
        R: Portable,
    {
        // Those who would bring the outcome did not come along into a fork.
        if self.owner != this_process() {
            return Err(Refusal::Forked.into());
        }
        // What the task sends to receivers here, or it might wait for us as we wait for it.
        let _drain = Drain::start(&self.senders);
        if let Some(pool) = self.pool.upgrade() {
            pool.wait(&self.mailbox, Need::Each);
        }
        let limits = &self.limits;
        match self.mailbox.take().map(|arrival| arrival.outcomes) {
            Some(Outcomes::Answers(reply)) => Ok(only_answer(&reply, limits)?),
            Some(Outcomes::Answer(parcel)) => Ok(answer(parcel, limits)?),
            Some(Outcomes::Failed { error, .. }) => Err(error),
            // It waited until there was one.
            None => Err(Refusal::Closed.into()),
        }
    }

    /// Whether the task has its outcome, so that [`Task::join`] returns at once.
    pub fn is_finished(&self) -> bool {
        if self.mailbox.is_empty()
            && self.owner == this_process()
            && let Some(pool) = self.pool.upgrade()
        {
            pool.floor().collect();
        }
        !self.mailbox.is_empty()
    }
}

impl<R> fmt::Debug for Task<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task").field("finished", &!self.mailbox.is_empty()).finish()
    }
}
