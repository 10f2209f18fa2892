//! The proof of an ending: how a child ended, and what ran in it as it did.

use std::fmt;

use epilogue_embed::{FinalizerEnd, Outcome};
use serde::{Deserialize, Serialize};

use crate::codec::{Limits, encode};
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
    /// The finalizers that ran in it, in their order. None if it ended before it could tell. Of
    /// very many only the first are listed, 16 KiB of them; each text is cut after 1 KiB.
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

/// The longest goodbye, in bytes: the report of a pool keeps a thousand. A child that sends a longer one
/// has broken the protocol.
pub(crate) const MAX_GOODBYE: usize = 16 << 10;

/// The longest name of a finalizer that is told, and the longest failure, in bytes.
const LONGEST_TEXT: usize = 1 << 10;

/// The last that a child tells of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Goodbye {
    pub(crate) finalizers: Vec<Finalizer>,
    pub(crate) peak_memory: Option<u64>,
    /// What it had started and has ended, where that was asked for.
    pub(crate) tree: Option<TreeEnd>,
}

impl Goodbye {
    /// As it travels: with as many of its finalizers as there is room for. None if it cannot be encoded.
    pub(crate) fn into_bytes(mut self) -> Option<Vec<u8>> {
        let limits = Limits { max_bytes: MAX_GOODBYE, ..Limits::default() };
        loop {
            let mut bytes = Vec::new();
            match encode(&self, &mut bytes, &limits) {
                Ok(()) => return Some(bytes),
                Err(_) if self.finalizers.is_empty() => return None,
                Err(_) => self.finalizers.truncate(self.finalizers.len() * 3 / 4),
            }
        }
    }
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
        let cut = |mut text: String| {
            text.truncate(text.floor_char_boundary(LONGEST_TEXT));
            text
        };
        Self { name: cut(end.name().to_owned()), failure: failure.map(cut) }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::decode;

    fn goodbye(finalizers: usize) -> Goodbye {
        let ran = |n| Finalizer { name: format!("finalizer {n}"), failure: None };
        Goodbye { finalizers: (0..finalizers).map(ran).collect(), peak_memory: None, tree: None }
    }

    #[test]
    fn a_goodbye_has_the_first_finalizers_where_there_is_no_room_for_all() {
        for (count, fits) in [(0, true), (100, true), (10_000, false)] {
            let bytes = goodbye(count).into_bytes().unwrap();
            assert!(bytes.len() <= MAX_GOODBYE);
            let told: Goodbye = decode(&bytes, &Limits::default()).unwrap();
            assert_eq!(told.finalizers.len() == count, fits);
            assert_eq!(told.finalizers, goodbye(told.finalizers.len()).finalizers);
            assert!(fits || bytes.len() > MAX_GOODBYE / 2);
        }
    }
}
