//! However suddenly a parent dies, nothing of it is left a second later, and the finalizers of
//! every worker ran once.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Duration;

use epilogue::{Process, Rung, embed};
use nix::sys::signal::{Signal, kill};
use support::{
    Gate, Marks, Oracle, Program, Random, Watchdog, await_end, begin, hooks, procfs, stop, sys,
};

const PATIENCE: Duration = Duration::from_secs(600);

/// When everything must be gone.
const BOUND: Duration = Duration::from_secs(1);

/// How often a parent is killed at a random instant. More by `EPILOGUE_TEST_PARENTS`.
const ROUNDS: u64 = 300;

fn rounds(of_default: u64) -> u64 {
    let rounds = std::env::var("EPILOGUE_TEST_PARENTS");
    rounds.map_or(of_default, |rounds| rounds.parse().unwrap())
}

fn program(story: &str, number: usize, marks: &Marks) -> Command {
    let (name, directory) = marks.variable();
    let mut command = Command::new(env!("CARGO_BIN_EXE_endings"));
    command.args([story, &number.to_string()]).env(name, directory).process_group(0);
    command
}

fn kill_a_parent_that_is(story: &str) {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let marks = Marks::new();
    let mut program = Program::start(&mut program(story, 0, &marks));
    program.wait_for_line("ready");
    program.signal(Signal::SIGKILL);
    program.reap();
    oracle.orphans_end_within(BOUND);
    drop(program);
    assert_eq!(hooks::all_ran_once(&marks), 2);
    assert_eq!(marks.count("task"), 0, "what had not begun was done");
    oracle.nothing_left();
}

#[test]
fn the_workers_of_an_idle_parent_that_is_killed_end_well() {
    kill_a_parent_that_is("idle");
}

#[test]
fn the_workers_of_a_busy_parent_that_is_killed_end_well() {
    kill_a_parent_that_is("unprepared");
}

#[test]
fn a_stopped_worker_is_woken_by_its_parents_death_and_ends_well() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let marks = Marks::new();
    let mut program = Program::start(&mut program("idle", 0, &marks));
    program.wait_for_line("ready");
    let workers = procfs::descendants_of(program.pid());
    assert_eq!(workers.len(), 2);
    for worker in &workers {
        stop(worker.pid);
    }
    program.signal(Signal::SIGKILL);
    program.reap();
    oracle.orphans_end_within(BOUND);
    drop(program);
    assert_eq!(hooks::all_ran_once(&marks), 2);
    oracle.nothing_left();
}

/// A worker that resists has the time that its parent granted, and the kernel sees to that.
fn a_worker_that_resists(story: &str) -> usize {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let marks = Marks::new();
    let mut program = Program::start(&mut program(story, 0, &marks));
    program.wait_for_line("ready");
    program.signal(Signal::SIGKILL);
    program.reap();
    oracle.orphans_end_within(BOUND);
    drop(program);
    let ran = hooks::all_ran_once(&marks);
    oracle.nothing_left();
    ran
}

#[test]
fn a_callback_that_never_returns_keeps_no_worker_alive_without_its_parent() {
    assert_eq!(a_worker_that_resists("stubborn-callback"), 1);
}

#[test]
fn callbacks_have_their_time_before_the_finalizers_have_theirs_when_the_parent_is_gone() {
    let (oracle, _watchdog) = begin();
    let (marks, mut gate) = (Marks::new(), Gate::new());
    let argument = (marks.path(), gate.path());
    let program = Process::start(argument, |argument| {
        let process = Process::start(argument, |(marks, gate): (PathBuf, PathBuf)| {
            embed::set_deadline(Duration::from_millis(400));
            // How long it takes, and more than all finalizers have.
            embed::on_stop(|_| thread::sleep(Duration::from_millis(600)));
            hooks::register(&marks);
            Gate::pass(&gate);
        });
        process.unwrap().join().unwrap();
    });
    gate.wait();
    assert_eq!(program.unwrap().kill().unwrap().rung, Rung::Kill);
    oracle.orphans_end_within(PATIENCE);
    assert_eq!(hooks::all_ran_once(&marks), 1);
    drop((marks, gate));
    oracle.nothing_left();
}

#[test]
fn a_finalizer_that_never_returns_keeps_no_worker_alive_without_its_parent() {
    a_worker_that_resists("stubborn-finalizer");
    a_worker_that_resists("stubborn-spin");
}

#[test]
fn a_hook_of_the_c_library_that_never_returns_keeps_no_worker_alive_without_its_parent() {
    a_worker_that_resists("stubborn-hook");
}

#[test]
fn a_worker_that_finishes_a_queue_of_its_own_as_it_exits_ends_with_its_parent() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let (marks, mut gate) = (Marks::new(), Gate::new());
    let mut command = program("exiting-worker", 0, &marks);
    let mut program = Program::start(command.env("GATE", gate.path()));
    // One has the task that goes on, the other one leaves, and is let through.
    let standing = gate.wait_for(2);
    let worker = procfs::descendants_of(program.pid())[0].pid;
    gate.open_for(standing.iter().position(|&pid| pid == worker).unwrap());
    program.signal(Signal::SIGKILL);
    program.reap();
    oracle.orphans_end_within(BOUND);
    drop((program, gate, marks));
    oracle.nothing_left();
}

