//! Cooperative stopping: a long loop learns that the process has been asked to end.

use std::ffi::c_int;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::exit;
use crate::registry::inside_finalizer;
use crate::signals;
use crate::state::{lock, state};

/// Who asked this process to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopReason {
    /// A handled signal of this number arrived.
    Signal(c_int),
    /// The parent asked.
    Parent,
    /// The parent is gone.
    ParentGone,
}

/// The process that was asked to stop, or zero. A copy made by `fork` was not asked.
static ASKED: AtomicU32 = AtomicU32::new(0);

type Callback = Box<dyn FnOnce(StopReason) + Send>;

/// What is to be called when a stop is requested, or the reason if it has been and the process has
/// not gone on since.
#[derive(Default)]
pub(crate) struct Callbacks(Mutex<Waiting>);

enum Waiting {
    Quiet(Registered),
    Asked(StopReason),
}

#[derive(Default)]
struct Registered {
    /// By the program.
    own: Vec<Callback>,
    /// While it ended, by finalizers and hooks.
    by_hooks: Vec<Callback>,
}

impl Registered {
    /// In the order in which they are called. An ending waits for its hooks, and one of the others that leaves
    /// the process for that ending: behind it no hook would hear of the request.
    fn in_order(self) -> Vec<Callback> {
        self.by_hooks.into_iter().rev().chain(self.own).collect()
    }
}

impl Waiting {
    /// Notes a request; whom to call for it.
    fn ask(&mut self, reason: StopReason) -> Vec<Callback> {
        // A signal may be outlived. What the parent wants is not, whatever comes after it.
        if let Self::Asked(StopReason::Parent | StopReason::ParentGone) = self {
            return Vec::new();
        }
        match std::mem::replace(self, Self::Asked(reason)) {
            Self::Quiet(callbacks) => callbacks.in_order(),
            Self::Asked(_) => Vec::new(),
        }
    }

    /// The process has outlived this request.
    fn outlive(&mut self, reason: StopReason) {
        // Not if another one has come meanwhile.
        if matches!(self, Self::Asked(last) if *last == reason) {
            *self = Self::default();
        }
    }
}

impl Default for Waiting {
    fn default() -> Self {
        Self::Quiet(Registered::default())
    }
}

impl fmt::Debug for Callbacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Callbacks")
    }
}

/// True once this process has been asked to stop: by a handled signal, or by its parent.
///
/// It stays true in a program that goes on after a signal: whoever looks seldom must not miss it.
///
/// Cheap enough for the innermost loop: one atomic load while nobody has asked.
///
/// # Examples
///
/// ```
/// let mut rounds = 0;
/// while !epilogue_embed::stop_requested() && rounds < 1000 {
///     rounds += 1;
/// }
/// assert_eq!(rounds, 1000);
/// ```
pub fn stop_requested() -> bool {
    match ASKED.load(Ordering::Relaxed) {
        0 => false,
        pid => pid == std::process::id(),
    }
}

/// Calls `callback` once, when this process is asked to stop; at once if it has been. A signal after
/// which the program went on does not count: the next request is waited for. Of several, the
/// first registered is called first, but those before it that hooks have registered as the process ends.
///
/// It runs before the finalizers, or beside them if the process is ending already, on a thread of this crate,
/// or on that of whoever [asks](crate::ending::request_stop); if a stop was requested before, on the calling
/// thread, before this returns. A panic in it is caught.
///
/// A callback may leave the process, by [`exit`](crate::exit()) for example. If an ending goes on already,
/// the callback is over there, as if it had returned: at once if that ending has called it, else when that
/// ending's finalizers have run. Then those behind it are called. But if that ending was a
/// [`cleanup`](crate::cleanup()), they are not: the process ends by this callback.
/// With `panic = "abort"` it cannot leave there, see [Limits](crate#limits).
///
/// # Examples
///
/// ```
/// let (sender, stopped) = std::sync::mpsc::channel();
/// epilogue_embed::on_stop(move |reason| drop(sender.send(reason)));
/// assert!(stopped.try_recv().is_err());
/// ```
pub fn on_stop(callback: impl FnOnce(StopReason) + Send + 'static) {
    signals::serve_if_handling();
    let state = state();
    let ends = !state.gate.is_open() && inside_finalizer();
    let reason = match &mut *lock(&state.stop.0) {
        Waiting::Quiet(callbacks) if ends => return callbacks.by_hooks.push(Box::new(callback)),
        Waiting::Quiet(callbacks) => return callbacks.own.push(Box::new(callback)),
        Waiting::Asked(reason) => *reason,
    };
    call(Box::new(callback), reason);
}

/// Makes [`stop_requested`] true. Async-signal-safe.
pub(crate) fn mark_requested() {
    ASKED.store(std::process::id(), Ordering::Relaxed);
}

/// Makes [`stop_requested`] true, and calls every [`on_stop`] callback that waits for that.
pub(crate) fn request(reason: StopReason) {
    mark_requested();
    let callbacks = lock(&state().stop.0).ask(reason);
    let process = std::process::id();
    for callback in callbacks {
        let code = call(callback, reason);
        exit::end_copy_of(process, code);
    }
}

/// The process has outlived this request. What is registered from now on waits for the next one:
/// told of this one it would be deaf to that.
pub(crate) fn outlive(reason: StopReason) {
    lock(&state().stop.0).outlive(reason);
}

/// Returns the exit code for a copy made by `fork` in the callback.
fn call(callback: Callback, reason: StopReason) -> c_int {
    // A panicking callback must neither keep the others from theirs nor end the caller's thread.
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| callback(reason))) {
        std::mem::forget(payload);
        return exit::PANICKED;
    }
    0
}

#[cfg(test)]
mod tests {
    use super::{StopReason, Waiting};

    #[test]
    fn a_signal_can_be_outlived_and_what_the_parent_wants_cannot() {
        let (hang_up, other) = (StopReason::Signal(1), StopReason::Signal(10));
        for (requests, outlived, is_asked) in [
            (&[hang_up][..], hang_up, false),
            (&[hang_up, other], hang_up, true),
            (&[hang_up, other], other, false),
            (&[StopReason::Parent, hang_up], hang_up, true),
            (&[hang_up, StopReason::ParentGone], hang_up, true),
        ] {
            let mut waiting = Waiting::default();
            requests.iter().for_each(|reason| drop(waiting.ask(*reason)));
            waiting.outlive(outlived);
            assert_eq!(matches!(waiting, Waiting::Asked(_)), is_asked, "{requests:?} {outlived:?}");
        }
    }
}
