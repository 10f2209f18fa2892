//! How a process ended.

use std::fmt;

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

/// How a process ended, as the kernel says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ExitStatus {
    /// It exited with this code.
    Exited(i32),
    /// A signal ended it.
    Signaled {
        /// The number of the signal.
        signal: i32,
        /// Whether the kernel wrote a core file.
        core_dumped: bool,
    },
    /// It ended, but somebody else in this program collected its status (`waitpid(-1)`, or an
    /// ignored `SIGCHLD`).
    Unknown,
}

impl ExitStatus {
    /// Whether the process exited with code 0.
    ///
    /// ```
    /// use epilogue_process::ExitStatus;
    ///
    /// assert!(ExitStatus::Exited(0).success());
    /// assert!(!ExitStatus::Signaled { signal: 9, core_dumped: false }.success());
    /// ```
    pub fn success(&self) -> bool {
        *self == Self::Exited(0)
    }

    /// The exit code, if the process exited.
    pub fn code(&self) -> Option<i32> {
        match *self {
            Self::Exited(code) => Some(code),
            Self::Signaled { .. } | Self::Unknown => None,
        }
    }

    /// The number of the signal that ended the process, if one did.
    pub fn signal(&self) -> Option<i32> {
        match *self {
            Self::Signaled { signal, .. } => Some(signal),
            Self::Exited(_) | Self::Unknown => None,
        }
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Exited(code) => write!(f, "exited with code {code}"),
            Self::Signaled { signal, core_dumped } => {
                match Signal::try_from(signal) {
                    Ok(name) => write!(f, "killed by {name}")?,
                    Err(_) => write!(f, "killed by signal {signal}")?,
                }
                if core_dumped { f.write_str(" (core dumped)") } else { Ok(()) }
            }
            Self::Unknown => f.write_str("ended, but its exit status was taken by other code"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ExitStatus;

    #[test]
    fn a_status_names_its_signal() {
        let aborted = ExitStatus::Signaled { signal: 6, core_dumped: true };
        assert_eq!(aborted.to_string(), "killed by SIGABRT (core dumped)");
        let real_time = ExitStatus::Signaled { signal: 40, core_dumped: false };
        assert_eq!(real_time.to_string(), "killed by signal 40");
    }
}