#[test]
fn a_parent_that_is_killed_at_any_instant_leaves_nothing() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let mut random = Random::new(0x5EED_0003);
    let mut ended_well = 0;
    for round in 0..rounds(ROUNDS) {
        let marks = Marks::new();
        let mut program = Program::start(&mut program("starting", 2, &marks));
        // From its own start-up on, or from its first pool, to its third pool or so.
        if round % 2 == 1 {
            program.wait_for_line("registered");
        }
        thread::sleep(Duration::from_micros(random.below(30_000)));
        program.signal(Signal::SIGKILL);
        program.reap();
        oracle.orphans_end_within(BOUND);
        ended_well += hooks::all_that_told_ran_once(&marks);
    }
    assert!(ended_well as u64 >= rounds(ROUNDS) / 2, "only {ended_well} workers got to register");
    oracle.nothing_left();
}

/// The tree of a program whose pools are nested so deep.
fn size(depth: u32) -> usize {
    (1..=depth).map(|level| 2usize.pow(level)).sum()
}

#[test]
fn pools_in_pools_end_well_when_the_outermost_parent_is_killed() {
    for depth in 1..=3 {
        let oracle = Oracle::begin();
        let _watchdog = Watchdog::start(PATIENCE);
        let marks = Marks::new();
        let mut gate = Gate::new();
        let mut command = program("nested", depth as usize, &marks);
        let mut program = Program::start(command.env("GATE", gate.path()));
        gate.wait_for(2usize.pow(depth));
        program.signal(Signal::SIGKILL);
        program.reap();
        oracle.orphans_end_within(BOUND);
        drop((program, gate));
        assert_eq!(hooks::all_ran_once(&marks), size(depth));
        oracle.nothing_left();
    }
}

#[test]
fn all_below_end_well_whichever_level_of_pools_in_pools_is_killed() {
    const DEPTH: u32 = 3;
    for level in 1..=DEPTH {
        let oracle = Oracle::begin();
        let _watchdog = Watchdog::start(PATIENCE);
        let (marks, mut gate) = (Marks::new(), Gate::new());
        let mut command = program("nested", DEPTH as usize, &marks);
        let program = Program::start(command.env("GATE", gate.path()));
        let innermost = gate.wait_for(2usize.pow(DEPTH))[0];
        let all = procfs::descendants_of(program.pid());
        let parent = |pid| all.iter().find(|entry| entry.pid == pid).unwrap().parent;
        // From one at the gate, so many levels up. The others stay at the gate meanwhile.
        let killed = (level..DEPTH).fold(innermost, |pid, _| parent(pid));
        let below = procfs::descendants_of(killed);
        assert_eq!(below.len(), size(DEPTH - level));
        let below: Vec<_> = below.iter().map(|entry| sys::pidfd_open(entry.pid).unwrap()).collect();
        kill(killed, Signal::SIGKILL).unwrap();
        below.iter().for_each(await_end);
        drop(gate);
        // Its pool had a task of which nobody knows the value: it panics.
        let ending = program.finish();
        assert_eq!(ending.code(), Some(101), "{ending}");
        let mut expected = marks.pids("registered");
        assert_eq!(expected.len(), size(DEPTH), "{ending}");
        expected.retain(|&pid| pid != killed);
        for event in ["finalizer", "atexit"] {
            assert_eq!(marks.pids(event), expected, "{event}, level {level}: {ending}");
        }
        drop((below, marks));
        oracle.nothing_left_within(BOUND);
    }
}

#[test]
fn a_stopped_worker_of_a_pool_in_a_pool_ends_well_when_the_outermost_parent_is_killed() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let marks = Marks::new();
    let mut gate = Gate::new();
    let mut command = program("nested", 2, &marks);
    let mut program = Program::start(command.env("GATE", gate.path()));
    let innermost = gate.wait_for(4);
    stop(innermost[0]);
    program.signal(Signal::SIGKILL);
    program.reap();
    oracle.orphans_end_within(BOUND);
    drop((program, gate));
    assert_eq!(hooks::all_ran_once(&marks), size(2));
    oracle.nothing_left();
}

#[test]
fn pools_in_pools_end_well_when_the_outermost_parent_is_killed_at_any_instant() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let mut random = Random::new(0x5EED_0004);
    for _ in 0..rounds(ROUNDS) / 10 {
        let marks = Marks::new();
        let gate = Gate::new();
        let mut command = program("nested", 3, &marks);
        let mut program = Program::start(command.env("GATE", gate.path()));
        thread::sleep(Duration::from_micros(random.below(100_000)));
        program.signal(Signal::SIGKILL);
        program.reap();
        oracle.orphans_end_within(BOUND);
        hooks::all_that_told_ran_once(&marks);
    }
    oracle.nothing_left();
}
