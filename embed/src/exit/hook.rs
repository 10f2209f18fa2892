//! What happens at an exit of the C library's: in our hook, and behind all hooks.

use std::ffi::c_int;
use std::panic::catch_unwind;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{Place, clean_up, close, is_urgent};
use crate::coverage;
use crate::deadline::Enforcer;
use crate::ending::Cause;
use crate::gate::Phase;
use crate::registry::{Pass, Reach, inside_ending};
use crate::signals;
use crate::state::{State, state};
use crate::sys;
use crate::sys::action;
use crate::sys::exit::End;

/// The process that is in the C library's `exit`, or zero.
static LEAVING: AtomicU32 = AtomicU32::new(0);

/// Whether this is a copy that was made by `fork` in the middle of its original's exit.
pub(super) fn was_left_in_exit() -> bool {
    ![0, std::process::id()].contains(&LEAVING.load(Ordering::Relaxed))
}

/// Has this process clean up when it exits normally.
pub(crate) fn hook() {
    coverage::prepare();
    sys::exit::at_exit(at_exit, last);
}

/// The last thing at an exit, behind all hooks; where signals are handled again behind the destructors of
/// libraries.
///
/// Not in our own hook: behind that the data still changes, finalizers are registered, and a signal may
/// come. The exit does not wait for embed's thread, which would tell of it.
fn last(told: Option<c_int>) -> Option<End> {
    run_late_ones(state());
    coverage::hand_over();
    let death = told.or_else(signals::deferred_death).map(End::Death);
    let end = death.or_else(code_of_another).inspect(|_| {
        // What has run since the last time: hooks and destructors, where the runtime does not write.
        coverage::save();
        coverage::conclude();
    });
    end.or_else(|| signals::handles_any().then_some(End::AsBegun))
}

/// Runs what has been registered behind our hook, where this thread has the exit.
fn run_late_ones(state: &'static State) {
    let cause = match state.gate.enter(Cause::Exit) {
        Err(Phase::Ended(_, cause) | Phase::Busy(_, cause)) => cause,
        // A copy that was made by `fork` in a later hook has none of ours.
        Ok(()) | Err(Phase::Open) => Cause::Exit,
    };
    state.gate.end(cause);
    close(state, cause, Reach::All, Enforcer::Kernel);
}

/// The code of the thread that was first to leave, where this exit is another's, which had no turn: that
/// began with a code of its own, a success as `main` returned.
fn code_of_another() -> Option<End> {
    let (thread, code) = state().leaving.get()?;
    (*thread != action::this_thread()).then_some(End::Code(*code))
}

/// The hook in the C library's list. Neither unwinds nor calls `exit`: both would abort.
extern "C" fn at_exit() {
    if let Err(payload) = catch_unwind(finish) {
        std::mem::forget(payload);
    }
}

fn finish() {
    LEAVING.store(std::process::id(), Ordering::Relaxed);
    let state = state();
    // A callback beside another ending that exits waits for its turn by that ending's clock.
    let was_beside = state.deadline.stop_beside();
    let entered = match inside_ending(state) {
        // A finalizer called `exit`, in place of its own end: the others have their turn now.
        true => Ok(()),
        false => state.gate.enter(Cause::Exit),
    };
    let cause = match entered {
        // Everything is saved, and the clock runs until the death. The thread that had the turn waits
        // for this one's exit: what its later hooks ask for is for this one to do.
        Err(Phase::Ended(_, cause @ Cause::Signal(_))) => return state.gate.end(cause),
        Err(Phase::Ended(_, cause) | Phase::Busy(_, cause)) => cause,
        Ok(()) | Err(Phase::Open) => Cause::Exit,
    };
    if was_beside {
        // The signal that the callback was called for hurried that ending only.
        state.deadline.hurry();
    }
    clean_up(state, Pass::new(cause, Reach::All), Enforcer::Kernel, Place::Apart);
    if is_urgent(cause) || was_beside {
        // Its own clock may have replaced the one that ran for the hooks.
        state.deadline.keep_for_exit();
    }
    coverage::hold_back();
    state.gate.end(cause);
}
