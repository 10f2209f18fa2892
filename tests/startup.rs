//! A process starts with nothing called in `main`, with nothing but its own, or not at all.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use epilogue::{Pool, Process};
use nix::sys::stat::Mode;
use nix::unistd::{Uid, mkfifo};
use support::{Ending, Marks, Oracle, Program, Watchdog, not_tried};

const PATIENCE: Duration = Duration::from_secs(180);
const STARTUP: &str = env!("CARGO_BIN_EXE_startup");
const VARIABLE: &str = concat!(
    "EPILOGUE_CHILD_",
    env!("CARGO_PKG_VERSION_MAJOR"),
    "_",
    env!("CARGO_PKG_VERSION_MINOR")
);

fn run(role: &str) -> Ending {
    Program::start(Command::new(STARTUP).args(role.split(' '))).finish()
}

/// The program's `main` ran once and ended well: no worker got as far as that.
#[track_caller]
fn assert_one_program(ending: &Ending) {
    assert!(ending.status.success(), "{ending}");
    assert_eq!(ending.stdout.lines().filter(|line| *line == "main").count(), 1, "{ending}");
    assert_eq!(ending.stderr, "", "{ending}");
}

#[track_caller]
fn assert_worked(ending: &Ending) {
    assert_one_program(ending);
    assert!(ending.stdout.ends_with("hello bob\nsum 5\n"), "{ending}");
}

#[test]
fn a_program_needs_nothing_in_main() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    assert_worked(&run("work"));
    oracle.nothing_left();
}

#[test]
fn a_test_needs_nothing_in_main() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let pool = Pool::new(2).unwrap();
    assert_eq!(pool.map(0..10u32, |x| x + 1).unwrap(), (1..11).collect::<Vec<_>>());
    assert!(pool.close().unwrap().is_clean());
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn a_worker_is_a_program_that_starts_workers() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let ending = run("nested");
    assert_one_program(&ending);
    assert_eq!(ending.after("nested "), ["470"], "{ending}");
    oracle.nothing_left();
}

/// Runs a copy of the program, and lets `change` the copy before it starts its first worker.
fn run_changed(change: impl FnOnce(&Path)) -> Ending {
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join("startup");
    fs::copy(STARTUP, &copy).unwrap();
    let mut program = Program::start(Command::new(&copy).arg("later"));
    program.wait_for_line("main");
    change(&copy);
    program.tell("go on");
    program.finish()
}

#[test]
fn a_program_that_was_deleted_still_starts_workers() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    assert_worked(&run_changed(|copy| fs::remove_file(copy).unwrap()));
    oracle.nothing_left();
}

#[test]
fn a_program_that_was_replaced_starts_workers_of_the_build_that_runs() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let ending = run_changed(|copy| {
        let other = copy.with_extension("new");
        fs::copy("/bin/false", &other).unwrap();
        fs::rename(&other, copy).unwrap();
    });
    assert_worked(&ending);
    oracle.nothing_left();
}

#[test]
fn a_child_that_never_says_hello_is_an_error_within_its_start_deadline() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let ending = run("fail hang");
    assert_one_program(&ending);
    let error = "NoHello { deadline: 300ms }";
    assert_eq!(ending.after("process "), [error], "{ending}");
    assert_eq!(ending.after("pool "), [error], "{ending}");
    oracle.nothing_left();
}

#[test]
fn a_child_that_dies_before_its_hello_is_an_error_that_says_how() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    for (role, status) in
        [("fail exit", "Exited(3)"), ("fail abort", "Signaled { signal: 6, core_dumped: ")]
    {
        let ending = run(role);
        assert_one_program(&ending);
        let error = format!("EndedEarly {{ status: {status}");
        for who in ["process ", "pool "] {
            let errors = ending.after(who);
            assert!(errors.len() == 1 && errors[0].starts_with(&error), "{who}: {ending}");
        }
    }
    oracle.nothing_left();
}

/// A process that is asked to stop as it starts is stopped before it is up, or after, or has
/// returned by then. There is no other end.
#[track_caller]
fn assert_stopped_or_done(ending: &Ending, rounds: usize) {
    assert_one_program(ending);
    let ends = ending.after("end ");
    let allowed = ["early killed by SIGTERM", "up killed by SIGTERM", "done"];
    assert!(ends.iter().all(|end| allowed.contains(end)), "{ending}");
    assert_eq!(ends.len(), rounds, "{ending}");
    assert!(ends.iter().any(|end| *end != "done"), "no signal came in time: {ending}");
}

