//! How a process is started, where the defaults are not enough.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::child::{Grandchildren, Group, Spec};
use crate::codec::Limits;
use crate::entry::ForeignFunction;
use crate::error::StartError;
use crate::panics::Backtraces;
use crate::portable::Portable;
use crate::process::Process;
use crate::server::StartMethod;
use crate::setup::Limited;
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
    initializer: Option<fn()>,
}

/// What the process is.
impl Builder {
    /// Sets the name that `ps` shows, after that of the program. `process` by default.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.spec.name = name.into();
        self
    }

    /// Sets how long the process has to stop before it is killed. Five seconds by default.
    ///
    /// Also one that is done needs a part of it to leave: with none at all it is killed, and its
    /// finalizers may not run.
    pub fn grace_period(mut self, grace_period: Duration) -> Self {
        self.spec.grace_period = grace_period.min(Spec::LONGEST);
        self
    }

    /// Sets how long the process has to start. Ten seconds by default.
    pub fn start_deadline(mut self, start_deadline: Duration) -> Self {
        self.spec.start_deadline = start_deadline.min(Spec::LONGEST);
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

    /// Sets a function that runs in the process before that which it was started for. None by
    /// default.
    ///
    /// If it panics, the process is not started, and the error says with what.
    ///
    /// # Examples
    ///
    /// ```
    /// use epilogue_process::{Process, StartError};
    ///
    /// let fails = Process::builder().initializer(|| panic!("no licence"));
    /// let Err(StartError::Refused(why)) = fails.start((), |()| ()) else { panic!("it has started") };
    /// assert!(why.to_string().contains("no licence"));
    /// ```
    pub fn initializer(mut self, initializer: fn()) -> Self {
        self.initializer = Some(initializer);
        self
    }

    /// Lets a panic of the process be told with its backtrace. Off by default: resolving one
    /// takes about a tenth of a second.
    ///
    /// # Examples
    ///
    /// ```
    /// use epilogue_process::{JoinError, Process};
    ///
    /// let process = Process::builder().backtrace().start((), |()| -> u8 { panic!("here") })?;
    /// let Err(JoinError::Panicked(panic)) = process.join() else { panic!("it has not panicked") };
    /// assert!(panic.backtrace.is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn backtrace(mut self) -> Self {
        self.spec.setup.backtraces = Backtraces::On;
        self
    }
}

/// What the process finds around it.
impl Builder {
    /// Sets a variable of the process's environment. It inherits all of ours by default, as they
    /// are at the start.
    ///
    /// A name that is empty or holds `=`, and a zero byte in name or value, are an error at the
    /// start: [`StartError::BadVariable`].
    ///
    /// # Examples
    ///
    /// ```
    /// use epilogue_process::Process;
    ///
    /// let process = Process::builder().env("TZ", "UTC").start((), |()| std::env::var("TZ").ok())?;
    /// assert_eq!(process.join()?.as_deref(), Some("UTC"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.spec.environment.set(name.into(), Some(value.into()));
        self
    }

    /// Removes a variable from the process's environment.
    pub fn env_remove(mut self, name: impl Into<OsString>) -> Self {
        self.spec.environment.set(name.into(), None);
        self
    }

    /// Lets the process inherit no variables, and takes back those that were set so far.
    ///
    /// What names the file for coverage data (`LLVM_PROFILE_FILE`) is kept, or the process's data
    /// would be lost. To leave the process out of the measurement, set that to `/dev/null` after
    /// this: removed, it would mean a file in the current directory.
    pub fn env_clear(mut self) -> Self {
        self.spec.environment.clear();
        self
    }

    /// Sets the current directory of the process. Ours by default.
    ///
    /// # Examples
    ///
    /// ```
    /// use epilogue_process::Process;
    ///
    /// let process = Process::builder().current_dir("/").start((), |()| std::env::current_dir().ok())?;
    /// assert_eq!(process.join()?, Some("/".into()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn current_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.spec.setup.directory = Some(directory.into().into_os_string());
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
        self.spec.stdio[0] = stdin.into();
        self
    }

    /// Sets the standard output of the process. [`Stdio::Inherit`] by default.
    pub fn stdout(mut self, stdout: impl Into<Stdio>) -> Self {
        self.spec.stdio[1] = stdout.into();
        self
    }

    /// Sets the standard error of the process. [`Stdio::Inherit`] by default.
    pub fn stderr(mut self, stderr: impl Into<Stdio>) -> Self {
        self.spec.stdio[2] = stderr.into();
        self
    }

    /// Ends what the process starts itself (by `Command`, say) with it. It is the user's by
    /// default, and may outlive the process.
    ///
    /// What is left when the process has ended is sent `SIGTERM`, and killed when the grace period
    /// is over. A cgroup tells who belongs to it, where this program may make one; else a process
    /// group, which a grandchild can leave. [`End::tree`](crate::End::tree) says which it was.
    ///
    /// Whoever first sees that the process has ended waits for that, also
    /// [`Process::try_join`] and [`Process::is_finished`], which do not block otherwise.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::process::Command;
    /// use epilogue_process::Process;
    ///
    /// let process = Process::builder().end_tree().start((), |()| {
    ///     let _left_behind = Command::new("sleep").arg("1000").spawn();
    ///     std::thread::park()
    /// })?;
    /// let end = process.terminate()?;
    /// assert!(end.tree.is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn end_tree(mut self) -> Self {
        self.spec.group = Group::Own;
        self.spec.setup.grandchildren = Grandchildren::Ended;
        self
    }

    /// Gives the process a process group of its own. It is in ours by default.
    ///
    /// The terminal's signals then do not reach it, nor what it starts. But the terminal stops it
    /// when it reads there, and does not stop it with us on Ctrl-Z.
    pub fn own_process_group(mut self) -> Self {
        self.spec.group = Group::Own;
        self
    }
}

