//! Limits of time and of attempts, as they are set: for a pool, for a map, or for one task.
//!
//! What is set for a task comes before what is set for its map, and that before what is set for its
//! pool. What they mean is in `terms` and `course`, and what comes of them in `deadline`.

use std::time::Duration;

use crate::builder::Builder;
use crate::map::Maps;
use crate::pool::Pool;
use crate::stall::{OnStall, Stall};
use crate::task::TaskOptions;

impl Builder {
    /// Sets how long a task may run. Without a limit by default.
    ///
    /// The time counts from when a worker begins the task, not from when it is submitted. Then its
    /// worker is ended within the grace period ([`Builder::grace_period`]): finalizers run, and the
    /// task goes on meanwhile. When nothing of it runs any more, its outcome is
    /// [`TaskError::TimedOut`](crate::TaskError::TimedOut). No other task notices: what the worker
    /// had not begun goes to others, and another worker takes its place. A task that timed out is not
    /// tried again.
    ///
    /// A limit that passes while the program is stopped together with its workers, by Ctrl-Z for
    /// instance, is not reached: it counts anew from when they are continued.
    ///
    /// Maps whose tasks have a limit of time send each item by itself, whatever
    /// [`Builder::chunk_size`] says: each has a clock of its own.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use epilogue_pool::{Pool, TaskError};
    ///
    /// let pool = Pool::builder().workers(2).task_timeout(Duration::from_millis(50)).start()?;
    /// let outcomes = pool.map_outcomes([false, true, false], |endless| {
    ///     while endless {
    ///         std::thread::park();
    ///     }
    /// })?;
    /// assert!(matches!(outcomes[..], [Ok(()), Err(TaskError::TimedOut), Ok(())]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn task_timeout(mut self, timeout: Duration) -> Self {
        self.terms.timeout = Some(timeout);
        self
    }

    /// Sets after which time a task that runs is asked to return:
    /// [`should_stop`](crate::task::should_stop) is true in it from then on. Nothing else happens,
    /// and what it returns is its value. Never by default.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use epilogue_pool::{Pool, task};
    ///
    /// let pool = Pool::builder().workers(1).soft_timeout(Duration::from_millis(20)).start()?;
    /// let task = pool.submit((), |()| {
    ///     let mut rounds = 0u64;
    ///     while !task::should_stop() {
    ///         rounds += 1;
    ///     }
    ///     rounds
    /// })?;
    /// println!("{} rounds in 20 ms", task.join()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn soft_timeout(mut self, timeout: Duration) -> Self {
        self.terms.soft_timeout = Some(timeout);
        self
    }

    /// Sets how long a task may wait before a worker begins it. One that waited so long does not
    /// begin any more: its outcome is [`TaskError::Expired`](crate::TaskError::Expired). Without a
    /// limit by default.
    ///
    /// The time of a map's item counts from when the map has taken it from its input. That of a
    /// task that is to be [begun again](Builder::retries) counts anew.
    pub fn queue_timeout(mut self, timeout: Duration) -> Self {
        self.terms.queue_timeout = Some(timeout);
        self
    }

    /// Declares all tasks to be idempotent: to begin one again does no harm. One whose worker dies
    /// during it is begun again then, up to so many times. Not at all by default.
    ///
    /// A task whose workers die each time is not begun any more: its outcome is
    /// [`TaskError::Poisoned`](crate::TaskError::Poisoned), which tells how they ended. One that
    /// expires or is refused while it waits to be begun again may have had effects. An argument
    /// that hands over the end of a channel cannot be sent again, so its task is begun once.
    pub fn retries(mut self, retries: u32) -> Self {
        self.terms.retries = Some(retries);
        self
    }

    /// Sets how many workers may die within which time, before the pool gives up: all that waits, and
    /// all that is submitted from then on, is refused with
    /// [`Refusal::Broken`](crate::Refusal::Broken), which tells how the last one died.
    ///
    /// By default there is no limit to the workers that tasks end, of which there are only as many as
    /// tasks. Workers that die without a task are replaced ever later, and after a few in a row the
    /// pool gives up in any case. Workers that the pool itself ends, for a limit of time, do not count.
    ///
    /// A pool that closes may start workers beside those that serve. One of these that does not
    /// come up does not count either: the others do the work. But a task may wait for another one
    /// that nobody comes to begin. So a pool with this limit gives up here as well, after a few of
    /// them in a row, if no task was done meanwhile and that has lasted as long as
    /// [`stall_after`](Builder::stall_after) says, or five seconds if that is less.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use epilogue_pool::{Pool, Refusal, TaskError};
    ///
    /// let intensity = (3, Duration::from_secs(60));
    /// let pool = Pool::builder().workers(1).restart_intensity(intensity.0, intensity.1).start()?;
    /// // Each of these ends its worker.
    /// let outcomes = pool.map_outcomes(0..100u32, |n| if n < 100 { std::process::abort() })?;
    /// let last = outcomes.last();
    /// assert!(matches!(last, Some(Err(TaskError::Refused(Refusal::Broken { .. })))));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn restart_intensity(mut self, deaths: usize, within: Duration) -> Self {
        self.intensity = Some((deaths, within));
        self
    }
}

