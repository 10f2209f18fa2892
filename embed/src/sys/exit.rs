//! The C library's way out: a hook that runs at `exit`, and leaving without one.

use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the hook is in the C library's list, which `fork` copies.
static HOOKED: AtomicBool = AtomicBool::new(false);

/// Has `hook` run once when this process exits normally. Later calls do nothing.
pub(crate) fn at_exit_once(hook: extern "C" fn()) {
    if HOOKED.swap(true, Ordering::AcqRel) {
        return;
    }
    // SAFETY: `hook` is a function of this image, callable on any thread, and does not unwind.
    let refused = unsafe { libc::atexit(hook) };
    // Out of memory is the only refusal; the next call tries again.
    HOOKED.store(refused == 0, Ordering::Release);
}

/// Leaves at once: no hook of the C library runs.
pub(crate) fn exit_at_once(code: libc::c_int) -> ! {
    // SAFETY: `_exit` has no precondition.
    unsafe { libc::_exit(code) }
}
