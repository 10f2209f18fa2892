//! What a program and its start server say to each other: one message each way at a time.

use serde::{Deserialize, Serialize};

use crate::codec::{Limits, decode, encode};
use crate::fault::Panic;

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

/// An order for one child. Its descriptors follow in the order of [`Request::count`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request {
    /// What the child finds in its first frame.
    pub(super) token: u64,
    /// What `ps` shows.
    pub(super) title: Vec<u8>,
    pub(super) directory: bool,
    pub(super) output: bool,
    pub(super) error: bool,
    /// Whether the environment has changed since the last request.
    pub(super) environment: bool,
}

impl Request {
    /// How many descriptors come along: wire, claims, then what the flags say.
    pub(super) fn count(&self) -> usize {
        let flags = [self.directory, self.output, self.error, self.environment];
        2 + flags.into_iter().filter(|flag| *flag).count()
    }
}

/// The answer to it: the pid, with the pidfd, or the error's number.
pub(super) type Answer = Result<i32, i32>;

pub(super) fn pack<T: Serialize>(message: &T) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    encode(message, &mut bytes, &Limits::default()).ok()?;
    Some(bytes)
}

pub(super) fn unpack<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    decode(bytes, &Limits::default()).ok()
}
