//! The task that runs in this process, as it sees itself.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use epilogue_embed as embed;
use nix::time::{ClockId, clock_gettime};

use crate::ring;
use crate::sys::memory::SharedWords;

/// The memory that this process shares with its parent, if it is a child.
static RING: OnceLock<Arc<SharedWords>> = OnceLock::new();

/// The number of the call that runs, or that ran last.
static CURRENT: AtomicU64 = AtomicU64::new(0);

/// Whether the task that runs in this process has been asked to return.
///
/// True once its soft limit of time has passed, once it has been cancelled, and once the process has
/// been asked to stop, as by [`embed::stop_requested`]. It is false again as the next task begins.
/// Nothing else happens by itself: a task that returns has a value, whatever it is.
///
/// Any thread of the worker may ask, as often as it likes: it is a few loads from memory, of which one
/// is shared with the parent. In a process that runs no task this is [`embed::stop_requested`].
///
/// # Examples
///
/// ```
/// use epilogue_process::task;
///
/// let mut digits = 0;
/// while !task::should_stop() && digits < 1000 {
///     digits += 1;
/// }
/// assert_eq!(digits, 1000);
/// ```
#[inline]
pub fn should_stop() -> bool {
    embed::stop_requested() || RING.get().is_some_and(|ring| is_asked(ring))
}

fn is_asked(ring: &SharedWords) -> bool {
    match ring::stop_of(ring) {
        0 => false,
        // Asked too late it is the number of a call that has been answered.
        call => call == CURRENT.load(Ordering::Relaxed),
    }
}

/// This process answers calls that come by that memory.
pub(crate) fn serve(ring: Arc<SharedWords>) {
    let _ = RING.set(ring);
}

/// The number of the call that runs, or that ran last.
pub(crate) fn current() -> u64 {
    CURRENT.load(Ordering::Relaxed)
}

/// The call of this number begins.
pub(crate) fn begin(call: u64) {
    CURRENT.store(call, Ordering::Relaxed);
}

/// The time that parent and child agree on, in nanoseconds.
pub(crate) fn now() -> u64 {
    let now =
        clock_gettime(ClockId::CLOCK_MONOTONIC).map_or_else(|_| Default::default(), Into::into);
    u64::try_from(std::time::Duration::as_nanos(&now)).unwrap_or(u64::MAX)
}
