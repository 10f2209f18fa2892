//! What those who wait lock and sleep on, by one name: `tests/models` builds the same code over a model
//! of it.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};
pub(crate) use std::thread_local;
