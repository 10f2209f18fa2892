//! Everything this process remembers about its own end, made at the first call.

use std::ffi::c_int;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use libc::pid_t;

use crate::deadline::Deadline;
use crate::gate::Gate;
use crate::registry::Registry;
use crate::stop::Callbacks;
use crate::sys::per_process::PerProcess;

/// The state of one process. A copy made by `fork` gets an empty one.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) registry: Registry,
    pub(crate) gate: Gate,
    pub(crate) deadline: Deadline,
    pub(crate) stop: Callbacks,
    /// The thread that was first to leave by [`exit`](crate::exit()), and its code.
    pub(crate) leaving: OnceLock<(pid_t, c_int)>,
}

static STATE: PerProcess<State> = PerProcess::new();

/// This process's state.
pub(crate) fn state() -> &'static State {
    STATE.get_or_init(State::default)
}

/// Enters `mutex` even where a thread panicked inside: an ending must go on.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
