//! The ways out: cleaning up now, and leaving after it.

mod hook;

use std::ffi::c_int;
use std::io;
use std::os::unix::process::CommandExt;
use std::panic;
use std::process::Command;
use std::sync::Arc;

pub(crate) use self::hook::hook;
use crate::coverage::{self, flush};
use crate::deadline::Enforcer;
use crate::ending::Cause;
use crate::gate::park_for_ever;
use crate::registry::{LeftEarly, Pass, Reach, inside_finalizer};
use crate::report::Cleanup;
use crate::served;
use crate::signals::{self, is_handled, is_in_a_hurry};
use crate::state::{State, state};
use crate::sys;
use crate::sys::action;
use crate::sys::mask::{AllBlocked, Mask};
use crate::sys::thread::Thread;

/// The exit code of a program that panicked.
pub(crate) const PANICKED: c_int = 101;

/// Runs every finalizer now, then saves the coverage data. The program may go on.
///
/// When this returns, each finalizer that was registered has run, or its end is in the report with
/// the reason: it panicked, or the time was over (see [`set_deadline`](crate::set_deadline)). What a library
/// has [for the very end](crate::ending::register_last) waits for that. They run on a thread of their own
/// with the signal mask of this one, the handled signals let in, last registered first. What is registered
/// later is run by the next cleanup or at exit.
///
/// If another thread is cleaning up, this waits for that first. In a finalizer, in an
/// [`on_stop`](crate::on_stop) callback that an ending has called, and once the process is on its way out,
/// this does nothing, and its report is empty.
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
            let pass = Pass::new(Cause::Cleanup, Reach::ButLast);
            let report = clean_up(state, pass, Enforcer::WaiterAlone, Place::Apart);
            state.gate.open();
            report
        }
        Err(_) => Cleanup::default(),
    }
}

/// Cleans up as [`cleanup`] does, then exits with `code`: the C library's hooks run and buffered
/// output is written.
///
/// From any thread. If another thread is ending the process already, this one waits for that end. If another
/// one comes to its own exit later, as `main`'s does when it returns, the process still exits with this
/// `code`. A finalizer that calls this ends there, as if it had returned; with `panic = "abort"` it cannot,
/// see [Limits](crate#limits).
///
/// The hooks of the C library (`atexit`, destructors) run in their order, embed's among them. In one that
/// runs after embed's, the process leaves there: the hooks that are left do not run. In one that runs before
/// it, the standard library aborts, as it does for its own `exit`.
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
/// If a signal that is to end this process arrived meanwhile, that is how it ends. A finalizer that
/// calls this ends there, as if it had returned; with `panic = "abort"` it cannot, see
/// [Limits](crate#limits).
///
/// # Examples
///
/// ```no_run
/// epilogue_embed::exit_now(0);
/// ```
pub fn exit_now(code: c_int) -> ! {
    let state = state();
    if is_inside(state) {
        stop_here();
    }
    state.gate.join_leavers();
    clean_up_for_good(state, Reach::All);
    coverage::dump_gcov();
    coverage::conclude();
    sys::exit::exit_at_once(code)
}

/// Cleans up as [`cleanup`] does, then replaces this program by `command`, keeping the process.
///
/// Returns only if that failed. The finalizers have run then, those for the very end included. If a signal
/// that is to end this process arrived meanwhile, it ends by that. A finalizer cannot do this: it gets the
/// error.
///
/// # Signals to the new program
///
/// It begins with the default action of every signal that was handled here, as the kernel has it: a
/// second `SIGHUP` on the heels of the first ends a daemon that is just reloading. And it begins
/// with the calling thread's mask, from an [`on_stop`](crate::on_stop) callback with that of the thread
/// that first called [`cleanup_on_signal`](crate::cleanup_on_signal). So to lose none, block the signal
/// in that thread before the call, and let it in again in the new program when its handler is there: it
/// has been waiting. The example `reload` does so. This function blocks nothing by itself, for a program that has never
/// heard of this crate would be deaf, with all that it starts.
///
/// # Examples
///
/// ```
/// use std::process::Command;
/// let error = epilogue_embed::exec(&mut Command::new("/no/such/program"));
/// assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
/// ```
pub fn exec(command: &mut Command) -> io::Error {
    let state = state();
    if is_inside(state) {
        return io::Error::other("this program is ending, and a finalizer cannot replace it");
    }
    let was_beside = clean_up_for_good(state, Reach::AllBeforeExec);
    coverage::dump_gcov();
    let error = coverage::conclude_for(|| served::as_the_program(|| command.exec()));
    state.registry.open();
    if state.gate.is_mine() {
        state.gate.open();
    }
    if was_beside {
        // The callback goes on.
        state.deadline.start_beside();
    }
    error
}