impl Builder {
    /// Sets after which time a worker counts as stalled that has something to do, and does not get on
    /// with it. Five seconds by default; [`Duration::MAX`] is never. As long as somebody waits for
    /// outcomes, one that is stopped or traced is found after once to twice this time, and one that
    /// sleeps after twice to three times. A task that uses the CPU is never one, however long it
    /// takes: for that there is [`Builder::task_timeout`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use epilogue_pool::{OnStall, Pool};
    ///
    /// let soon = Duration::from_millis(100);
    /// let pool = Pool::builder().workers(1).stall_after(soon).on_stall(OnStall::Leave).start()?;
    /// // A whole second in which it sleeps.
    /// pool.submit(Duration::from_secs(1), std::thread::sleep)?.join()?;
    /// for stall in pool.stalls() {
    ///     println!("{stall}");
    /// }
    /// assert!(pool.stalls().len() <= 1, "it is told once");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn stall_after(mut self, time: Duration) -> Self {
        self.stall_after = time;
        self
    }

    /// Sets what is done about a worker that has stalled. [`OnStall::Continue`] by default.
    pub fn on_stall(mut self, policy: OnStall) -> Self {
        self.on_stall = policy;
        self
    }
}

impl TaskOptions {
    /// Sets how long the task may run; see [`Builder::task_timeout`]. [`Duration::MAX`] is no limit.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use epilogue_pool::{Pool, TaskError, TaskOptions};
    ///
    /// let pool = Pool::new(1)?;
    /// let options = TaskOptions::new().timeout(Duration::from_millis(50));
    /// let task = pool.submit_with(&options, (), |()| loop {
    ///     std::thread::park();
    /// })?;
    /// assert!(matches!(task.join(), Err::<(), _>(TaskError::TimedOut)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.terms.timeout = Some(timeout);
        self
    }

    /// Sets when the task is asked to return; see [`Builder::soft_timeout`].
    pub fn soft_timeout(mut self, timeout: Duration) -> Self {
        self.terms.soft_timeout = Some(timeout);
        self
    }

    /// Sets how long the task may wait; see [`Builder::queue_timeout`].
    pub fn queue_timeout(mut self, timeout: Duration) -> Self {
        self.terms.queue_timeout = Some(timeout);
        self
    }

    /// Sets how long the task has to return, if it runs as it is [cancelled](crate::Task::cancel).
    /// Then its worker is ended; with [`Duration::ZERO`] that is at once. As long as it likes by
    /// default.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use epilogue_pool::{Pool, TaskError, TaskOptions};
    ///
    /// let pool = Pool::new(1)?;
    /// let options = TaskOptions::new().cancel_within(Duration::ZERO);
    /// let task = pool.submit_with(&options, (), |()| loop {
    ///     std::thread::park();
    /// })?;
    /// task.cancel();
    /// assert!(matches!(task.join(), Err::<(), _>(TaskError::Cancelled { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn cancel_within(mut self, time: Duration) -> Self {
        self.terms.cancel_within = Some(time);
        self
    }

    /// Declares the task to be idempotent; see [`Builder::retries`].
    pub fn retries(mut self, retries: u32) -> Self {
        self.terms.retries = Some(retries);
        self
    }
}

impl Pool {
    /// The workers that had something to do so far, and did not get on with it: the first hundred.
    pub fn stalls(&self) -> Vec<Stall> {
        let is_ours = self.shared().is_ours();
        if is_ours { self.shared().floor().report.stalls.clone() } else { Vec::new() }
    }

    /// Has the maps that are called on the result limit the time that each task may run; see
    /// [`Builder::task_timeout`](crate::Builder::task_timeout).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let pool = epilogue_pool::Pool::new(2)?;
    /// let limited = pool.task_timeout(Duration::from_secs(60)).retries(1);
    /// assert_eq!(limited.map(0..3u64, |x| x * x)?, [0, 1, 4]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn task_timeout(&self, timeout: Duration) -> Maps<'_> {
        self.maps().task_timeout(timeout)
    }

    /// As [`Pool::task_timeout`], but see [`Builder::soft_timeout`](crate::Builder::soft_timeout).
    pub fn soft_timeout(&self, timeout: Duration) -> Maps<'_> {
        self.maps().soft_timeout(timeout)
    }

    /// As [`Pool::task_timeout`], but see [`Builder::queue_timeout`](crate::Builder::queue_timeout).
    pub fn queue_timeout(&self, timeout: Duration) -> Maps<'_> {
        self.maps().queue_timeout(timeout)
    }

    /// As [`Pool::task_timeout`], but see [`Builder::retries`](crate::Builder::retries).
    ///
    /// # Examples
    ///
    /// ```
    /// use epilogue_pool::{Pool, TaskError};
    ///
    /// let pool = Pool::new(2)?;
    /// let outcomes = pool.retries(2).map_outcomes([0u64, 1], |x| match x {
    ///     0 => std::process::abort(),
    ///     x => x,
    /// })?;
    /// assert!(matches!(&outcomes[0], Err(TaskError::Poisoned(poisoned)) if poisoned.attempts == 3));
    /// assert!(matches!(outcomes[1], Ok(1)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn retries(&self, retries: u32) -> Maps<'_> {
        self.maps().retries(retries)
    }
}

impl Maps<'_> {
    /// As [`Pool::chunk_size`].
    pub fn chunk_size(mut self, chunk_size: usize) -> Self {
        self.chunk_size = std::num::NonZero::new(chunk_size);
        self
    }

    /// As [`Pool::task_timeout`].
    pub fn task_timeout(mut self, timeout: Duration) -> Self {
        self.terms.timeout = Some(timeout);
        self
    }

    /// As [`Pool::soft_timeout`].
    pub fn soft_timeout(mut self, timeout: Duration) -> Self {
        self.terms.soft_timeout = Some(timeout);
        self
    }

    /// As [`Pool::queue_timeout`].
    pub fn queue_timeout(mut self, timeout: Duration) -> Self {
        self.terms.queue_timeout = Some(timeout);
        self
    }

    /// As [`Pool::retries`].
    pub fn retries(mut self, retries: u32) -> Self {
        self.terms.retries = Some(retries);
        self
    }
}
