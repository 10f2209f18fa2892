//! What a hostile program does to its processes, in every way that once broke a promise: they end,
//! and end well, all the same.

use std::env;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use support::{Build, Oracle, Program, Watchdog};

const PATIENCE: Duration = Duration::from_secs(60);

/// For what is built first, on a machine that has other things to do as well.
const BUILD_PATIENCE: Duration = Duration::from_secs(540);

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
