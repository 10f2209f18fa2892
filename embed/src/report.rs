//! What became of the finalizers: the proof that a cleanup hands back.

use std::borrow::Cow;

use crate::error::FlushError;

/// How one finalizer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// It returned.
    Ran,
    /// It panicked. The others had their turn.
    Panicked {
        /// What it panicked with.
        message: String,
    },
    /// It had not returned when the time of all finalizers was over. It was left behind.
    TimedOut,
    /// It was never started: the time was over, or a second `SIGINT` asked to skip what is left.
    Skipped,
}

/// One finalizer's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinalizerEnd {
    name: Cow<'static, str>,
    outcome: Outcome,
}

impl FinalizerEnd {
    pub(crate) fn new(name: Cow<'static, str>, outcome: Outcome) -> Self {
        Self { name, outcome }
    }

    /// The name it was registered with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it ended.
    pub fn outcome(&self) -> &Outcome {
        &self.outcome
    }
}

/// What [`cleanup`](crate::cleanup) did.
#[derive(Debug, Default)]
pub struct Cleanup {
    finalizers: Vec<FinalizerEnd>,
    not_saved: Option<FlushError>,
}

impl Cleanup {
    pub(crate) fn new(finalizers: Vec<FinalizerEnd>, saved: Result<(), FlushError>) -> Self {
        Self { finalizers, not_saved: saved.err() }
    }

    /// The end of each finalizer that this cleanup found registered, in the order they ran.
    pub fn finalizers(&self) -> &[FinalizerEnd] {
        &self.finalizers
    }

    /// Why the coverage data could not be saved, if it could not.
    pub fn flush_error(&self) -> Option<&FlushError> {
        self.not_saved.as_ref()
    }

    /// True if every finalizer returned and the coverage data, if there is any, was saved; also where the
    /// cleanup did nothing, as in a finalizer.
    pub fn is_complete(&self) -> bool {
        let ran = |end: &FinalizerEnd| *end.outcome() == Outcome::Ran;
        self.not_saved.is_none() && self.finalizers.iter().all(ran)
    }
}
