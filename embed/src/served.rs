//! Embed's own thread: takes the signals that handlers left, and ends the process for each.

use std::cell::Cell;
use std::ffi::c_int;

use crate::coverage;
use crate::deadline::Enforcer;
use crate::ending::Cause;
use crate::exit;
use crate::registry::{Pass, Reach};
use crate::signals::{
    Desk, deferred_death, is_handled, is_in_a_hurry, let_in_handled, letting_in_faults,
};
use crate::state::State;
use crate::stop::{self, StopReason};
use crate::sys::action::{self, Previous};
use crate::sys::inbox::Letter;
use crate::sys::mask::Mask;

thread_local! {
    /// On embed's thread, the mask of the program.
    static PROGRAM: Cell<Option<Mask>> = const { Cell::new(None) };
}

/// What the kernel does on a signal that nobody handles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Default {
    Death,
    Stop,
    Nothing,
}

pub(crate) fn default_of(signal: c_int) -> Default {
    match signal {
        libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU => Default::Stop,
        libc::SIGCHLD | libc::SIGURG | libc::SIGWINCH | libc::SIGCONT => Default::Nothing,
        _ => Default::Death,
    }
}

/// Whether the process dies by `signal` once it has cleaned up.
pub(crate) fn is_deadly(signal: c_int) -> bool {
    action::previous(signal) == Previous::Default && default_of(signal) == Default::Death
}

/// Does `work` with the mask of the program, also on embed's own thread: another program that takes the place of
/// this one there would be deaf to nearly all.
pub(crate) fn as_the_program<R>(work: impl FnOnce() -> R) -> R {
    let Some(mask) = PROGRAM.get() else { return work() };
    let before = mask.take_over(is_handled);
    let result = work();
    before.take_over(is_handled);
    result
}

/// Serves the desk for ever, in a program of that mask.
pub(crate) fn collect(desk: &Desk, state: &'static State, program: Mask) -> ! {
    PROGRAM.set(Some(program));
    // A finalizer may overflow this thread's own.
    let _stack = action::StackApart::new();
    loop {
        // Handlers may have been installed since; one nudge follows each.
        let_in_handled();
        serve_all(desk, state);
        desk.inbox.wait();
    }
}

/// Serves what is there.
pub(crate) fn serve_all(desk: &Desk, state: &'static State) {
    // Of several, the one that came first is the one to die by.
    while let Some(letter) = desk.inbox.take(deferred_death()) {
        letting_in_faults(|| end_by(&letter, desk, state));
    }
}

/// Cleans up for one signal, then does what the signal did before us.
fn end_by(letter: &Letter, desk: &Desk, state: &'static State) {
    let signal = letter.delivery.signal;
    let reason = StopReason::Signal(signal);
    let cause = Cause::Signal(signal);
    // In one step with the look whether somebody has the turn: who took it between two steps would
    // hear of nothing, and we would wait for it as long as it likes.
    let turn = state.gate.try_enter(cause);
    if !matches!(turn, Some(Ok(()))) {
        // A pool that finishes its queue at exit, outside the deadline, must hear of it now.
        state.deadline.hurry();
        if turn.is_none() && is_deadly(signal) {
            state.deadline.insist();
        }
        // That ending's clock is not theirs: of a cleanup it stops with it. One that hangs would keep this
        // thread from every later signal.
        state.deadline.start_beside();
        stop::request(reason);
        state.deadline.stop_beside();
    }
    if turn.unwrap_or_else(|| state.gate.enter(cause)).is_err() {
        return follow_exit(letter, desk, state);
    }
    state.deadline.start(Enforcer::Kernel);
    stop::request(reason);
    let is_deadly = is_deadly(signal);
    let reach = if is_deadly { Reach::All } else { Reach::ButLast };
    Pass::new(cause, reach).run(state, is_in_a_hurry);
    coverage::save();
    if is_deadly {
        // What another thread has registered since has its turn, too. After that nobody returns from
        // registering: a finalizer that is there and does not run would be a promise broken.
        while !state.registry.close() {
            Pass::new(cause, reach).run(state, is_in_a_hurry);
            coverage::save();
        }
        state.deadline.start_for_exit();
        exit::die_by(signal, state);
    }
    state.deadline.stop();
    desk.forget_interrupts();
    // Before an exit can begin, which would take this request for one of its own time.
    stop::outlive(reason);
    state.gate.open();
    carry_out(letter, desk);
}

/// The process was on its way out when the signal arrived.
fn follow_exit(letter: &Letter, desk: &Desk, state: &State) {
    let signal = letter.delivery.signal;
    if is_deadly(signal) {
        exit::end_in(signal);
        state.deadline.keep_for_exit();
    } else {
        carry_out(letter, desk);
    }
}

/// What the signal did before us, where that is not to die.
fn carry_out(letter: &Letter, desk: &Desk) {
    match action::previous(letter.delivery.signal) {
        Previous::Handler => {
            if !desk.inbox.repeat(letter) {
                letter.delivery.call_previous();
            }
        }
        Previous::Default | Previous::Ignored => match default_of(letter.delivery.signal) {
            Default::Stop => action::stop_by(letter.delivery.signal),
            Default::Death | Default::Nothing => {}
        },
    }
}
