//! The ways out: cleaning up now, and leaving after it.

use std::ffi::c_int;
use std::io;
use std::os::unix::process::CommandExt;
use std::panic::{self, catch_unwind};
use std::process::Command;
use std::sync::Arc;
use std::thread;

use crate::coverage::{self, flush};
use crate::deadline::Enforcer;
use crate::ending::Cause;
use crate::gate::{Phase, park_for_ever};
use crate::registry::{LeftEarly, Pass, inside_finalizer};
use crate::report::Cleanup;
use crate::signals::{self, is_in_a_hurry, let_in_handled};
use crate::state::{State, state};
use crate::sys;
use crate::sys::mask::AllBlocked;

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
            let report = clean_up(state, Cause::Cleanup, Enforcer::Waiter);
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
    coverage::dump_gcov();
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
    coverage::dump_gcov();
    command.exec()
}

/// See [`crate::ending::leave`].
pub(crate) fn leave(code: c_int, cause: Cause) -> ! {
    let state = state();
    let is_inside = inside_finalizer() || state.gate.is_mine();
    if is_inside && cfg!(panic = "unwind") {
        // The process is ending already: this finalizer or callback has said its last word.
        panic::resume_unwind(Box::new(LeftEarly));
    }
    if is_inside || state.gate.enter(cause).is_err() {
        park_for_ever();
    }
    hook();
    clean_up(state, cause, Enforcer::Kernel);
    state.gate.end(cause);
    std::process::exit(code)
}

/// Has this process clean up when it exits normally.
pub(crate) fn hook() {
    coverage::prepare();
    sys::exit::at_exit_once(at_exit);
}

/// Leaves by way of the C library's hooks, and dies by `signal` at their end.
///
/// If another thread is in `exit` already, that thread does it and this one waits.
pub(crate) fn die_by(signal: c_int, state: &State) -> ! {
    // Before the gate: behind it another thread may be on its way out, and goes on then.
    coverage::seal();
    end_in(signal);
    state.gate.end(Cause::Signal(signal));
    std::process::exit(128 + signal)
}

/// Has the exit that is under way end in death by `signal`.
pub(crate) fn end_in(signal: c_int) {
    sys::exit::end_in(signal);
}

/// Saves the coverage data, runs the finalizers on a thread of their own and waits for them, then
/// saves it again.
///
/// At a normal exit the caller may be the main thread with its thread-locals gone, in which much of
/// the standard library panics: nothing of the program's must run there.
fn clean_up(state: &'static State, cause: Cause, enforcer: Enforcer) -> Cleanup {
    let saved = flush();
    if state.registry.is_empty() {
        return Cleanup::new(Vec::new(), saved);
    }
    state.deadline.start(enforcer);
    let pass = Arc::new(Pass::new(cause));
    match start(state, Arc::clone(&pass)) {
        Ok(()) => pass.wait(state, enforcer),
        // No more threads: then here, where only the kernel can end what does not return.
        Err(_) => pass.run(state, is_in_a_hurry),
    }
    state.deadline.stop();
    Cleanup::new(pass.done(), flush())
}

fn start(state: &'static State, pass: Arc<Pass>) -> io::Result<()> {
    // It must not get a signal that the program wants on its own threads.
    let _blocked = AllBlocked::new();
    let work = move || {
        let_in_handled();
        pass.run(state, is_in_a_hurry);
    };
    thread::Builder::new().name("epilogue-end".into()).spawn(work).map(drop)
}

/// The hook in the C library's list. Neither unwinds nor calls `exit`: both would abort.
extern "C" fn at_exit() {
    if let Err(payload) = catch_unwind(finish) {
        std::mem::forget(payload);
    }
}

fn finish() {
    let state = state();
    let entered = match inside_finalizer() {
        // It called `exit`, in place of its own end: the others have their turn now.
        true => Ok(()),
        false => state.gate.enter(Cause::Exit),
    };
    let cause = match entered {
        // Everything is saved, and the clock runs until the death.
        Err(Phase::Ended(_, Cause::Signal(_))) => return,
        Err(Phase::Ended(_, cause) | Phase::Busy(_, cause)) => cause,
        Ok(()) | Err(Phase::Open) => Cause::Exit,
    };
    clean_up(state, cause, Enforcer::Kernel);
    coverage::hand_over();
    state.gate.end(cause);
    if let Some(signal) = signals::deferred_death() {
        end_in(signal);
    }
}
