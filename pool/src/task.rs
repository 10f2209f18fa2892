//! The handle of one task.

use std::fmt;
use std::marker::PhantomData;

use crossbeam_channel::Receiver;
use epilogue_process::channel::Drain;
use epilogue_process::entry::answer;
use epilogue_process::{Limits, Portable};

use crate::call::{Index, Outcome};
use crate::error::{Refusal, TaskError};

/// One task that was submitted, and its value to come.
///
/// Dropping the handle does not cancel the task: it is done, and its value is thrown away.
#[must_use = "a task's error is only told to who joins it"]
pub struct Task<R> {
    outcome: Receiver<(Index, Outcome)>,
    limits: Limits,
    owner: u32,
    /// The channels whose sending end went along with the argument.
    senders: Vec<u64>,
    result: PhantomData<fn() -> R>,
}

impl<R> Task<R> {
    pub(crate) fn new(
        outcome: Receiver<(Index, Outcome)>,
        limits: Limits,
        senders: Vec<u64>,
    ) -> Self {
        Self { outcome, limits, owner: std::process::id(), senders, result: PhantomData }
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
        if self.owner != std::process::id() {
            // The thread that would bring the outcome did not come along into this fork.
            return Err(Refusal::Forked.into());
        }
        // What the task sends to receivers here, or it might wait for us as we wait for it.
        let _drain = Drain::start(&self.senders);
        // Every call sends an outcome before it is gone, so the channel never ends without one.
        let (_, outcome) =
            self.outcome.recv().map_err(|_| TaskError::Cancelled { begun: false })?;
        Ok(answer(outcome?, &self.limits)?)
    }

    /// Whether the task has its outcome, so that [`Task::join`] returns at once.
    pub fn is_finished(&self) -> bool {
        !self.outcome.is_empty()
    }
}

impl<R> fmt::Debug for Task<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task").field("finished", &self.is_finished()).finish()
    }
}
