//! What a program and its start server say to each other: one message each way at a time.

use serde::{Deserialize, Serialize};

use crate::codec::{Limits, decode, encode};
use crate::fault::Panic;

/// The longest message to a server, which uses its stack sparingly: a page that it writes after a
/// fork is copied.
pub(super) const DOWN: usize = 1024;
/// The longest message of a server: the story of a panic.
pub(super) const UP: usize = 16 * 1024;
/// How much of a title, or of each text in an answer, is sent.
pub(super) const TEXT: usize = 256;

/// The first message: what the server shall be. No descriptors.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Opening {
    /// The same as in the variable, which proves that socket and variable belong together.
    pub(super) token: u64,
    pub(super) fingerprint: u64,
    /// The function to call before the first fork.
    pub(super) preload: Option<u64>,
    /// What `ps` shows.
    pub(super) title: Vec<u8>,
}

/// The answer to it.
pub(super) type Opened = Result<(), Unable>;

/// Why a server cannot serve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Unable {
    OtherBuild,
    Preload(Panic),
    Threads(usize),
    Descriptors(Vec<i32>),
    Step { step: String, error: String },
}

/// Asks a server for a spare child. With it comes the environment, if that has changed since the
/// last request.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) environment: bool,
}

/// The answer to it: the pid, with the pidfd and the socket that takes its order, or the error's
/// number.
pub(super) type Answer = Result<i32, i32>;

/// What a spare child shall be. With it come its wire, its claims, then what the fields tell of.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Assignment {
    /// What the child finds in its first frame.
    pub(super) token: u64,
    /// What `ps` shows.
    pub(super) title: Vec<u8>,
    /// Whether it has a process group of its own.
    pub(super) own_group: bool,
    pub(super) streams: [Stream; 3],
    pub(super) directory: bool,
    /// Whether its environment is another than the server's was.
    pub(super) environment: bool,
}

impl Assignment {
    /// How many descriptors come along.
    pub(super) fn count(&self) -> usize {
        let given = self.streams.iter().filter(|stream| **stream == Stream::Given).count();
        2 + given + usize::from(self.directory) + usize::from(self.environment)
    }
}

/// What a standard stream of the child is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Stream {
    Null,
    Given,
    /// The program has none.
    Closed,
}

pub(super) fn pack<T: Serialize>(message: &T) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    encode(message, &mut bytes, &Limits::default()).ok()?;
    Some(bytes)
}

pub(super) fn unpack<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    decode(bytes, &Limits::default()).ok()
}