#[test]
fn a_request_to_stop_between_start_and_hello_still_runs_the_finalizers() {
    const ROUNDS: usize = 100;
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let marks = Marks::new();
    let (name, value) = marks.variable();
    let mut command = Command::new(STARTUP);
    let program = Program::start(command.args(["terminate", &ROUNDS.to_string()]).env(name, value));
    let ending = program.finish();
    assert_stopped_or_done(&ending, ROUNDS);
    assert_eq!(marks.count("finalizer"), ROUNDS);
    oracle.nothing_left();
}

#[test]
fn a_request_to_stop_at_any_moment_of_a_start_still_runs_the_finalizers() {
    const ROUNDS: usize = 200;
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let marks = Marks::new();
    let (name, value) = marks.variable();
    let mut command = Command::new(STARTUP);
    let program = Program::start(command.args(["interrupt", &ROUNDS.to_string()]).env(name, value));
    let ending = program.finish();
    assert_stopped_or_done(&ending, ROUNDS);
    assert_eq!(marks.count("constructor"), ROUNDS, "a signal came before the handlers");
    assert_eq!(marks.pids("finalizer"), marks.pids("constructor"), "{ending}");
    oracle.nothing_left();
}

#[test]
fn a_worker_has_its_own_descriptors_and_none_of_its_parents() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let ending = run("descriptors");
    assert_one_program(&ending);
    for (who, count) in [("process ", 5), ("pool ", 6)] {
        let found = ending.after(who);
        let [null, out, error, wire, parent, ref bell @ ..] = found[..] else { panic!("{ending}") };
        assert_eq!(null, "0 /dev/null", "{ending}");
        assert!(out.starts_with("1 pipe:") && error.starts_with("2 pipe:"), "{ending}");
        assert!(wire.starts_with("3 socket:"), "{ending}");
        // Made by the worker itself: what it watches its parent by.
        let kinds = [&[parent], bell].concat();
        let kinds: Vec<_> = kinds.iter().map(|one| one.split_once(' ').unwrap().1).collect();
        assert!(kinds.contains(&"anon_inode:[pidfd]"), "{ending}");
        // A worker of a pool has one that it alone shares with its parent: the doorbell.
        assert!(count == 5 || kinds.contains(&"anon_inode:[eventfd]"), "{ending}");
        assert_eq!(found.len(), count, "{ending}");
    }
    oracle.nothing_left();
}

#[test]
fn a_worker_has_standard_descriptors_if_its_parent_has_none() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let directory = tempfile::tempdir().unwrap();
    let report = directory.path().join("report");
    let ending = Program::start(Command::new(STARTUP).arg("closed").arg(&report)).finish();
    assert_one_program(&ending);
    let report = fs::read_to_string(report).unwrap();
    assert!(report.starts_with("0 /dev/null\n1 /dev/null\n2 /dev/null\n3 socket:"), "{report}");
    oracle.nothing_left();
}

#[test]
fn a_worker_starts_with_an_empty_mask_and_default_actions() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let ending = run("signals");
    assert_one_program(&ending);
    // All but the two that the C library keeps for itself.
    let own = !(1u64 << 31 | 1 << 32);
    let mask = |name: &str| u64::from_str_radix(ending.after(name)[0], 16).unwrap() & own;
    let of = |signals: &[i32]| signals.iter().fold(0, |set, signal| set | 1u64 << (signal - 1));
    assert_eq!(mask("worker SigBlk:"), 0, "{ending}");
    // SIGPIPE, as in every Rust program.
    assert_eq!(mask("worker SigIgn:"), of(&[13]), "{ending}");
    // The terminal's are the parent's business; SIGTERM runs the finalizers.
    assert_eq!(mask("worker SigCgt:"), of(&[1, 2, 3, 15]), "{ending}");
    for name in ["grandchild SigBlk:", "grandchild SigIgn:", "grandchild SigCgt:"] {
        assert_eq!(mask(name), 0, "{name} {ending}");
    }
    oracle.nothing_left();
}

