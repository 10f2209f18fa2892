//! The C library's way out: a hook that runs at `exit`, and leaving without one.

use std::ffi::c_int;
use std::mem::transmute;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};

use super::action;

/// Whether the hook is in the C library's list, which `fork` copies.
static HOOKED: AtomicBool = AtomicBool::new(false);

/// What an exit ends in, whatever it began with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Death by this signal.
    Death(c_int),
    /// This code.
    Code(c_int),
    /// The code that it began with, if no signal comes until then.
    AsBegun,
}

/// What is done at the very end of an exit: it gets the signal that this is told to end in, and says
/// what it ends in; none for the code that it began with, whatever comes. Where it says something it is
/// asked again behind the destructors of all images.
pub(crate) type Last = fn(Option<c_int>) -> Option<End>;

/// Has `hook` run when this process exits normally, in all that exits after this has returned, and
/// `last` at the very end. Later calls do nothing. Of several first ones at once each may put the hook
/// there: it may run twice.
pub(crate) fn at_exit(hook: extern "C" fn(), last: Last) {
    LAST.store(last as usize, Ordering::Release);
    if HOOKED.load(Ordering::Acquire) {
        return;
    }
    // SAFETY: `hook` is a function of this image, callable on any thread, and does not unwind.
    let refused = unsafe { libc::atexit(hook) };
    // Only now: a thread that saw it before could exit without the hook, and so would a copy that is
    // made by `fork` in between, for ever. Out of memory is the only refusal; the next call tries again.
    if refused == 0 {
        HOOKED.store(true, Ordering::Release);
    }
}

/// The signal that this process dies by at the end of its exit, or zero.
static DEATH: AtomicI32 = AtomicI32::new(0);

/// What is done right before that: a [`Last`], or zero.
static LAST: AtomicUsize = AtomicUsize::new(0);

/// Runs after every hook of the C library, destructor of this image and coverage runtime: its priority is
/// the first, and destructors run from the last to the first. The C library comes to the images that this
/// one needs only then.
#[used]
#[unsafe(link_section = ".fini_array.00001")]
static AT_THE_VERY_END: extern "C" fn() = at_the_very_end;

extern "C" fn at_the_very_end() {
    if let Some(end) = end()
        && !put_behind()
    {
        come_to(end);
    }
}

/// What the exit ends in, as far as is known.
fn end() -> Option<End> {
    let told = Some(DEATH.load(Ordering::Acquire)).filter(|signal| *signal != 0);
    let last = LAST.load(Ordering::Acquire);
    // SAFETY: zero is `None`; else `at_exit` stored a function of this type.
    let last = unsafe { transmute::<usize, Option<Last>>(last) };
    last.map_or(told.map(End::Death), |last| last(told))
}

/// Has the exit come to its end behind the destructors of all images, in which a signal may still come; false
/// where it cannot.
///
/// The C library runs them all in one of its hooks, the first of the list and so the last to run. It then
/// begins the list again, for what came meanwhile.
#[cfg(target_env = "gnu")]
fn put_behind() -> bool {
    use std::ffi::c_void;
    type Hook = extern "C" fn(*mut c_void);
    unsafe extern "C" {
        fn __cxa_atexit(hook: Hook, argument: *mut c_void, image: *mut c_void) -> c_int;
    }
    extern "C" fn behind_all(_nothing: *mut c_void) {
        if let Some(end) = end() {
            come_to(end);
        }
    }
    // SAFETY: `behind_all` needs nothing, and does not unwind. This image is there until the end: one that is
    // to end the process, or handles signals, is not unloaded.
    unsafe { __cxa_atexit(behind_all, ptr::null_mut(), ptr::null_mut()) == 0 }
}

/// Other C libraries take no more hooks by then.
#[cfg(not(target_env = "gnu"))]
fn put_behind() -> bool {
    false
}

fn come_to(end: End) {
    match end {
        End::Death(signal) => {
            flush_streams();
            action::die_by(signal)
        }
        End::Code(code) => {
            flush_streams();
            exit_at_once(code)
        }
        End::AsBegun => {}
    }
}

/// Writes what C's streams still have, which `exit` does behind all else.
pub(crate) fn flush_streams() {
    // SAFETY: null means every stream.
    unsafe { libc::fflush(ptr::null_mut()) };
}

/// Has the exit that is under way, or the next one, end in death by `signal`, the first one told.
pub(crate) fn end_in(signal: c_int) {
    let _ = DEATH.compare_exchange(0, signal, Ordering::AcqRel, Ordering::Relaxed);
}

/// Leaves at once: no hook of the C library runs.
pub(crate) fn exit_at_once(code: c_int) -> ! {
    // SAFETY: `_exit` has no precondition.
    unsafe { libc::_exit(code) }
}
