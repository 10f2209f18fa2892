//! What a callback asks for beside an ending that another thread has begun.

use std::process::Command;
use std::thread;

use nix::sys::signal::Signal;
use support::{Ending, Program, not_tried, procfs};

/// Ways to leave, in a callback.
const LEAVES: [&str; 4] = ["exit-on-stop", "std-exit-on-stop", "exit-now-on-stop", "exec-on-stop"];

fn story(steps: &[&str]) -> Program {
    let mut command = Command::new(env!("CARGO_BIN_EXE_embed_story"));
    Program::start(command.args(steps).env("RUST_BACKTRACE", "0"))
}

/// Its end, where nothing that is written to it makes it end.
fn end_of(mut program: Program) -> Ending {
    let input = program.hold_input();
    let ending = program.finish();
    drop(input);
    ending
}

#[test]
fn an_exit_that_hangs_ends_though_a_callback_leaves_as_well() {
    for leaves in LEAVES {
        let (oracle, _watchdog) = support::begin();
        // The hook is older than ours: it hangs when all finalizers have run.
        let mut program = story(&["waits-at-exit", "handle:15", "deadline:300", leaves]);
        program.wait_for_line("at exit");
        program.signal(Signal::SIGTERM);
        let ending = end_of(program);
        assert_eq!(ending.signal(), Some(Signal::SIGKILL), "{leaves}: {ending}");
        oracle.nothing_left();
    }
}

#[test]
fn an_exit_that_hangs_ends_though_a_callback_has_left_before_that() {
    let (older, newer) = (&["waits-at-exit", "handle:15"], &["handle:15", "registers-at-exit"]);
    // In the first the callback finds that the process has ended, in the others it ends the process: there its
    // thread hangs in a hook behind ours, or before that.
    for (hook, then) in [(older, "say:return"), (older, "cleanup,park"), (newer, "cleanup,park")] {
        let (oracle, _watchdog) = support::begin();
        let begin = ["deadline:100000", "on-stop", "exit-on-stop", "waits-and:deadline:300"];
        let steps: Vec<_> = then.split(',').collect();
        let mut program = story(&[&hook[..], &begin, &steps].concat());
        program.wait_for_line("waits begins");
        program.signal(Signal::SIGTERM);
        program.wait_for_line("Signal(15)");
        program.tell("go on");
        let ending = end_of(program);
        assert_eq!(ending.signal(), Some(Signal::SIGKILL), "{hook:?} {then}: {ending}");
        oracle.nothing_left();
    }
}

#[test]
fn an_exit_of_a_callbacks_that_hangs_ends_though_its_signal_was_to_end_nothing() {
    for leaves in ["exit-on-stop", "std-exit-on-stop"] {
        let (oracle, _watchdog) = support::begin();
        let hook = ["waits-at-exit", "user:10", "handle:10", "deadline:100000", "on-stop", leaves];
        let mut program =
            story(&[&hook[..], &["waits-and:deadline:300", "cleanup", "park"]].concat());
        program.wait_for_line("waits begins");
        program.signal(Signal::SIGUSR1);
        program.wait_for_line("Signal(10)");
        program.tell("go on");
        let ending = end_of(program);
        assert_eq!(ending.signal(), Some(Signal::SIGKILL), "{leaves}: {ending}");
        oracle.nothing_left();
    }
}

#[test]
fn a_callback_that_leaves_beside_an_exit_does_so_when_those_have_heard_that_the_exit_waits_for() {
    for leaves in LEAVES {
        let (oracle, _watchdog) = support::begin();
        // A hook that says so as it begins, and a finalizer that did before the callback.
        for (before, behind) in [("say:on", "hook-until-stop"), ("finalizer-until-stop", "say:on")]
        {
            let begin = ["handle:15", "deadline:20000", "finalizer:older", before, leaves, behind];
            let mut program = story(&begin);
            program.wait_for_line("drains");
            program.signal(Signal::SIGTERM);
            let ending = end_of(program);
            assert_eq!(ending.signal(), Some(Signal::SIGTERM), "{leaves}: {ending}");
            assert!(ending.stdout.contains("older"), "{leaves}: {ending}");
        }
        oracle.nothing_left();
    }
}

