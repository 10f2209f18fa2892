//! What a process gives up before any code of its user's runs in it.
//!
//! A child puts the sandbox on itself, after all that it needs for that has been opened and before
//! it starts its first thread: no new privileges, then Landlock, which before Linux 7.0 restricts
//! the calling thread alone, then the filter of system calls, which would forbid the others.
//!
//! # Invariants
//! 1. Nothing is taken back: what a process has given up, its threads and its children have, too.
//! 2. How far it went is told with the hello, by the child itself, which has run its initializer by then: a
//!    hostile initializer can have more told than there is.
//! 3. A sandbox that is required and not whole is a refusal, before any code of the user's runs in the child.

#[cfg(feature = "seccomp")]
mod calls;
#[cfg(feature = "landlock")]
mod confine;
#[cfg(feature = "seccomp")]
mod filter;

use std::ffi::OsString;
#[cfg(feature = "landlock")]
use std::path::PathBuf;

use nix::sys::prctl;
use serde::{Deserialize, Serialize};

use crate::boot::{Refusal, step};

/// What a process gives up as it starts, whatever code then runs in it.
///
/// Passed to `sandbox` of a builder. By itself it forbids new privileges: no program that the
/// process executes has more rights than it (setuid, file capabilities). Each further layer is a
/// feature of this crate.
///
/// | layer | feature | what is left to the process |
/// |---|---|---|
/// | [`Sandbox::new`] | | what its user may do, and no more |
/// | `Sandbox::confine` | `landlock` | no file but those allowed, no `connect` to a TCP port and no `bind` but those allowed, no signal and no abstract socket beyond its own children |
/// | `Sandbox::compute_only` | `seccomp` | the system calls of a computation: no new process or program, no socket, and, unless paths are allowed, no file, but for what `stat` tells of it |
///
/// It is put on before the first thread of the process, its initializer included. What the
/// process needs from outside comes with its argument, as [`SharedSlice`](crate::SharedSlice), or
/// by `preload`, which runs in the start server.
///
/// A layer that the kernel does not have is left out, and the process's
/// [`SandboxLevel`] says so; with [`Sandbox::required`] the process is not started then.
///
/// # Examples
///
/// ```
/// use epilogue_process::{Enforcement, Process, Sandbox};
///
/// let process = Process::builder().sandbox(Sandbox::new().required()).start(2u64, |n| n * n)?;
/// let level = process.sandbox().expect("it has one");
/// assert_eq!(level.landlock, Enforcement::NotAsked);
/// assert_eq!(process.join()?, 4);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[must_use = "a sandbox holds only what it is passed to"]
pub struct Sandbox {
    confined: Option<Allowed>,
    calls: Calls,
    demand: Demand,
}

/// What a confined process may reach all the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Allowed {
    paths: Vec<(PathUse, OsString)>,
    ports: Vec<(PortUse, u16)>,
}

#[cfg(feature = "seccomp")]
impl Allowed {
    /// Whether any path may be used.
    fn paths(&self) -> bool {
        !self.paths.is_empty()
    }

    /// Whether any port may be used so.
    fn ports(&self, port_use: PortUse) -> bool {
        self.ports.iter().any(|(it, _)| *it == port_use)
    }
}

/// What may be done below a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum PathUse {
    Read,
    Write,
    Execute,
}

/// What may be done with a TCP port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum PortUse {
    Bind,
    Connect,
}

/// Which system calls are left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Calls {
    #[default]
    All,
    Computing,
}

/// What happens where a layer cannot be had.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Demand {
    #[default]
    BestEffort,
    Required,
}

/// How much of a sandbox the kernel enforces.
///
/// The process tells it when it is up: `Process::sandbox`, and [`End::sandbox`](crate::End::sandbox), have
/// it. Its initializer has run by then, and is of the same process: a hostile one can tell more than
/// there is. By [`Sandbox::required`] a process that lacks some of it ends before its initializer runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SandboxLevel {
    /// Files, TCP ports, signals and abstract sockets: `Sandbox::confine`.
    pub landlock: Enforcement,
    /// System calls: `Sandbox::compute_only`.
    pub seccomp: Enforcement,
}

