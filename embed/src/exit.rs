//! The ways out: cleaning up now, and leaving after it.

use std::ffi::c_int;
use std::io;
use std::os::unix::process::CommandExt;
use std::panic::{self, catch_unwind};
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;

use crate::deadline::Enforcer;
use crate::ending::Cause;
use crate::gate::{Phase, park_for_ever};
use crate::registry::{LeftEarly, Pass, inside_finalizer};
use crate::report::Cleanup;
use crate::state::{State, state};
use crate::sys;

/// Runs every finalizer now, then saves the coverage data. The program may go on.
///
/// When this returns, each finalizer that was registered has run, or its end is in the report with
/// the reason: it panicked, or the time was over (see [`set_deadline`](crate::set_deadline)). They
/// run on a thread of their own, last registered first. What is registered later is run by the
/// next cleanup or at exit. In a finalizer this does nothing.
///
/// # Examples
///
/// ```
/// use epilogue_embed as embed;
/// embed::finalizer("first", || {});
/// embed::finalizer("second", || panic!("on purpose"));
/// let report = embed::cleanup();
/// assert_eq!(report.finalizers()[1].name(), "first");
/// assert_eq!(*report.finalizers()[1].outcome(), embed::Outcome::Ran);
/// assert!(!report.is_complete());
/// ```
pub fn cleanup() -> Cleanup {
    if inside_finalizer() {
        return Cleanup::default();
    }
    let state = state();
    match state.gate.enter(Cause::Cleanup) {
        Ok(()) => {
            let report = clean_up_beside(state, Cause::Cleanup);
            state.gate.open();
            report
        }
        Err(_) => Cleanup::default(),
    }
}

/// Cleans up as [`cleanup`] does, then exits with `code`: the C library's hooks run and buffered
/// output is written.
///
/// From any thread. If another thread is ending the process already, this one waits for that end.
///
/// # Examples
///
/// ```no_run
/// epilogue_embed::exit(0);
/// ```
pub fn exit(code: c_int) -> ! {
    leave(code, Cause::Cleanup)
}

/// Cleans up as [`cleanup`] does, then leaves at once: no hook of the C library runs, and output
/// that is still in a buffer is lost.
///
/// # Examples
///
/// ```no_run
/// epilogue_embed::exit_now(0);
/// ```
pub fn exit_now(code: c_int) -> ! {
    cleanup();
    sys::exit::exit_at_once(code)
}

/// Cleans up as [`cleanup`] does, then replaces this program by `command`, keeping the process.
///
/// Returns only if that failed. The finalizers have run then.
///
/// # Examples
///
/// ```
/// use std::process::Command;
/// let error = epilogue_embed::exec(&mut Command::new("/no/such/program"));
/// assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
/// ```
pub fn exec(command: &mut Command) -> io::Error {
    cleanup();
    command.exec()
}

/// See [`crate::ending::leave`].
pub(crate) fn leave(code: c_int, cause: Cause) -> ! {
    if inside_finalizer() && cfg!(panic = "unwind") {
        // The process is ending already: this finalizer has said its last word.
        panic::resume_unwind(Box::new(LeftEarly));
    }
    let state = state();
    if state.gate.enter(cause).is_err() {
        park_for_ever();
    }
    hook();
    clean_up_beside(state, cause);
    state.gate.end(cause);
    std::process::exit(code)
}

/// Has this process clean up when it exits normally.
pub(crate) fn hook() {
    sys::exit::at_exit_once(at_exit);
}

/// Runs the finalizers on a thread of their own, and waits for them until the deadline.
fn clean_up_beside(state: &'static State, cause: Cause) -> Cleanup {
    state.deadline.start(Enforcer::Waiter);
    let pass = Arc::new(Pass::new(cause));
    let (done, finished) = mpsc::channel::<()>();
    let runner = Arc::clone(&pass);
    let work = move || {
        let _done = done;
        runner.run(state, || false);
    };
    match thread::Builder::new()
        .name("epilogue-embed".into())
        .spawn(work)
    {
        Ok(_) => wait_for(state, &pass, &finished),
        // No more threads: then here, where only the kernel can end what does not return.
        Err(_) => pass.run(state, || false),
    }
    state.deadline.stop();
    Cleanup::new(pass.done())
}

fn wait_for(state: &State, pass: &Pass, finished: &mpsc::Receiver<()>) {
    loop {
        let end = match state.deadline.remaining() {
            Some(left) => finished.recv_timeout(left),
            None => finished.recv().map_err(RecvTimeoutError::from),
        };
        match (end, state.deadline.remaining()) {
            (Err(RecvTimeoutError::Timeout), Some(left)) if left.is_zero() => {
                return pass.abandon(state);
            }
            (Err(RecvTimeoutError::Timeout), _) => {}
            (Ok(()) | Err(RecvTimeoutError::Disconnected), _) => return,
        }
    }
}

/// The hook in the C library's list. Neither unwinds nor calls `exit`: both would abort.
extern "C" fn at_exit() {
    if let Err(payload) = catch_unwind(finish) {
        std::mem::forget(payload);
    }
}

fn finish() {
    if inside_finalizer() {
        return;
    }
    let state = state();
    let cause = match state.gate.enter(Cause::Exit) {
        Ok(()) => Cause::Exit,
        Err(Phase::Ended(_, cause)) => cause,
        Err(Phase::Busy(..) | Phase::Open) => return,
    };
    state.deadline.start(Enforcer::Kernel);
    Pass::new(cause).run(state, || false);
    state.deadline.stop();
    state.gate.end(cause);
}