/// Cleans up and keeps the turn: a thread that got it before this one is gone would hand the coverage
/// data over to the runtime, and be cut off before that has written it. So would one that is on its
/// way out already: then this one waits for that. Whether it came from a callback beside another ending.
fn clean_up_for_good(state: &'static State, reach: Reach) -> bool {
    // A callback beside another ending waits for its turn by that ending's clock, as if it had returned.
    let was_beside = state.deadline.stop_beside();
    let enforcer = match reach {
        Reach::All => Enforcer::Waiter,
        Reach::AllBeforeExec | Reach::ButLast => Enforcer::WaiterAlone,
    };
    if state.gate.enter(Cause::Cleanup).is_ok() {
        let pass = Pass::new(Cause::Cleanup, reach);
        clean_up(state, pass, enforcer, Place::Apart);
    } else if !state.gate.was_ended_here() {
        wait_for_end(state, was_beside);
    }
    close(state, Cause::Cleanup, reach, enforcer);
    give_way_to_death(state, was_beside);
    was_beside
}

/// Runs what has been registered since the finalizers ran, until there is nothing, and takes no more: a
/// finalizer that is there and does not run would be a promise broken.
///
/// For the last moment: who registers now waits for the end, and may have what a hook of the C library's
/// waits for.
fn close(state: &'static State, cause: Cause, reach: Reach, enforcer: Enforcer) {
    let mut had_any = false;
    while !state.registry.close() {
        clean_up(state, Pass::new(cause, reach), enforcer, Place::Apart);
        had_any = true;
    }
    // Their clock has replaced the one that ran for what follows.
    if had_any && enforcer == Enforcer::Kernel && is_urgent(cause) {
        state.deadline.start_for_exit();
    }
}

/// Whether the hooks of the C library's have a deadline, too, in an ending by `cause`: somebody waits for it.
fn is_urgent(cause: Cause) -> bool {
    cause == Cause::Parent || signals::deferred_death().is_some()
}

/// See [`crate::ending::leave`].
pub(crate) fn leave(code: c_int, cause: Cause) -> ! {
    leave_by(code, cause, Place::Apart)
}

/// See [`crate::ending::leave_here`].
pub(crate) fn leave_here(code: c_int, cause: Cause) -> ! {
    leave_by(code, cause, Place::Here)
}

/// Where finalizers run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// On a thread of their own.
    Apart,
    /// On the thread that ends the process.
    Here,
}

fn leave_by(code: c_int, cause: Cause, place: Place) -> ! {
    let state = state();
    if is_inside(state) {
        stop_here();
    }
    if state.gate.was_ended_here() {
        leave_in_hook(code, state);
    }
    state.gate.join_leavers();
    let turn = state.gate.try_enter(cause);
    let is_orphan = cause == Cause::Parent;
    if is_orphan && turn.is_none() {
        // Nobody else would end what takes all the time it needs at an exit of the program's own.
        state.deadline.hurry();
        state.deadline.insist();
    }
    // It may be a callback beside another ending that leaves: it waits as one that has returned, by that
    // ending's clock, and from then on the time is this ending's.
    let was_beside = state.deadline.stop_beside();
    let turn = turn.unwrap_or_else(|| state.gate.enter(cause));
    if turn.is_err() {
        if is_orphan {
            state.deadline.start_for_exit();
        }
        wait_for_end(state, was_beside);
    }
    // Another thread may be in `exit` by the end of this, where std keeps this one out: see `last`.
    let _ = state.leaving.set((action::this_thread(), code));
    hook();
    // For all that follows, hooks of the C library's included: a thread of a library's may block everything.
    signals::let_in_faults();
    if place == Place::Here {
        signals::let_in_if_attendant();
    }
    clean_up(state, Pass::new(cause, Reach::All), Enforcer::Kernel, place);
    state.gate.end(cause);
    if is_urgent(cause) || was_beside {
        // Nor would anybody end a hook of the C library's that does not return: embed's thread, if this is
        // that, serves no later signal.
        state.deadline.start_for_exit();
    }
    go(code, cause, state)
}

/// Leaves in a hook of the C library's or a destructor: this thread is in `exit`, which std lets nobody
/// enter twice. To wait here for the end would be to wait for itself.
fn leave_in_hook(code: c_int, state: &'static State) -> ! {
    close(state, Cause::Cleanup, Reach::All, Enforcer::Kernel);
    sys::exit::flush_streams();
    give_way_to_death(state, false);
    coverage::hand_over();
    coverage::dump_gcov();
    coverage::conclude();
    sys::exit::exit_at_once(code)
}

