//! The handle of one task.

use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Weak};
use std::task::Waker;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use epilogue_process::channel::Drain;
use epilogue_process::child::this_process;
use epilogue_process::entry::{answer, only_answer};
use epilogue_process::{Limits, Portable};

use crate::call::Which;
use crate::callback::Callback;
use crate::error::{Refusal, TaskError};
use crate::future::Awaiting;
use crate::mailbox::{Arrival, Mailbox, Outcomes};
use crate::reader::Need;
use crate::shared::Shared;
use crate::terms::Terms;
use crate::wakes::Told;

pub use epilogue_process::task::should_stop;

/// What is set for one task; see [`Pool::submit_with`](crate::Pool::submit_with).
///
/// # Examples
///
/// ```
/// let options = epilogue_pool::TaskOptions::new().name("thumbnail of cat.png");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use = "options do nothing before a task is submitted with them"]
pub struct TaskOptions {
    pub(crate) name: Option<String>,
    pub(crate) terms: Terms,
}

impl TaskOptions {
    /// The options that [`Pool::submit`](crate::Pool::submit) has: none.
    pub fn new() -> Self {
        Self::default()
    }

    /// Names the task, for who looks at its handle. It has no name by default.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }
}

/// One task that was submitted, and its value to come.
///
/// Dropping the handle does not cancel the task: it is done, and its value is thrown away.
///
/// A handle is a future of what [`Task::join`] returns, and [`Task::on_done`] has a function called
/// with that.
#[must_use = "a task's error is only told to who joins it"]
pub struct Task<R> {
    /// The pool, as long as it is there. When it is gone, all outcomes have arrived.
    pub(crate) pool: Weak<Shared>,
    name: Option<String>,
    id: u64,
    pub(crate) mailbox: Arc<Mailbox>,
    stage: Stage,
    /// That it is polled, if it is.
    pub(crate) awaiting: Option<Awaiting>,
    pub(crate) limits: Limits,
    owner: u32,
    /// The channels whose sending end went along with the argument.
    pub(crate) senders: Vec<u64>,
    result: PhantomData<fn() -> R>,
}

/// Whether the outcome is still to be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Open,
    Taken,
}

impl<R> Task<R> {
    pub(crate) fn new(
        pool: &Arc<Shared>,
        options: &TaskOptions,
        id: u64,
        mailbox: Arc<Mailbox>,
        senders: Vec<u64>,
    ) -> Self {
        Self {
            pool: Arc::downgrade(pool),
            name: options.name.clone(),
            id,
            mailbox,
            stage: Stage::Open,
            awaiting: None,
            limits: pool.limits.clone(),
            owner: this_process(),
            senders,
            result: PhantomData,
        }
    }

    /// The number by which events name it: [`Tasks::job`](crate::Tasks::job).
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The name that [`TaskOptions::name`] gave it.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
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
    pub fn join(mut self) -> Result<R, TaskError>
    where
        R: Portable,
    {
        self.wait(None)?;
        self.take()
    }

    /// Waits for the task's outcome, or until `timeout` has passed; then `None`, and the task goes
    /// on and can be joined later. Once the value was given, it is gone.
    ///
    /// # Errors
    ///
    /// As [`Task::join`]; [`TaskError::AlreadyJoined`] after the outcome was given.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let pool = epilogue_pool::Pool::new(1)?;
    /// let mut task = pool.submit(21u64, |x| x * 2)?;
    /// let value = loop {
    ///     match task.join_timeout(Duration::from_millis(100))? {
    ///         Some(value) => break value,
    ///         None => println!("still at it"),
    ///     }
    /// };
    /// assert_eq!(value, 42);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn join_timeout(&mut self, timeout: Duration) -> Result<Option<R>, TaskError>
    where
        R: Portable,
    {
        // Without an end, if it is too long for the clock.
        self.wait(Instant::now().checked_add(timeout))?;
        // It looks itself: who has no time left does not wait, and nobody else may take what is there.
        if self.is_finished() { self.take().map(Some) } else { Ok(None) }
    }

    /// Gives the task's outcome if it has one; never blocks. `None` means that it waits, or runs.
    ///
    /// # Errors
    ///
    /// As [`Task::join_timeout`].
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = epilogue_pool::Pool::new(1)?;
    /// let mut task = pool.submit(21u64, |x| x * 2)?;
    /// let value = loop {
    ///     if let Some(value) = task.try_join()? {
    ///         break value;
    ///     }
    ///     // There is something better to do meanwhile.
    ///     std::thread::yield_now();
    /// };
    /// assert_eq!(value, 42);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_join(&mut self) -> Result<Option<R>, TaskError>
    where
        R: Portable,
    {
        self.require_open()?;
        if self.is_finished() { self.take().map(Some) } else { Ok(None) }
    }

