//! What a call can answer instead of a value, as it travels from a child to its parent.

use std::error::Error;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::codec::{DecodeError, EncodeError};
use crate::panics;

/// Why a call that ran to its end has no value.
#[derive(Debug, Clone, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The function panicked.
    #[error("{0}")]
    Panicked(Panic),
    /// The function returned an error.
    #[error("{0}")]
    Failed(Failure),
    /// The argument could not be decoded in the child; the function was not called.
    #[error("the argument could not be decoded in the child: {0}")]
    Argument(DecodeError),
    /// The function returned, but its result could not be encoded.
    #[error("the result could not be encoded: {0}")]
    Result(EncodeError),
    /// The function returned, but its answer could not be decoded in the parent.
    #[error("the answer could not be decoded: {0}")]
    Reply(DecodeError),
    /// The child does not know the function that it was asked to call.
    #[error("the child does not know the function: it runs another build of this program")]
    NoSuchEntry,
}

/// A panic, as the process that it happened in described it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Panic {
    /// The message, or a note that the payload was not text.
    pub message: String,
    /// Where it happened, as `file:line:column`, unless a panic hook of the user's hid it.
    pub location: Option<String>,
    /// The backtrace, if the builder asked for it.
    pub backtrace: Option<String>,
}

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "panicked: {}", self.message)?;
        match &self.location {
            Some(location) => write!(f, " (at {location})"),
            None => Ok(()),
        }
    }
}

/// An error that a function returned: its message and those of its sources.
///
/// The error itself stays in the process that made it: most error types cannot travel. Of each
/// message the first 64 KiB are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    message: String,
    source: Option<Box<Failure>>,
}

impl Failure {
    /// The deepest chain of sources that is kept.
    const MAX_SOURCES: usize = 32;

    pub(crate) fn new(error: Box<dyn Error + Send + Sync>) -> Self {
        Self::of(&*error, Self::MAX_SOURCES)
    }

    fn of(error: &(dyn Error + 'static), depth: usize) -> Self {
        let source = error.source().filter(|_| depth > 0);
        Self {
            message: panics::cut(error.to_string()),
            source: source.map(|source| Box::new(Self::of(source, depth - 1))),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