/// What the kernel holds the process to. Each is unlimited by default, or as this process is.
impl Builder {
    /// Limits the address space, in bytes. Beyond it an allocation fails, which aborts.
    ///
    /// # Examples
    ///
    /// ```
    /// use epilogue_process::Process;
    ///
    /// let process = Process::builder().limit_memory(256 << 20).limit_core(0).start((), |()| {
    ///     let mut bytes = Vec::<u8>::new();
    ///     bytes.try_reserve_exact(1 << 30).is_err()
    /// })?;
    /// assert!(process.join()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn limit_memory(self, bytes: u64) -> Self {
        self.limit(Limited::Memory, bytes)
    }

    /// Limits the CPU time, in seconds. Beyond it the process is killed.
    pub fn limit_cpu(self, seconds: u64) -> Self {
        self.limit(Limited::Cpu, seconds)
    }

    /// Limits the number of open descriptors. A process has four when its function
    /// begins (0, 1, 2 and its wire), and watches its parent by a fifth.
    pub fn limit_descriptors(self, descriptors: u64) -> Self {
        self.limit(Limited::Descriptors, descriptors)
    }

    /// Limits the size of files that the process writes, in bytes. Beyond it, it is killed by
    /// `SIGXFSZ`.
    pub fn limit_file_size(self, bytes: u64) -> Self {
        self.limit(Limited::FileSize, bytes)
    }

    /// Limits the size of the core file that the kernel writes if the process crashes, in bytes.
    pub fn limit_core(self, bytes: u64) -> Self {
        self.limit(Limited::Core, bytes)
    }

    /// Sets the nice value: from -20, favoured, to 19. Below ours it takes privileges.
    pub fn nice(mut self, nice: i32) -> Self {
        self.spec.setup.nice = Some(nice);
        self
    }

    /// Binds the process to these CPUs, by the kernel's numbers.
    ///
    /// # Examples
    ///
    /// ```
    /// use epilogue_process::{Process, StartError};
    ///
    /// let nowhere = Process::builder().cpu_affinity([]).start((), |()| ());
    /// assert!(matches!(nowhere, Err(StartError::Refused(_))));
    /// ```
    pub fn cpu_affinity(mut self, cpus: impl IntoIterator<Item = usize>) -> Self {
        self.spec.setup.cpus = Some(cpus.into_iter().collect());
        self
    }

    fn limit(mut self, limited: Limited, value: u64) -> Self {
        self.spec.setup.limits.push((limited, value));
        self
    }
}

impl Builder {
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
        Process::start_with(&self.spec()?, argument, f)
    }

    /// What was set, for owners of many children, who start each by
    /// [`Child::start`](crate::child::Child::start).
    ///
    /// # Errors
    ///
    /// [`ForeignFunction`] if the code of the initializer lies in another image than this crate.
    ///
    /// # Examples
    ///
    /// ```
    /// use epilogue_process::Process;
    ///
    /// let spec = Process::builder().name("worker").spec()?;
    /// assert_eq!(spec.name, "worker");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn spec(&self) -> Result<Spec, ForeignFunction> {
        let mut spec = self.spec.clone();
        spec.set_initializer(self.initializer)?;
        Ok(spec)
    }
}

// On one type only, so that `Process::builder()` needs no annotation.
impl Process<()> {
    /// Sets how the process is started: its name, its times, its limits.
    pub fn builder() -> Builder {
        Builder { spec: Spec::named("process"), initializer: None }
    }
}
