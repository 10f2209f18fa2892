//! What of the ring is named, without its words.

use std::time::Duration;

pub use process::ring::{Bytes, Form, Listener, Reply};

/// Names a call in one worker's ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket(pub(crate) usize);

/// Looks once: a model has no clock.
#[derive(Debug, Default)]
pub struct Patience(());

impl Patience {
    pub const BUDGET: Duration = process::ring::Patience::BUDGET;

    pub fn look<T>(&mut self, mut found: impl FnMut() -> Option<T>) -> Option<T> {
        found()
    }
}
