//! How a pool is started, where the defaults are not enough.

use std::num::NonZero;
use std::thread;
use std::time::Duration;

use epilogue_process::child::Spec;
use epilogue_process::setters;

use crate::error::BuildError;
use crate::pool::Pool;
use crate::stall::OnStall;
use crate::terms::Terms;
use crate::vigil::Vigil;

/// Sets how a pool is started. Nothing starts before [`Builder::start`].
#[derive(Debug, Clone)]
#[must_use = "a builder starts nothing by itself"]
pub struct Builder {
    pub(crate) workers: usize,
    pub(crate) spec: Spec,
    pub(crate) chunk_size: Option<NonZero<usize>>,
    pub(crate) terms: Terms,
    /// How many deaths within which time are not yet too many.
    pub(crate) intensity: Option<(usize, Duration)>,
    pub(crate) stall_after: Duration,
    pub(crate) on_stall: OnStall,
}

impl Default for Builder {
    fn default() -> Self {
        let workers = thread::available_parallelism().map_or(1, NonZero::get);
        let (spec, terms) = (Spec::named("pool"), Terms::default());
        Self {
            workers,
            spec,
            chunk_size: None,
            terms,
            intensity: None,
            stall_after: Vigil::DEFAULT,
            on_stall: OnStall::default(),
        }
    }
}

setters! {
    Builder, of "each worker", "epilogue_pool", "Pool", ".workers(1).start()?.submit"
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
