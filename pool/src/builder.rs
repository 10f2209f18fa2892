//! How a pool is started, where the defaults are not enough.

use std::num::NonZero;
use std::time::Duration;

use epilogue_process::child::Spec;
use epilogue_process::link::Link;
use epilogue_process::setters;

use crate::available::available_workers;
use crate::ends::EndPolicies;
use crate::error::BuildError;
use crate::observer::Listeners;
use crate::pool::Pool;
use crate::recycling::{Growth, Recycling};
use crate::size::{Size, most_workers};
use crate::stall::OnStall;
use crate::terms::Terms;
use crate::vigil::Vigil;
use crate::worker::serve;

/// Sets how a pool is started. Nothing starts before [`Builder::start`].
#[derive(Debug, Clone)]
#[must_use = "a builder starts nothing by itself"]
pub struct Builder {
    workers: usize,
    min_workers: Option<usize>,
    idle_timeout: Option<Duration>,
    max_tasks: Option<usize>,
    growth: Growth,
    pub(crate) spec: Spec,
    pub(crate) chunk_size: Option<NonZero<usize>>,
    pub(crate) terms: Terms,
    /// How many deaths within which time are not yet too many.
    pub(crate) intensity: Option<(usize, Duration)>,
    pub(crate) stall_after: Duration,
    pub(crate) on_stall: OnStall,
    pub(crate) listeners: Listeners,
    /// The main function of a worker.
    pub(crate) main: fn(Link),
    pub(crate) on_end: EndPolicies,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            workers: available_workers(),
            min_workers: None,
            idle_timeout: None,
            max_tasks: None,
            growth: Growth::Any,
            spec: Spec::named("pool"),
            chunk_size: None,
            terms: Terms::default(),
            intensity: None,
            stall_after: Vigil::DEFAULT,
            on_stall: OnStall::default(),
            listeners: Listeners::default(),
            main: serve,
            on_end: EndPolicies::default(),
        }
    }
}

setters! {
    Builder, of "each worker", "epilogue_pool", "Pool", ".workers(1).start()?.submit"
}