/// How much of one layer the kernel enforces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Enforcement {
    /// The sandbox does not have this layer.
    NotAsked,
    /// All of it.
    Full,
    /// A part of it: what is missing.
    Partial(String),
    /// Nothing of it: why.
    Absent(String),
}

impl SandboxLevel {
    /// Whether all that the sandbox has is enforced.
    ///
    /// ```
    /// use epilogue_process::{Process, Sandbox};
    ///
    /// let process = Process::builder().sandbox(Sandbox::new()).start((), |()| ())?;
    /// assert!(process.sandbox().is_some_and(|level| level.is_full()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn is_full(&self) -> bool {
        let whole =
            |layer: &Enforcement| matches!(layer, Enforcement::NotAsked | Enforcement::Full);
        whole(&self.landlock) && whole(&self.seccomp)
    }
}

impl Sandbox {
    /// A sandbox that forbids new privileges, and nothing else yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Does not start a process whose sandbox the kernel does not enforce as a whole. Without
    /// this, it starts with as much as there is.
    pub fn required(mut self) -> Self {
        self.demand = Demand::Required;
        self
    }
}

/// Landlock.
#[cfg(feature = "landlock")]
impl Sandbox {
    /// Lets the process open no file, connect no TCP socket and bind none, and signal no process but
    /// those that it started itself. What it has open it keeps, and `/dev/null`.
    ///
    /// Names, sizes and dates of files can still be looked up, and until Linux 7.0 sockets with a
    /// path and UDP can be used. TCP ports can be reached in ways for which Landlock is not asked:
    /// by data that connects as it is sent (`MSG_FASTOPEN`), and by protocols that go on as TCP
    /// (Multipath TCP, SMC); and a socket that listens and was never bound has a port that the kernel
    /// chose. `compute_only` forbids those, too, but for the look at files, and for the last where a port
    /// may be bound.
    ///
    /// # Examples
    ///
    /// ```
    /// use epilogue_process::{Process, Sandbox};
    ///
    /// let sandbox = Sandbox::new().confine();
    /// let process = Process::builder().sandbox(sandbox).start((), |()| {
    ///     std::fs::read("/etc/passwd").map_err(|error| error.to_string())
    /// })?;
    /// # let full = process.sandbox().is_some_and(|level| level.is_full());
    /// let read = process.join()?;
    /// # if full {
    /// assert_eq!(read, Err("Permission denied (os error 13)".to_owned()));
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn confine(mut self) -> Self {
        self.allowed();
        self
    }

    /// Lets a confined process read what is at `path`, or below it. It has to exist when the
    /// process starts. Implies [`Sandbox::confine`].
    pub fn allow_read(self, path: impl Into<PathBuf>) -> Self {
        self.allow_path(PathUse::Read, path.into())
    }

    /// Lets a confined process read, write, create and remove what is at `path`, or below it. It
    /// has to exist when the process starts. Implies [`Sandbox::confine`].
    ///
    /// For the coverage data of the process, allow the directory of `LLVM_PROFILE_FILE`.
    pub fn allow_write(self, path: impl Into<PathBuf>) -> Self {
        self.allow_path(PathUse::Write, path.into())
    }

    /// Lets a confined process read and execute what is at `path`, or below it: a program needs
    /// its libraries, too. `compute_only` forbids it all the same. Implies [`Sandbox::confine`].
    pub fn allow_execute(self, path: impl Into<PathBuf>) -> Self {
        self.allow_path(PathUse::Execute, path.into())
    }

    /// Lets a confined process connect to this TCP port, of any host. Implies
    /// [`Sandbox::confine`].
    pub fn allow_connect(mut self, port: u16) -> Self {
        self.allowed().ports.push((PortUse::Connect, port));
        self
    }

