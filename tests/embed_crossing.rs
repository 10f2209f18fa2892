//! Two threads that end a program at once, at the worst moment: it ends once, and as a whole.

use std::process::Command;

use nix::sys::signal::Signal;
use support::{Ending, Program};

#[track_caller]
fn told(story: &str) -> Ending {
    let (oracle, _watchdog) = support::begin();
    let mut command = Command::new(env!("CARGO_BIN_EXE_embed_crossing"));
    let ending = Program::start(command.arg(story)).finish();
    oracle.nothing_left();
    ending
}

#[test]
fn a_thread_that_is_late_with_its_first_finalizer_keeps_no_exit_from_running_the_others() {
    let ending = told("first-hook");
    assert!(ending.status.success(), "{ending}");
    assert_eq!(ending.stdout, "b\na\n", "{ending}");
}

#[test]
fn a_thread_that_leaves_at_once_or_for_another_program_cuts_no_exit_short() {
    for story in ["exit-now", "exec"] {
        let ending = told(story);
        assert_eq!(ending.code(), Some(3), "{story}: {ending}");
        assert_eq!(ending.stdout, "a\nat the end\n", "{story}: {ending}");
    }
}

#[test]
fn a_thread_that_exits_first_is_the_one_whose_code_the_program_ends_with() {
    let ending = told("code");
    assert_eq!(ending.code(), Some(3), "{ending}");
    assert_eq!(ending.stdout, "a\n", "{ending}");
}

#[test]
fn an_exit_in_a_finalizer_that_runs_by_hand_cuts_no_other_ending_short() {
    for (story, code) in [("by-hand-in-a-death", None), ("by-hand-in-a-cleanup", Some(7))] {
        let ending = told(story);
        assert_eq!(ending.stdout, "a\n", "{story}: {ending}");
        assert_eq!(ending.code(), code, "{story}: {ending}");
        let signal = code.is_none().then_some(Signal::SIGTERM);
        assert_eq!(ending.signal(), signal, "{story}: {ending}");
    }
}

#[test]
fn an_exit_in_a_finalizer_that_was_left_behind_cuts_no_later_ending_short() {
    let ending = told("left-behind");
    assert_eq!(ending.stdout, "a\n", "{ending}");
    assert_eq!(ending.code(), Some(0), "{ending}");
}

#[test]
fn an_exit_in_a_hook_of_an_exit_ends_the_program() {
    let ending = told("exit-in-a-hook");
    assert_eq!(ending.code(), Some(7), "{ending}");
    assert_eq!(ending.stdout, "a\nat the end, and in C", "{ending}");
}

#[test]
fn what_is_registered_behind_the_last_finalizer_of_an_exit_runs_at_the_end_of_it() {
    let ending = told("late");
    assert_eq!(ending.code(), Some(3), "{ending}");
    assert_eq!(ending.stdout, "a\nat the end\nlate\n", "{ending}");
}

#[test]
fn what_is_registered_as_a_program_leaves_at_once_runs_or_is_not_told() {
    for round in 0..200 {
        let ending = told("late-exit-now");
        assert_eq!(ending.code(), Some(3), "{round}: {ending}");
        assert!(ending.after("told ").len() <= ending.after("ran ").len(), "{round}: {ending}");
    }
}

#[test]
fn a_program_that_another_one_could_not_replace_goes_on_registering() {
    let ending = told("late-exec");
    assert_eq!(ending.code(), Some(3), "{ending}");
    assert!(ending.after("told ").len() <= ending.after("ran ").len(), "{ending}");
    assert_eq!((ending.after("again").len(), ending.after("other").len()), (1, 1), "{ending}");
}

#[test]
fn what_an_exit_still_asks_for_behind_a_signal_does_not_keep_it_from_dying_by_that() {
    for story in ["finalizer", "exit-now-after-signal", "exit-after-signal"] {
        let ending = told(story);
        assert_eq!(ending.signal(), Some(Signal::SIGTERM), "{story}: {ending}");
        assert_eq!(ending.stdout, "a\nat the end\n", "{story}: {ending}");
    }
}

/// Which thread is first is different each time: the one that leaves, or embed's, which tells it.
#[test]
fn a_signal_behind_the_last_finalizer_of_an_exit_is_still_what_it_ends_by() {
    for round in 0..200 {
        let ending = told("last-hook");
        assert_eq!(ending.signal(), Some(Signal::SIGTERM), "{round}: {ending}");
        assert_eq!(ending.stdout, "a\nat the end\n", "{round}: {ending}");
    }
}
