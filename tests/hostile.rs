//! What a hostile program does to its processes, in every way that once broke a promise: they end,
//! and end well, all the same.

use std::process::Command;
use std::time::Duration;

use support::{Oracle, Program, Watchdog};

const PATIENCE: Duration = Duration::from_secs(60);

/// Tells a story that ends by itself, and well.
#[track_caller]
fn ends_well(story: &str) {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let mut program = Program::start(Command::new(env!("CARGO_BIN_EXE_hostile")).arg(story));
    program.reap();
    let left = oracle.leftovers().processes;
    assert!(left.is_empty(), "{story} left {left:#?}");
    let ending = program.finish();
    assert!(ending.status.success(), "{ending}");
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
fn a_leaked_process_is_joined_at_exit_when_no_descriptors_are_allowed() {
    ends_well("no-descriptors-leaked");
}

#[test]
fn a_worker_serves_on_when_a_task_has_allowed_it_no_descriptors() {
    ends_well("no-descriptors-in-a-worker");
}
