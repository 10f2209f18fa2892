//! How a process is started, where the defaults are not enough.

use std::time::Duration;

use crate::child::{Spec, Stream};
use crate::error::StartError;
use crate::portable::Portable;
use crate::process::Process;
use crate::setters;
use crate::stdio::Stdio;

/// Sets how a process is started. Nothing starts before [`Builder::start`].
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use epilogue_process::Process;
///
/// let careful = Process::builder().name("careful").grace_period(Duration::from_secs(1)).nice(5);
/// let first = careful.clone().start(1u64, |x| x + 1)?;
/// let second = careful.start("b".to_owned(), |name| format!("a{name}"))?;
/// assert_eq!((first.join()?, second.join()?), (2, "ab".to_owned()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
#[must_use = "a builder starts nothing by itself"]
pub struct Builder {
    spec: Spec,
}

setters! {
    Builder, of "the process", "epilogue_process", "Process", ".start"
}

impl Builder {
    /// Sets the name that `ps` shows, after that of the program. `process` by default.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.spec.name = name.into();
        self
    }

    /// Sets how long the process has to stop before it is killed. Five seconds by default.
    ///
    /// One that is asked to stop is sent `SIGTERM` after half of that time, and killed after all of
    /// it. One whose function has returned has that time to leave; at its end it is sent `SIGTERM`,
    /// and killed after half as long again. Its finalizers have three fifths of the time together
    /// at most, unless it sets a deadline itself. With no time at all it is killed as it leaves,
    /// and its finalizers may not run.
    pub fn grace_period(mut self, grace_period: Duration) -> Self {
        self.spec.grace_period = grace_period.min(Spec::LONGEST);
        self
    }

    /// Sets the standard input of the process. [`Stdio::Null`] by default.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::fs::File;
    /// use std::io::Read;
    /// use epilogue_process::Process;
    ///
    /// let process = Process::builder().stdin(File::open("/dev/null")?).start((), |()| {
    ///     let mut text = String::new();
    ///     std::io::stdin().read_to_string(&mut text).is_ok() && text.is_empty()
    /// })?;
    /// assert!(process.join()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn stdin(mut self, stdin: impl Into<Stdio>) -> Self {
        self.spec.set_stream(Stream::Input, stdin.into());
        self
    }

    /// Starts a process that calls `f` with `argument`.
    ///
    /// When this returns, the process is up, its initializer has run, and it has its argument.
    ///
    /// # Errors
    ///
    /// [`StartError`]; then nothing of the process is left.
    ///
    /// # Examples
    ///
    /// ```
    /// use epilogue_process::Process;
    ///
    /// let process = Process::builder()
    ///     .name("careful")
    ///     .env("TZ", "UTC")
    ///     .limit_cpu(60)
    ///     .start((1u64, 2u64), |(a, b)| a + b)?;
    /// assert_eq!(process.join()?, 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn start<T: Portable, R: Portable>(
        self,
        argument: T,
        f: fn(T) -> R,
    ) -> Result<Process<R>, StartError> {
        Process::start_with(&self.spec, argument, f)
    }
}

// On one type only, so that `Process::builder()` needs no annotation.
impl Process<()> {
    /// Sets how the process is started: its name, its times, its limits.
    pub fn builder() -> Builder {
        Builder { spec: Spec::named("process") }
    }
}