/// Leaves by way of the C library's hooks. Not where this is a copy made by `fork` in the middle of
/// its original's exit: std and the C library would wait for the thread that is in there, which
/// does not exist here.
fn go(code: c_int, cause: Cause, state: &'static State) -> ! {
    if hook::was_left_in_exit() {
        close(state, cause, Reach::All, Enforcer::Kernel);
        coverage::dump_gcov();
        coverage::conclude();
        sys::exit::exit_at_once(code);
    }
    std::process::exit(code)
}

/// Whether the calling thread runs a finalizer or a callback of an ending.
fn is_inside(state: &State) -> bool {
    inside_finalizer() || state.gate.is_mine()
}

/// Ends the finalizer or callback that asked to leave. The process is ending already.
fn stop_here() -> ! {
    if cfg!(panic = "unwind") {
        panic::resume_unwind(Box::new(LeftEarly));
    }
    park_for_ever()
}

/// Waits for the end that another thread comes to. A callback that `was_beside` that ending is over here: who
/// runs it has signals to serve, this one's first, by which an exit that hangs has its clock.
fn wait_for_end(state: &State, was_beside: bool) -> ! {
    if was_beside && cfg!(panic = "unwind") {
        // For those that are called after it.
        state.deadline.start_beside();
        state.gate.quit_leavers();
        stop_here();
    }
    if was_beside && signals::deferred_death().is_some() {
        // Nobody goes on to start that clock. For another signal's there is none: it would end by force what
        // the other thread's exit does well.
        state.deadline.start_beside();
    }
    park_for_ever()
}

/// Stays here if this process is to die by a signal that waited for the cleanup: to leave by any
/// other way would lose it. Who `serves` the signals dies by it, for nobody else would.
fn give_way_to_death(state: &State, serves: bool) {
    if let Some(signal) = signals::deferred_death() {
        if state.gate.was_ended_here() {
            // In a hook of the C library: this thread would have died at the end of its exit.
            coverage::save();
            coverage::conclude();
            action::die_by(signal);
        }
        if serves {
            state.deadline.start_for_exit();
            die_by(signal, state);
        }
        // For embed's thread, whose callbacks may register what runs then.
        state.registry.open();
        state.gate.open();
        park_for_ever();
    }
}

/// Ends a copy made by `fork` that comes back from the program's code: the rest of the ending is
/// for its `original` alone.
pub(crate) fn end_copy_of(original: u32, code: c_int) {
    if std::process::id() != original {
        leave(code, Cause::Exit);
    }
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

/// Saves the coverage data, runs the finalizers and waits for them, then saves it again.
///
/// They run on a thread of their own: at a normal exit the caller may be the main thread with its
/// thread-locals gone, in which much of the standard library panics, and in the middle of the
/// program it may hold what they need.
fn clean_up(state: &'static State, pass: Pass, enforcer: Enforcer, place: Place) -> Cleanup {
    let saved = flush();
    if pass.is_needless(state) {
        return Cleanup::new(Vec::new(), saved);
    }
    let ran = state.deadline.start(enforcer);
    let pass = Arc::new(pass);
    if place == Place::Apart && start(state, Arc::clone(&pass)).is_ok() {
        pass.wait(state, enforcer);
    } else {
        // Where there are no more threads, too: only the kernel can end what does not return.
        if enforcer == Enforcer::WaiterAlone {
            state.deadline.start(Enforcer::Waiter);
        }
        pass.run(state, is_in_a_hurry);
    }
    state.deadline.stop();
    if ran && state.gate.has_ended() {
        // It was the clock of the hooks, among which these came late.
        state.deadline.keep_for_exit();
    }
    Cleanup::new(pass.done(), flush())
}

fn start(state: &'static State, pass: Arc<Pass>) -> io::Result<()> {
    // The standard library's part of the new thread is no place for a handler of the program's.
    let blocked = AllBlocked::new();
    let program = blocked.before();
    // Not the standard library's thread: who exits as a library is loaded has the lock that it begins with.
    Thread::start(c"epilogue-end", Some((program, state, pass)), run_apart).map(Thread::detach)
}

fn run_apart(work: &mut Option<(Mask, &'static State, Arc<Pass>)>) {
    let Some((program, state, pass)) = work.take() else { return };
    // A finalizer may overflow this thread's own.
    let _stack = action::StackApart::new();
    // A finalizer that starts a program hands its mask on: with every signal blocked, a daemon
    // would not end by a SIGTERM for as long as it lives.
    program.take_over(is_handled);
    pass.run(state, is_in_a_hurry);
}

/// Whether the calling thread ends the process: it must go on, whatever a hook of the C library's asks for
/// when all that is registered has run.
pub(crate) fn ends_here(state: &State) -> bool {
    state.gate.is_mine() || state.gate.was_ended_here()
}