    /// Lets a confined process listen on this TCP port. With any, it can listen on one that the kernel
    /// chooses as well, also if it is `compute_only`. Implies [`Sandbox::confine`].
    pub fn allow_bind(mut self, port: u16) -> Self {
        self.allowed().ports.push((PortUse::Bind, port));
        self
    }

    fn allow_path(mut self, path_use: PathUse, path: PathBuf) -> Self {
        self.allowed().paths.push((path_use, path.into_os_string()));
        self
    }

    fn allowed(&mut self) -> &mut Allowed {
        self.confined.get_or_insert_default()
    }
}

/// seccomp.
#[cfg(feature = "seccomp")]
impl Sandbox {
    /// Leaves the process the system calls of a computation: memory, threads, clocks, timers,
    /// pipes, what it has open, and its end. All others fail with `EPERM`.
    ///
    /// So it starts no process, executes no program, makes no socket, signals nobody but itself,
    /// and looks into no other process. It opens files only if paths are allowed by Landlock, and
    /// makes TCP sockets only if ports are: to connect or to listen, as they are.
    ///
    /// What `stat` tells of a file it can still look up by path: whether it is there, its size, owner,
    /// rights and dates, in `/proc` as well. C libraries and Rust's own ask for that of what is open
    /// by calls that take a path, and no filter sees whether it is empty.
    ///
    /// On x86-64, AArch64 and RISC-V.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::process::Command;
    /// use epilogue_process::{Process, Sandbox};
    ///
    /// let sandbox = Sandbox::new().compute_only().required();
    /// let process = Process::builder().sandbox(sandbox).start((), |()| {
    ///     Command::new("/bin/true").status().is_err()
    /// })?;
    /// assert!(process.join()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn compute_only(mut self) -> Self {
        self.calls = Calls::Computing;
        self
    }
}

impl Sandbox {
    /// Puts it on this process, for good. The calling thread should be the only one.
    pub(crate) fn put_on(&self) -> Result<SandboxLevel, Refusal> {
        step("forbidding new privileges", prctl::set_no_new_privs())?;
        let landlock = self.confine_self()?;
        self.check("confining the process by Landlock", &landlock)?;
        let seccomp = self.filter_calls();
        self.check("filtering system calls by seccomp", &seccomp)?;
        Ok(SandboxLevel { landlock, seccomp })
    }

    /// A layer that is missing is a refusal where it is required.
    fn check(&self, name: &str, layer: &Enforcement) -> Result<(), Refusal> {
        match (self.demand, layer) {
            (Demand::Required, Enforcement::Partial(why) | Enforcement::Absent(why)) => {
                step(name, Err(why))
            }
            (Demand::Required, Enforcement::NotAsked | Enforcement::Full)
            | (Demand::BestEffort, _) => Ok(()),
        }
    }

    fn confine_self(&self) -> Result<Enforcement, Refusal> {
        match &self.confined {
            None => Ok(Enforcement::NotAsked),
            #[cfg(feature = "landlock")]
            Some(allowed) => confine::confine(allowed),
            #[cfg(not(feature = "landlock"))]
            Some(_) => Ok(Enforcement::Absent("this build has no Landlock".to_owned())),
        }
    }

    fn filter_calls(&self) -> Enforcement {
        match self.calls {
            Calls::All => Enforcement::NotAsked,
            #[cfg(feature = "seccomp")]
            Calls::Computing => {
                match filter::install(self.confined.as_ref().unwrap_or(&Allowed::default())) {
                    Ok(()) => Enforcement::Full,
                    Err(error) => Enforcement::Absent(error.to_string()),
                }
            }
            #[cfg(not(feature = "seccomp"))]
            Calls::Computing => Enforcement::Absent("this build has no seccomp".to_owned()),
        }
    }
}
