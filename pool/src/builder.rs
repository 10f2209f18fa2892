//! How a pool is started, where the defaults are not enough.

use std::num::NonZero;
use std::thread;
use std::time::Duration;

use epilogue_process::child::Spec;
use epilogue_process::{Limits, StartMethod};

use crate::error::BuildError;
use crate::pool::Pool;

/// Sets how a pool is started. Nothing starts before [`Builder::start`].
#[derive(Debug, Clone)]
#[must_use = "a builder starts nothing by itself"]
pub struct Builder {
    pub(crate) workers: usize,
    pub(crate) spec: Spec,
    pub(crate) chunk_size: Option<NonZero<usize>>,
}

impl Default for Builder {
    fn default() -> Self {
        let workers = thread::available_parallelism().map_or(1, NonZero::get);
        Self { workers, spec: Spec::named("pool"), chunk_size: None }
    }
}

impl Builder {
    /// Sets how many workers there are. As many as this process may use CPUs by default.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// Sets the pool's name, which `ps` shows in those of its workers. `pool` by default.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.spec.name = name.into();
        self
    }

    /// Sets how long a worker has to stop before it is killed. Five seconds by default.
    ///
    /// Tasks that are finished, as on [`Pool::close`], take as long as they take: the time counts
    /// from when a worker has nothing left to do, or has been asked to stop. With none at all every
    /// worker is killed as it leaves, and its finalizers may not run.
    pub fn grace_period(mut self, grace_period: Duration) -> Self {
        self.spec.grace_period = grace_period.min(Spec::LONGEST);
        self
    }

    /// Sets how long a worker has to start. Ten seconds by default.
    pub fn start_deadline(mut self, start_deadline: Duration) -> Self {
        self.spec.start_deadline = start_deadline.min(Spec::LONGEST);
        self
    }

    /// Sets what may be sent either way: sizes in bytes, depths of nesting.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.spec.limits = limits;
        self
    }

    /// Sets how many items of a map go to a worker together. Without it, or with 0, as many as take
    /// about a tenth of a millisecond: the first go alone, and those that follow by how long these
    /// took.
    ///
    /// A worker takes the next item of its chunk when it is done with the one before, and an idle
    /// worker takes over what a busy one has not begun, so a chunk that takes long holds up nothing.
    /// What a chunk costs is that its items are all taken from the iterator before the first is
    /// done: one whose next item depends on what became of the last needs a size of 1.
    pub fn chunk_size(mut self, chunk_size: usize) -> Self {
        self.chunk_size = NonZero::new(chunk_size);
        self
    }

    /// Sets how the workers begin. [`StartMethod::Spawn`] by default.
    pub fn start_method(mut self, start_method: StartMethod) -> Self {
        self.spec.start_method = start_method;
        self
    }

    /// Has `load` called once in the start server, before its first fork: what it leaves in memory,
    /// in a static, all workers share copy on write. Implies [`StartMethod::Server`].
    ///
    /// It runs in the server, not here, at the first start with it, which takes as long as it does
    /// and may have to set [`Builder::start_deadline`] for that. If it panics, or leaves threads or
    /// descriptors behind, that start fails.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::OnceLock;
    /// use epilogue_pool::Pool;
    ///
    /// static MODEL: OnceLock<Vec<u64>> = OnceLock::new();
    ///
    /// fn load() {
    ///     MODEL.get_or_init(|| (0..1000).map(|n| n * n).collect());
    /// }
    ///
    /// let pool = Pool::builder().workers(2).preload(load).start()?;
    /// let squares: Vec<u64> = pool.map(0..1000usize, |n| MODEL.get().map_or(0, |all| all[n]))?;
    /// assert_eq!(squares[9], 81);
    /// # pool.close()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn preload(mut self, load: fn()) -> Self {
        self.spec.preload = Some(load);
        self.spec.start_method = StartMethod::Server;
        self
    }

    /// Starts the pool.
    ///
    /// When this returns, every worker has been started and the first is up.
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
}