#[test]
fn ps_shows_what_a_worker_is() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let ending = run("names");
    assert_one_program(&ending);
    let arguments = ["startup: hash-1", "startup: a name of more than fifteen bytes"];
    assert_eq!(ending.after("argument "), arguments, "{ending}");
    assert_eq!(ending.after("thread "), ["hash-1", "a name of more"], "{ending}");
    oracle.nothing_left();
}

#[test]
fn what_makes_a_process_a_child_is_gone_in_the_child() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let ending = run("environment");
    assert_one_program(&ending);
    assert_eq!(ending.after("was there "), ["true"], "{ending}");
    // That of another version is not ours to take.
    assert_eq!(ending.after("worker "), ["EPILOGUE_CHILD_99_99"], "{ending}");
    assert_eq!(ending.after("grandchild ").len(), 1, "{ending}");
    oracle.nothing_left();
}

#[test]
fn a_worker_outlives_the_thread_that_started_it() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("pipe");
    mkfifo(&pipe, Mode::S_IRWXU).unwrap();
    let ending = Program::start(Command::new(STARTUP).arg("thread").arg(&pipe)).finish();
    assert_one_program(&ending);
    assert_eq!(ending.after("worker "), ["still here"], "{ending}");
    oracle.nothing_left();
}

#[test]
fn a_thousand_starts_leave_no_descriptor_and_no_thread() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE * 2);
    for round in 0..1000u32 {
        let process = Process::start(round, |round| round + 1).unwrap();
        assert_eq!(process.join().unwrap(), round + 1);
    }
    oracle.nothing_left();
}

#[test]
fn a_variable_that_was_set_by_hand_starts_nothing() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let long = "1".repeat(100);
    for value in ["", "1", "xyz", "-1", "0x1", "ffffffffffffffff", " 1", &long, "\u{fffd}"] {
        let mut command = Command::new(STARTUP);
        let ending = Program::start(command.arg("work").env(VARIABLE, value)).finish();
        assert_eq!((ending.code(), &*ending.stdout), (Some(125), ""), "{value:?}: {ending}");
    }
    oracle.nothing_left();
}

#[test]
fn a_variable_that_was_set_by_hand_does_not_wait_on_a_strangers_descriptor() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("pipe");
    mkfifo(&pipe, Mode::S_IRWXU).unwrap();
    // Nobody ever writes to the pipe, and it has no end, since its reader is its writer.
    for path in [pipe.to_str().unwrap(), "/dev/zero", "/dev/null"] {
        let script = "exec \"$0\" work 3<>\"$1\" 4<>\"$1\"";
        let mut command = Command::new("sh");
        command.args(["-c", script, STARTUP, path]).env(VARIABLE, "1");
        let ending = Program::start(&mut command).finish();
        assert_eq!((ending.code(), &*ending.stdout), (Some(125), ""), "{path}: {ending}");
    }
    // A socket, but not of the parent's making: that is the shell.
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "\"$0\" work 3<&0 4<&0; exit $?", STARTUP]).env(VARIABLE, "1");
    let output = command.stdin(OwnedFd::from(theirs)).output().unwrap();
    drop(command);
    assert_eq!((output.status.code(), &*output.stdout), (Some(125), &b""[..]));
    drop(ours);
    oracle.nothing_left();
}

#[test]
fn a_program_with_raised_privileges_starts_nothing_and_obeys_no_variable() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    if !Uid::effective().is_root() {
        not_tried("only root can make a program of root's");
        return oracle.nothing_left();
    }
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join("startup");
    fs::copy(STARTUP, &copy).unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o4755)).unwrap();
    for value in [None, Some("1"), Some("xyz")] {
        let mut command = Command::new(&copy);
        command.arg("errors").envs(value.map(|value| (VARIABLE, value))).uid(65534).gid(65534);
        let ending = Program::start(&mut command).finish();
        if ending.after("effective ") == ["65534"] {
            not_tried("this system does not raise privileges");
            continue;
        }
        assert_one_program(&ending);
        for who in ["process Privileged: ", "pool Worker(Privileged): ", "scope "] {
            let errors: BTreeSet<_> = ending.after(who).into_iter().collect();
            assert!(errors.len() == 1 && errors.first().unwrap().contains("AT_SECURE"), "{ending}");
        }
    }
    oracle.nothing_left();
}
