//! The words of a ring, by one name: `tests/models` builds the same code over a model of them.

pub(crate) use std::sync::atomic::{AtomicU64, Ordering, fence};