impl Builder {
    /// Sets how many workers there are, or with [`Builder::min_workers`], how many there are at most.
    /// As many as [`available_workers`] by default.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// Lets the pool begin with so many workers, and start more as long as there are more tasks than
    /// workers, up to [`Builder::workers`]. Without it, all are started at once.
    ///
    /// Tasks that are done sooner than a worker could be started need none.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use epilogue_pool::Pool;
    ///
    /// let builder = Pool::builder().min_workers(1).workers(8).idle_timeout(Duration::from_secs(30));
    /// let pool = builder.start()?;
    /// assert_eq!(pool.map(0..100u64, |x| x + 1)?.len(), 100);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn min_workers(mut self, workers: usize) -> Self {
        self.min_workers = Some(workers);
        self
    }

    /// Lets workers leave that have had nothing to do for so long, as far as there are more than
    /// [`Builder::min_workers`]; it has no effect without that. By default those that were started
    /// stay.
    ///
    /// The pool looks for such workers once in that time, so one leaves after once to twice the
    /// time. An idle pool that has no more workers than it must have does not wake up at all.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = Some(timeout);
        self
    }

    /// Replaces each worker after so many tasks. Without it, a worker stays as long as the pool.
    ///
    /// No worker ever does more, and no task waits for a new one to start: that is started before
    /// the one whose place it takes is done, and stands by until that has left. So there is one
    /// process more for a while, for each worker that is about to leave, but no more tasks run at
    /// once than there are [workers](Builder::workers).
    ///
    /// With 0, [`Builder::start`] fails: [`BuildError::NoTasks`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::collections::HashSet;
    /// use epilogue_pool::Pool;
    ///
    /// let pool = Pool::builder().workers(1).max_tasks_per_worker(2).start()?;
    /// let pids: HashSet<u32> = pool.map(0..6, |_: u64| std::process::id())?.into_iter().collect();
    /// assert_eq!(pids.len(), 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn max_tasks_per_worker(mut self, tasks: usize) -> Self {
        self.max_tasks = Some(tasks);
        self
    }

    /// Replaces a worker whose memory has grown by more than so many bytes since it was up. Without
    /// it, memory is not looked at.
    ///
    /// The worker looks after a task, at most once in a millisecond, and nobody else does. What counts
    /// is what it has resident and shares with no file or memfd (`/proc/self/statm`). What its
    /// initializer has left counts as there before, and so does the state of a
    /// [`Local`](crate::Local). The next worker is started then; the one that has grown goes on until
    /// that is up, so it grows on for a moment. To be certain, set
    /// [`Builder::limit_memory`] above.
    pub fn max_memory_growth(mut self, bytes: u64) -> Self {
        self.growth = Growth::Bounded;
        self.spec.bound_growth(bytes);
        self
    }

    /// Sets the pool's name, which `ps` shows in those of its workers. `pool` by default.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.spec.name = name.into();
        self
    }

    /// Sets how long a worker has to stop before it is killed. Five seconds by default.
    ///
    /// One that is asked to stop is sent `SIGTERM` after half of that time, and killed after all of
    /// it. Where tasks are finished, as by [`Pool::close`], they take as long as they take: the
    /// time begins when a worker has nothing left to do; at its end it is sent `SIGTERM`, and
    /// killed after half as long again. Its finalizers have three fifths of the time together at
    /// most, unless it sets a deadline itself. With no time at all every worker is killed as it
    /// leaves, and its finalizers may not run.
    pub fn grace_period(mut self, grace_period: Duration) -> Self {
        self.spec.grace_period = grace_period.min(Spec::LONGEST);
        self
    }

    /// Sets how many items of a map go to a worker together, in one chunk; fewer where they come to
    /// 48 KiB before. Without it, or with 0, as many as take about a fifth of a millisecond, by how
    /// long those before took: the first go alone. Where tasks have a [limit of
    /// time](Builder::task_timeout), each item goes alone.
    ///
    /// A worker begins the items of its chunk one after the other, and an idle worker takes over
    /// those that a busy one has not begun, so a long chunk holds up little. But very short items
    /// are begun several at a time, as many as take about four microseconds and 256 at most; those
    /// are not taken over.
    ///
    /// All items of a chunk are taken from the iterator before the first of them is done. An
    /// iterator whose next item depends on what became of the last one needs a size of 1.
    pub fn chunk_size(mut self, chunk_size: usize) -> Self {
        self.chunk_size = NonZero::new(chunk_size);
        self
    }

    /// Starts the pool.
    ///
    /// When this returns, every worker has been started and the first is up; with
    /// [`Builder::min_workers`], so many have been started.
    ///
    /// # Errors
    ///
    /// [`BuildError`]; then nothing of the pool is left.
    ///
    /// # Examples
    ///
    /// ```
    /// use epilogue_pool::Pool;
    ///
    /// let pool = Pool::builder().workers(2).name("hash").start()?;
    /// println!("{}", pool.close()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn start(self) -> Result<Pool, BuildError> {
        Pool::start(self)
    }

    pub(crate) fn size(&self) -> Result<Size, BuildError> {
        let (min, max) = (self.min_workers.unwrap_or(self.workers), self.workers);
        // Found out now, not by the thousandth start.
        match most_workers() {
            _ if min == 0 || max == 0 => Err(BuildError::NoWorkers),
            _ if min > max => Err(BuildError::NoSize { min, max }),
            most if max > most => Err(BuildError::TooManyWorkers { workers: max, most }),
            _ => Ok(Size::new(min, max, self.idle_timeout)),
        }
    }

    pub(crate) fn recycling(&self) -> Result<Recycling, BuildError> {
        match self.max_tasks {
            Some(0) => Err(BuildError::NoTasks),
            most => Ok(Recycling::new(most.map(|most| most as u64), self.growth)),
        }
    }
}
