//! What a hostile program does to its processes, in every way that once broke a promise: they end,
//! and end well, all the same.

use std::env;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use support::{Build, Ending, Gate, Marks, Oracle, Program, Watchdog, hooks};

const PATIENCE: Duration = Duration::from_secs(180);

/// For what is built first, on a machine that has other things to do as well.
const BUILD_PATIENCE: Duration = Duration::from_secs(1800);

fn start(story: &[&str], marks: &Marks, closing: &Gate) -> Program {
    let (name, directory) = marks.variable();
    let mut command = Command::new(env!("CARGO_BIN_EXE_hostile"));
    Program::start(command.args(story).env(name, directory).env("CLOSING", closing.path()))
}

/// Tells a story that ends by itself, and well.
#[track_caller]
fn ends_well(story: &str) {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let (marks, closing) = (Marks::new(), Gate::new());
    let mut program = start(&[story], &marks, &closing);
    program.reap();
    let left = oracle.leftovers().processes;
    assert!(left.is_empty(), "{story} left {left:#?}");
    let ending = program.finish();
    assert!(ending.status.success(), "{ending}");
    drop((marks, closing));
    oracle.nothing_left();
}

#[test]
fn a_pool_goes_on_when_fewer_descriptors_are_allowed_than_it_waits_for() {
    ends_well("few-descriptors");
}

#[test]
fn a_process_is_joined_and_its_answer_read_when_no_descriptors_are_allowed() {
    ends_well("no-descriptors");
}

#[test]
fn a_worker_that_dies_without_descriptors_for_another_is_replaced_when_there_are_some_again() {
    ends_well("descriptors-for-no-replacement");
}

#[test]
fn a_pool_whose_last_worker_dies_without_descriptors_for_another_is_broken_and_says_why() {
    ends_well("descriptors-for-no-last-worker");
}

#[test]
fn a_leaked_process_is_joined_at_exit_when_no_descriptors_are_allowed() {
    ends_well("no-descriptors-leaked");
}

#[test]
fn a_worker_serves_on_when_a_task_has_allowed_it_no_descriptors() {
    ends_well("no-descriptors-in-a-worker");
}

/// The program died of the signal, after its finalizers and those of all its processes.
#[track_caller]
fn died_well(ending: &Ending, marks: &Marks, processes: usize) {
    assert_eq!(ending.signal(), Some(Signal::SIGTERM), "{ending}");
    assert!(ending.stdout.ends_with("exiting\nfinalized\n"), "{ending}");
    assert_eq!(hooks::all_ran_once(marks), processes, "{ending}");
}

/// Sends a signal to a program that exits by itself and waits for its pools, the last of which
/// goes on for ever.
#[track_caller]
fn stops_the_pools(before: &[&str]) {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let (marks, mut closing) = (Marks::new(), Gate::new());
    let mut program = start(&[&["interrupted-exit"], before].concat(), &marks, &closing);
    program.wait_for_line("exiting");
    // A worker ends that has nothing to do: the program waits for its last pool, and for the task
    // there that goes on for ever.
    closing.wait();
    program.signal(Signal::SIGTERM);
    drop(closing);
    program.reap();
    let left = oracle.leftovers().processes;
    assert!(left.is_empty(), "{left:#?}");
    died_well(&program.finish(), &marks, 3);
    drop(marks);
    oracle.nothing_left();
}

/// The same, of one that waits for a process.
#[track_caller]
fn stops_the_process(before: &[&str]) {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let (marks, closing) = (Marks::new(), Gate::new());
    let story = [&["interrupted-exit-of-a-process"], before].concat();
    let mut program = start(&story, &marks, &closing);
    program.wait_for_line("exiting");
    program.signal(Signal::SIGTERM);
    program.reap();
    let left = oracle.leftovers().processes;
    assert!(left.is_empty(), "{left:#?}");
    died_well(&program.finish(), &marks, 1);
    drop((marks, closing));
    oracle.nothing_left();
}

#[test]
fn a_signal_stops_the_pools_that_a_program_waits_for_as_it_exits() {
    stops_the_pools(&[]);
}

#[test]
fn a_signal_stops_the_process_that_a_program_waits_for_as_it_exits() {
    stops_the_process(&[]);
}

#[test]
fn a_signal_stops_what_a_program_that_survived_another_one_waits_for_as_it_exits() {
    stops_the_pools(&["survivor"]);
    stops_the_process(&["survivor"]);
}

#[test]
fn a_signal_stops_what_a_program_without_a_deadline_waits_for_as_it_exits() {
    stops_the_pools(&["without-deadline"]);
    stops_the_process(&["without-deadline"]);
}

#[test]
fn a_constructor_that_starts_processes_does_so_once_and_not_in_them() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(BUILD_PATIENCE);
    let archive =
        Build::program("libstartup_native.a", "native").package("startup_native").library().build();
    let fixtures = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures"));
    let directory = tempfile::tempdir().unwrap();
    let host = directory.path().join("host");
    let mut cc = Command::new(env::var_os("CC").unwrap_or_else(|| "cc".into()));
    // In this order, the constructor comes after the hook by which a child is recognised.
    cc.arg("-o").arg(&host).arg(fixtures.join("startup_native/host.c")).arg(archive);
    cc.arg(fixtures.join("hostile/late.c")).args(["-lgcc_s", "-lpthread", "-ldl", "-lm"]);
    let made = cc.output().unwrap();
    assert!(made.status.success(), "{cc:?}: {}", String::from_utf8_lossy(&made.stderr));
    let ending = Program::start(&mut Command::new(&host)).finish();
    assert!(ending.status.success(), "{ending}");
    assert!(!ending.stdout.contains("the third of its line"), "{ending}");
    assert!(ending.stdout.contains("\nconstructor 9\n"), "{ending}");
    assert!(ending.stdout.ends_with("\nsquare 49\n"), "{ending}");
    assert_eq!(ending.stdout.lines().filter(|line| *line == "main").count(), 1, "{ending}");
    // In the children, which are there all the same, it is told why not.
    assert!(ending.stdout.contains("error a constructor that runs before main"), "{ending}");
    drop(directory);
    oracle.nothing_left();
}
