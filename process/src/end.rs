//! The proof of an ending: how a child ended, and what ran in it as it did.

use std::fmt;

use epilogue_embed::{FinalizerEnd, Outcome};
use serde::{Deserialize, Serialize};

use crate::sandbox::SandboxLevel;
use crate::status::ExitStatus;
use crate::stop::Rung;
use crate::tree::TreeEnd;
use crate::usage::Usage;

/// How a process ended.
///
/// # Examples
///
/// ```
/// use epilogue_process::{Process, Rung};
///
/// let builder = Process::builder().initializer(|| drop(epilogue_embed::finalizer("flush", || {})));
/// let process: Process<()> = builder.start((), |()| loop { std::thread::park() })?;
/// let end = process.terminate()?;
/// assert_eq!(end.rung, Rung::Stop);
/// let ran = end.finalizers.unwrap_or_default();
/// assert!(ran.iter().any(|finalizer| finalizer.name == "flush" && finalizer.failure.is_none()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct End {
    /// Its exit status.
    pub status: ExitStatus,
    /// How far up the ladder it had to be taken.
    pub rung: Rung,
    /// Whether the kernel killed it for want of memory, as far as its cgroup tells.
    pub out_of_memory: bool,
    /// What it had used of the machine, unless other code of this program has taken its status.
    pub usage: Option<Usage>,
    /// What became of the processes that it had started, if they were to end with it.
    pub tree: Option<TreeEnd>,
    /// How much of its sandbox the kernel enforced, if it had one.
    pub sandbox: Option<SandboxLevel>,
    /// The finalizers that ran in it, in their order, if it could still tell.
    pub finalizers: Option<Vec<Finalizer>>,
}

impl End {
    /// Whether the process exited with code 0.
    pub fn success(&self) -> bool {
        self.status.success()
    }
}

/// What became of one finalizer of a child.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Finalizer {
    /// The name that it was registered by.
    pub name: String,
    /// Why it did not run to its end, if it did not.
    pub failure: Option<String>,
}

/// The last that a child tells of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Goodbye {
    pub(crate) finalizers: Vec<Finalizer>,
    pub(crate) peak_memory: Option<u64>,
    /// What it had started and has ended, where that was asked for.
    pub(crate) tree: Option<TreeEnd>,
}

impl From<&FinalizerEnd> for Finalizer {
    fn from(end: &FinalizerEnd) -> Self {
        let failure = match end.outcome() {
            Outcome::Ran => None,
            Outcome::Panicked { message } => Some(format!("panicked: {message}")),
            Outcome::TimedOut => Some("did not return in time".to_owned()),
            Outcome::Skipped => Some("was not started in time".to_owned()),
            other => Some(format!("{other:?}")),
        };
        Self { name: end.name().to_owned(), failure }
    }
}

impl fmt::Display for Finalizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.failure {
            None => f.write_str(&self.name),
            Some(failure) => write!(f, "{} ({failure})", self.name),
        }
    }
}
