//! Whatever other code of a program does to its children, signals, directory and descriptors, a
//! process gives its value or a typed error, nothing hangs, and nothing is left.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use support::{Ending, Oracle, Program, Watchdog, not_tried};

/// By when a daemon must have ended, which nobody waits for.
const BOUND: Duration = Duration::from_secs(30);

/// Tells the story to its end: all must be gone with the program.
#[track_caller]
fn tell(story: &str) -> Ending {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(Duration::from_secs(180));
    let mut command = Command::new(env!("CARGO_BIN_EXE_process_neighbours"));
    let mut program = Program::start(command.arg(story).process_group(0));
    program.reap();
    // A daemon is nobody's child, and who aborts waits for nobody.
    if ["daemonizes", "closes-own"].contains(&story) {
        oracle.orphans_end_within(BOUND);
    }
    let left = oracle.leftovers().processes;
    assert!(left.is_empty(), "{story} left {left:#?}");
    let ending = program.finish();
    oracle.nothing_left();
    ending.after("not tried: ").into_iter().for_each(not_tried);
    ending
}

#[track_caller]
fn ends_well(story: &str) {
    let ending = tell(story);
    assert_eq!(ending.code(), Some(0), "{ending}");
    assert!(ending.stdout.ends_with("done\n"), "{ending}");
}

#[test]
fn values_are_right_where_another_thread_reaps_every_child_it_can() {
    ends_well("waits");
}

#[test]
fn values_are_right_where_sigchld_is_ignored() {
    ends_well("ignores");
}

#[test]
fn values_are_right_where_children_leave_no_zombies() {
    ends_well("no-zombies");
}

#[test]
fn a_parent_that_blocks_all_signals_starts_and_stops_processes() {
    ends_well("blocks");
}

#[test]
fn a_start_leaves_the_mask_of_its_thread_as_it_was_also_where_it_fails() {
    ends_well("masks");
}

#[test]
fn values_are_right_where_every_wait_is_interrupted_again_and_again() {
    ends_well("interrupts");
}

#[test]
fn a_fork_has_no_say_in_the_processes_of_its_original_and_takes_nothing_from_them() {
    ends_well("forks");
}

#[test]
fn a_program_that_daemonizes_starts_processes_afterwards() {
    ends_well("daemonizes");
}

#[test]
fn a_program_whose_directory_is_gone_starts_processes() {
    ends_well("changes-directory");
}

#[test]
fn a_fork_that_closes_every_descriptor_costs_its_original_nothing() {
    ends_well("closes");
}

#[test]
fn a_program_that_closes_descriptors_under_its_handles_does_not_hang() {
    let ending = tell("closes-own");
    // Rust's own library may find that a descriptor of its is gone, and then it aborts.
    let found_out = ending.stderr.contains("IO Safety violation");
    assert!(ending.code() == Some(0) || found_out, "{ending}");
}

#[test]
fn every_error_of_exec_and_clone_is_told_and_leaves_nothing() {
    ends_well("exec-fails");
}

#[test]
fn an_environment_that_no_exec_takes_is_told_and_leaves_nothing() {
    ends_well("argument-list");
}

#[test]
fn with_every_number_of_descriptors_a_start_works_or_fails_and_leaves_none_open() {
    ends_well("descriptors");
}

#[test]
fn a_user_who_may_have_no_more_processes_is_told_so_and_nothing_is_left() {
    ends_well("processes");
}