    /// Cancels the task if it has not begun. True if that is so: then it never begins, and its
    /// outcome is [`TaskError::Cancelled`] with `begun: false`. False if it had begun, or has its
    /// outcome already. One that waits to be [begun again](TaskOptions::retries) is cancelled as well,
    /// but with `begun: true`: it had begun before.
    ///
    /// There is nothing between the two: a worker claims a task before it begins it, and what is
    /// claimed cannot be taken back, nor the other way round.
    ///
    /// A task that runs is asked to return: [`should_stop`] is true in it from now on. What it
    /// returns is its value. With [`TaskOptions::cancel_within`] it has so long for that; then its
    /// worker is ended, and its outcome is [`TaskError::Cancelled`] with `begun: true`. It is not
    /// tried again, should its worker die.
    ///
    /// # Examples
    ///
    /// ```
    /// use epilogue_pool::{Pool, TaskError};
    ///
    /// let pool = Pool::new(1)?;
    /// let tasks = (0..1000u64).map(|x| pool.submit(x, |x| x)).collect::<Result<Vec<_>, _>>()?;
    /// for (x, task) in tasks.into_iter().enumerate() {
    ///     match task.cancel() {
    ///         true => assert!(matches!(task.join(), Err(TaskError::Cancelled { begun: false }))),
    ///         false => assert_eq!(task.join()?, x as u64),
    ///     }
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn cancel(&self) -> bool {
        match self.pool_to_ask() {
            Some(pool) => pool.cancel(Which::Job(self.id)),
            None => false,
        }
    }

    /// Whether a worker has begun the task and is not done with it.
    ///
    /// One that is not running and not [finished](Task::is_finished) waits for its turn.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = epilogue_pool::Pool::new(1)?;
    /// let task = pool.submit((), |()| ())?;
    /// while !task.is_finished() {
    ///     println!("{}", if task.is_running() { "it runs" } else { "it waits" });
    /// }
    /// # task.join()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn is_running(&self) -> bool {
        self.pool_to_ask().is_some_and(|pool| {
            let mut floor = pool.floor();
            floor.collect();
            floor.is_running(self.id)
        })
    }

    /// Whether the task has its outcome, so that [`Task::join`] returns at once.
    pub fn is_finished(&self) -> bool {
        if let Some(pool) = self.pool_to_ask() {
            let mut floor = pool.floor();
            floor.collect();
            // Who asks again and again waits, too, and a worker that has stopped is found by that.
            if self.mailbox.is_empty() && floor.keep_vigil(Instant::now()).1 {
                pool.bell.ring();
            }
        }
        self.stage == Stage::Taken || !self.mailbox.is_empty()
    }

    /// The pool, if the outcome is still to come.
    fn pool_to_ask(&self) -> Option<Arc<Shared>> {
        // Those who would bring the outcome did not come along into a fork; who had the mailbox's lock
        // meanwhile did not either.
        let is_open = self.stage == Stage::Open && !self.is_foreign() && self.mailbox.is_empty();
        is_open.then(|| self.pool.upgrade())?
    }

    /// Whether it came along into a fork.
    pub(crate) fn is_foreign(&self) -> bool {
        self.owner != this_process()
    }

    /// Has `waker` woken when there is an outcome. False if there is one, or never will be.
    pub(crate) fn subscribe(&self, waker: &Waker) -> bool {
        let Some(pool) = self.pool_to_ask() else { return false };
        pool.floor().collect();
        // Not behind the lock: both wakers are somebody else's code.
        let told = Told::Woken(waker.clone());
        let is_waiting = self.mailbox.subscribe(told, &pool.wakes).is_ok();
        if is_waiting {
            pool.attend();
        }
        is_waiting
    }

    /// The pool and its queue of callbacks, if there is a thread that calls them.
    pub(crate) fn callbacks(&self) -> Option<(Arc<Shared>, Sender<Callback>)> {
        let pool = if self.is_foreign() { None } else { self.pool.upgrade() }?;
        let queue = pool.callbacks.queue()?;
        Some((pool, queue))
    }

    pub(crate) fn require_open(&self) -> Result<(), TaskError> {
        match self.stage {
            Stage::Taken => Err(TaskError::AlreadyJoined),
            Stage::Open if self.is_foreign() => Err(Refusal::Forked.into()),
            Stage::Open => Ok(()),
        }
    }

    fn wait(&self, deadline: Option<Instant>) -> Result<(), TaskError> {
        self.require_open()?;
        // What the task sends to receivers here, or it might wait for us as we wait for it.
        let _drain = Drain::start(&self.senders);
        if let Some(pool) = self.pool_to_ask() {
            pool.wait(&self.mailbox, Need::Each, deadline);
        }
        Ok(())
    }

    pub(crate) fn take(&mut self) -> Result<R, TaskError>
    where
        R: Portable,
    {
        self.stage = Stage::Taken;
        // It waited until there was one: a pool that is gone has left one everywhere.
        let Some(Arrival { outcomes, .. }) = self.mailbox.take() else {
            return Err(Refusal::Closed.into());
        };
        match outcomes {
            Outcomes::Answers(reply) => Ok(only_answer(&reply, &self.limits)?),
            Outcomes::Answer(parcel) => Ok(answer(parcel, &self.limits)?),
            Outcomes::Failed { error, .. } => Err(error),
        }
    }
}

impl<R> fmt::Debug for Task<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let finished = self.stage == Stage::Taken || !self.mailbox.is_empty();
        f.debug_struct("Task").field("name", &self.name).field("finished", &finished).finish()
    }
}