#[test]
fn an_exit_of_a_callbacks_that_hangs_ends_though_finalizers_came_late() {
    for leaves in ["exit-on-stop", "std-exit-on-stop"] {
        let (oracle, _watchdog) = support::begin();
        let hooks = ["waits-at-exit", "user:10", "handle:10", "registers-at-exit"];
        let begin = ["deadline:100000", "on-stop", leaves, "waits:slow", "cleanup", "park"];
        let mut program = story(&[&hooks[..], &begin].concat());
        program.wait_for_line("slow begins");
        program.signal(Signal::SIGUSR1);
        program.wait_for_line("Signal(10)");
        program.tell("go on");
        program.wait_for_line("registers");
        program.tell("go on");
        let ending = end_of(program);
        assert_eq!(ending.signal(), Some(Signal::SIGKILL), "{leaves}: {ending}");
        oracle.nothing_left();
    }
}

#[test]
fn a_program_that_a_callback_puts_in_the_place_of_this_one_begins_with_its_mask() {
    let (oracle, _watchdog) = support::begin();
    let begin = ["mask:12", "user:10", "handle:10", "deadline:100000"];
    let then = ["on-stop", "exec-on-stop:mask-of-child", "waits:slow", "cleanup", "park"];
    let mut program = story(&[&begin[..], &then].concat());
    program.wait_for_line("slow begins");
    program.signal(Signal::SIGUSR1);
    program.wait_for_line("Signal(10)");
    program.tell("go on");
    let ending = end_of(program);
    assert_eq!(ending.code(), Some(0), "{ending}");
    assert_eq!(ending.after("main "), ["SigBlk:\t0000000000000800"], "{ending}");
    oracle.nothing_left();
}

#[test]
fn a_callback_that_leaves_beside_an_exit_keeps_nobody_from_the_next_signal() {
    for leaves in ["exit-on-stop", "exit-now-on-stop", "exec-on-stop"] {
        let (oracle, _watchdog) = support::begin();
        let begin = ["waits-at-exit", "user:10", "handle:10", "handle:15", "deadline:100000"];
        let mut program = story(&[&begin[..], &[leaves]].concat());
        program.wait_for_line("at exit");
        program.signal(Signal::SIGUSR1);
        program.wait_for_line("handler 10");
        program.signal(Signal::SIGTERM);
        program.tell("go on");
        let ending = end_of(program);
        assert_eq!(ending.signal(), Some(Signal::SIGTERM), "{leaves}: {ending}");
        oracle.nothing_left();
    }
}

#[test]
fn a_callback_that_leaves_beside_a_cleanup_has_the_time_of_its_own_ending() {
    for leaves in LEAVES {
        let (oracle, _watchdog) = support::begin();
        let begin = ["handle:15", "deadline:100000", "on-stop", leaves, "waits-last:last"];
        let mut program = story(&[&begin[..], &["waits:slow", "cleanup", "park"]].concat());
        program.wait_for_line("slow begins");
        program.signal(Signal::SIGTERM);
        program.wait_for_line("Signal(15)");
        // It waits for its turn by no clock but the cleanup's.
        while procfs::timers_of(program.pid()).is_some_and(|timers| timers > 1) {
            thread::yield_now();
        }
        program.tell("go on");
        assert_eq!(program.wait_for_line("last begins"), "true", "{leaves}: there is no deadline");
        match procfs::timers_of(program.pid()) {
            Some(timers) => assert_eq!(timers, 1, "{leaves}: a clock is left of what ran beside"),
            None => not_tried("this kernel does not tell of timers"),
        }
        program.tell("go on");
        let ending = end_of(program);
        assert_eq!(ending.signal(), Some(Signal::SIGTERM), "{leaves}: {ending}");
        oracle.nothing_left();
    }
}

#[test]
fn an_exit_ends_though_finalizers_that_came_late_had_the_clock_of_its_signal() {
    let (oracle, _watchdog) = support::begin();
    let begin = ["waits-at-exit", "user:10", "handle:10", "handle:15", "deadline:100000"];
    let mut program = story(&[&begin[..], &["on-stop", "registers-at-exit", "exit:3"]].concat());
    program.wait_for_line("registers");
    program.signal(Signal::SIGTERM);
    program.wait_for_line("Signal(15)");
    // What comes behind it shows that embed's thread is done with the first.
    program.signal(Signal::SIGUSR1);
    program.wait_for_line("handler 10");
    program.tell("go on");
    let ending = end_of(program);
    assert_eq!(ending.signal(), Some(Signal::SIGKILL), "{ending}");
    assert!(ending.stdout.contains("late"), "{ending}");
    oracle.nothing_left();
}
