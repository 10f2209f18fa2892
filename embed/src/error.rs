//! Every way in which a request to this crate can fail.

use std::ffi::c_int;
use std::io;
use std::path::{Path, PathBuf};

use crate::sys::snapshot::SaveError;

/// Why a signal is not handled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignalError {
    /// The kernel lets no program handle this signal. Nothing has changed.
    #[error("signal {0} cannot be caught: only SIGKILL and SIGSTOP behave so, by design")]
    Uncatchable(c_int),
    /// There is no signal of this number, or the C library keeps it for itself, or this crate does
    /// (`SIGSTKFLT`, or `SIGPWR` where there is none). Nothing has changed.
    #[error("there is no signal {0} that a program may handle")]
    NoSuchSignal(c_int),
    /// The thread that runs the finalizers could not be started. Nothing has changed.
    #[error("cannot start the thread that runs finalizers")]
    Thread(#[source] io::Error),
    /// The kernel refused the handler. The disposition is what it was.
    #[error("cannot install a handler for signal {signal}")]
    Install {
        /// The signal.
        signal: c_int,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Why the coverage data was not saved. What was saved before is still there.
#[derive(Debug, thiserror::Error)]
#[error("cannot save coverage data to {}: {step} failed", path.display())]
pub struct FlushError {
    path: PathBuf,
    step: &'static str,
    source: io::Error,
}

impl FlushError {
    pub(crate) fn new(path: PathBuf, error: SaveError) -> Self {
        Self { path, step: error.step, source: error.errno.into() }
    }

    /// The file that was to be written.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the system said.
    pub fn io_error(&self) -> &io::Error {
        &self.source
    }
}
