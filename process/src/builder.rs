//! How a process is started, where the defaults are not enough.

use std::time::Duration;

use crate::child::Spec;
use crate::codec::Limits;
use crate::error::StartError;
use crate::portable::Portable;
use crate::process::Process;
use crate::server::StartMethod;

/// Sets how a process is started. Nothing starts before [`Builder::start`].
#[derive(Debug, Clone, Default)]
#[must_use = "a builder starts nothing by itself"]
pub struct Builder {
    spec: Spec,
}

impl Builder {
    /// Sets the name that `ps` shows, after that of the program. `process` by default.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.spec.name = name.into();
        self
    }

    /// Sets how long the process has to stop before it is killed. Five seconds by default.
    pub fn grace_period(mut self, grace_period: Duration) -> Self {
        self.spec.grace_period = grace_period;
        self
    }

    /// Sets how long the process has to start. Ten seconds by default.
    pub fn start_deadline(mut self, start_deadline: Duration) -> Self {
        self.spec.start_deadline = start_deadline;
        self
    }

    /// Sets what may be sent either way: sizes in bytes, depths of nesting.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.spec.limits = limits;
        self
    }

    /// Sets how the process begins. [`StartMethod::Spawn`] by default.
    pub fn start_method(mut self, start_method: StartMethod) -> Self {
        self.spec.start_method = start_method;
        self
    }

    /// Has `load` called once in the start server, before its first fork: what it leaves in memory,
    /// in a static, all children of that server share copy on write. Implies [`StartMethod::Server`].
    ///
    /// It runs in the server, not here, at the first start with it, which takes as long as it does
    /// and may have to set [`Builder::start_deadline`] for that. If it panics, or leaves threads or
    /// descriptors behind, that start fails.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::OnceLock;
    /// use epilogue_process::Process;
    ///
    /// static MODEL: OnceLock<Vec<u64>> = OnceLock::new();
    ///
    /// fn load() {
    ///     MODEL.get_or_init(|| (0..1000).map(|n| n * n).collect());
    /// }
    ///
    /// let process = Process::builder().preload(load).start(9usize, |n| MODEL.get()?.get(n).copied())?;
    /// assert_eq!(process.join()?, Some(81));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn preload(mut self, load: fn()) -> Self {
        self.spec.preload = Some(load);
        self.spec.start_method = StartMethod::Server;
        self
    }

    /// Starts a process that calls `f` with `argument`.
    ///
    /// When this returns, the process is up and has its argument.
    ///
    /// # Errors
    ///
    /// [`StartError`]; then nothing of the process is left.
    ///
    /// # Examples
    ///
    /// ```
    /// let process = epilogue_process::Process::builder().name("adder").start((1, 2), |(a, b)| a + b)?;
    /// assert_eq!(process.join()?, 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn start<T: Portable, R: Portable>(
        self,
        argument: T,
        f: fn(T) -> R,
    ) -> Result<Process<R>, StartError> {
        Process::start_with(&self.spec, &argument, f)
    }
}

// On one type only, so that `Process::builder()` needs no annotation.
impl Process<()> {
    /// Sets how the process is started: its name, its times, its limits.
    pub fn builder() -> Builder {
        Builder { spec: Spec { name: "process".to_owned(), ..Spec::default() } }
    }
}
