//! The oracle and the watchdog can fail: each thing that a test relies on them to see, they see.

use std::any::Any;
use std::fs::File;
use std::panic::{self, AssertUnwindSafe};
use std::process::{Child, Command};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use support::{Oracle, Program, Watchdog};

const PATIENCE: Duration = Duration::from_secs(180);

fn sleeper() -> Child {
    Command::new("sleep").arg("1000").spawn().unwrap()
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().try_into().unwrap())
}

fn message(panic: Box<dyn Any + Send>) -> String {
    *panic.downcast::<String>().unwrap()
}

#[test]
fn a_child_that_is_left_is_listed_and_ended() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let mut program = Program::start(Command::new("sh").args(["-c", "echo ready; read line"]));
    program.wait_for_line("ready");
    let verdict = panic::catch_unwind(AssertUnwindSafe(|| oracle.nothing_left()));
    let message = message(verdict.unwrap_err());
    let line = format!("process {} (sh, state ", program.pid());
    assert!(message.contains(&line) && message.contains("echo ready; read line"), "{message}");
    assert!(oracle.leftovers().processes.is_empty(), "the oracle should have ended it");
    drop(program);
    oracle.nothing_left();
}

#[test]
fn a_zombie_is_seen_and_its_status_stays_with_its_owner() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let mut child = Command::new("sh").args(["-c", "exit 7"]).spawn().unwrap();
    waitid(Id::Pid(pid(&child)), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).unwrap();
    let left = oracle.leftovers();
    assert_eq!(left.processes.len(), 1, "{left}");
    assert_eq!((left.processes[0].pid, left.processes[0].state), (pid(&child), 'Z'));
    assert_eq!(child.wait().unwrap().code(), Some(7));
    oracle.nothing_left();
}

#[test]
fn an_orphan_comes_to_the_oracle_and_its_status_is_returned() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let mut program = Program::start(Command::new("sh").args(["-c", "(read line; exit 7) <&0 &"]));
    let stdin = program.hold_input();
    assert!(program.reap().success());
    assert_eq!(oracle.leftovers().processes.len(), 1);
    drop(stdin);
    let ended = oracle.orphans_end_within(PATIENCE);
    assert!(matches!(ended[..], [WaitStatus::Exited(_, 7)]), "{ended:?}");
    drop(program);
    oracle.nothing_left();
}

#[test]
fn an_orphan_that_outlives_the_bound_is_listed_and_ended() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let script = "sleep 1000 >/dev/null 2>&1 & echo $!";
    let mut program = Program::start(Command::new("sh").args(["-c", script]));
    let orphan = program.wait_for_line("");
    assert!(program.finish().status.success());
    let bound = Duration::from_millis(1);
    let verdict = panic::catch_unwind(AssertUnwindSafe(|| oracle.orphans_end_within(bound)));
    let message = message(verdict.unwrap_err());
    assert!(message.contains(&format!("process {orphan} (sleep")), "{message}");
    oracle.nothing_left();
}

#[test]
fn a_descriptor_that_is_left_open_is_listed() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let file = File::open("/dev/null").unwrap();
    let left = oracle.leftovers();
    assert_eq!(left.descriptors.len(), 1, "{left}");
    assert!(left.to_string().contains("-> /dev/null"), "{left}");
    drop(file);
    oracle.nothing_left();
}

#[test]
fn a_thread_that_is_left_is_listed_with_or_without_a_name() {
    let _watchdog = Watchdog::start(PATIENCE);
    for name in [Some("epilogue-left"), None] {
        let oracle = Oracle::begin();
        let (release, gate) = mpsc::channel::<()>();
        let (running, ready) = mpsc::channel::<()>();
        let mut builder = thread::Builder::new();
        if let Some(name) = name {
            builder = builder.name(name.to_owned());
        }
        let body = move || {
            drop(running);
            let _ = gate.recv();
        };
        let thread = builder.spawn(body).unwrap();
        let _ = ready.recv();
        assert_eq!(oracle.leftovers().threads.len(), 1, "{}", oracle.leftovers());
        drop(release);
        thread.join().unwrap();
        oracle.nothing_left();
    }
}

#[test]
fn a_thread_of_a_scope_that_is_still_ending_is_not_left() {
    struct Slow;
    impl Drop for Slow {
        fn drop(&mut self) {
            (0..100).for_each(|_| thread::yield_now());
        }
    }
    thread_local!(static SLOW: Slow = const { Slow });
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    thread::scope(|scope| {
        scope.spawn(|| SLOW.with(|_| ()));
    });
    oracle.nothing_left();
}

#[test]
fn a_thread_of_the_test_harness_is_not_taken_for_one_of_the_story() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let (release, gate) = mpsc::channel::<()>();
    let (running, ready) = mpsc::channel::<()>();
    let body = move || {
        drop(running);
        let _ = gate.recv();
    };
    let thread = thread::Builder::new().name("tests::some_test".to_owned()).spawn(body).unwrap();
    let _ = ready.recv();
    oracle.nothing_left();
    drop(release);
    thread.join().unwrap();
}

#[test]
fn an_oracle_that_is_never_asked_fails_the_test() {
    let _watchdog = Watchdog::start(PATIENCE);
    let unasked = panic::catch_unwind(|| drop(Oracle::begin()));
    assert!(unasked.is_err());
}

#[test]
#[expect(clippy::zombie_processes, reason = "that nobody waits for it is the story")]
fn a_test_that_fails_half_way_leaves_a_clean_house_to_the_next() {
    let _watchdog = Watchdog::start(PATIENCE);
    let failed = panic::catch_unwind(|| {
        let _oracle = Oracle::begin();
        let _child = sleeper();
        panic!("half-way");
    });
    assert!(failed.is_err());
    Oracle::begin().nothing_left();
}

#[test]
fn a_hang_becomes_a_failure_that_shows_the_tree_and_ends_it() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let mut hang = Program::start(&mut Command::new(env!("CARGO_BIN_EXE_hang")));
    let child = hang.wait_for_line("child ");
    let ending = hang.finish();
    assert_eq!(ending.signal(), Some(Signal::SIGABRT), "{ending}");
    assert!(ending.stderr.contains("watchdog: `main` has not ended"), "{ending}");
    assert!(ending.stderr.contains(&format!("  {child} (sleep, state ")), "{ending}");
    // The child would outlive our patience. Who reaps it, the hanging wait or we, is open.
    oracle.nothing_left_within(PATIENCE);
}

#[test]
fn a_program_is_killed_with_the_handle_that_a_failing_test_drops() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    drop(Program::start(Command::new("sleep").arg("1000")));
    oracle.nothing_left();
}

#[test]
fn what_a_program_says_arrives_whole_and_apart() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let script = "echo ready; read word; echo \"got $word\"; echo aside >&2; exit 3";
    let mut program = Program::start(Command::new("sh").args(["-c", script]));
    program.wait_for_line("ready");
    program.tell("go");
    let ending = program.finish();
    assert_eq!((ending.code(), ending.signal()), (Some(3), None));
    assert_eq!((&*ending.stdout, &*ending.stderr), ("ready\ngot go\n", "aside\n"));
    oracle.nothing_left();
}
