//! At whatever moment a signal arrives, every finalizer runs exactly once and every count is kept.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use nix::sys::signal::Signal;
use support::{Build, Ending, Oracle, Program, Watchdog};

use coverage::{Profiles, count};

#[path = "support/coverage.rs"]
mod coverage;

const PATIENCE: Duration = Duration::from_secs(900);

fn measured() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let build = || Build::program("embed_story", "measured").flag("-Cinstrument-coverage").build();
    BUILT.get_or_init(build)
}

/// Moments that differ from round to round and are the same in every run of the test.
struct Moments(u64);

impl Moments {
    /// Goes on to the next moment: a while of work, not of waiting.
    fn next(&mut self) {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        for step in 0..(self.0 >> 33) % 100_000 {
            black_box(step);
        }
    }
}

/// Starts the program, lets it say `ready`, sends a SIGTERM at some moment after.
fn round(command: &mut Command, moments: &mut Moments) -> Ending {
    let mut program = Program::start(command.env("RUST_BACKTRACE", "0"));
    program.wait_for_line("ready");
    moments.next();
    program.signal(Signal::SIGTERM);
    let input = program.hold_input();
    let ending = program.finish();
    drop(input);
    ending
}

#[test]
fn a_signal_from_the_first_instruction_of_main_on_finalizes_exactly_once() {
    measured();
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let mut moments = Moments(1);
    for _ in 0..1000 {
        // Blocked, as in a child that was started so, until there is something to finalize.
        let steps = ["mask:15", "say:ready", "finalizer:a", "finalizer:b", "handle:15", "park"];
        let mut command = Command::new(env!("CARGO_BIN_EXE_embed_story"));
        let ending = round(command.args(steps), &mut moments);
        assert_eq!(ending.signal(), Some(Signal::SIGTERM), "{ending}");
        assert_eq!(ending.stdout, "ready\nb\na\n", "{ending}");
        assert_eq!(ending.stderr, "", "{ending}");
    }
    oracle.nothing_left();
}

#[test]
fn a_signal_while_every_thread_allocates_saves_every_count() {
    measured();
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let mut moments = Moments(2);
    for _ in 0..200 {
        let profiles = Profiles::new();
        let mut command = profiles.command(measured(), "p-%p.profraw");
        let steps =
            ["handle:15", "finalizer:a", "calls:10", "allocate:3", "say:ready", "allocate:0"];
        let ending = round(command.args(steps), &mut moments);
        assert_eq!(ending.signal(), Some(Signal::SIGTERM), "{ending}");
        assert_eq!((&*ending.stdout, &*ending.stderr), ("ready\na\n", ""), "{ending}");
        assert_eq!((profiles.files().len(), profiles.count("measured_call")), (1, 10));
    }
    oracle.nothing_left();
}

#[test]
fn a_kill_while_it_saves_leaves_no_half_of_a_file() {
    measured();
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let mut moments = Moments(4);
    for _ in 0..100 {
        let profiles = Profiles::new();
        let mut command = profiles.command(measured(), "p-%p.profraw");
        let mut program =
            Program::start(command.args(["calls:10", "flush", "say:ready", "flush-for-ever"]));
        program.wait_for_line("ready");
        moments.next();
        program.signal(Signal::SIGKILL);
        assert_eq!(program.finish().signal(), Some(Signal::SIGKILL));
        let found = profiles.files();
        assert_eq!(found.iter().map(|file| count(file, "measured_call")).collect::<Vec<_>>(), [10]);
    }
    oracle.nothing_left();
}

#[test]
fn an_exit_and_a_signal_that_race_finalize_once_and_count_once() {
    measured();
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let mut moments = Moments(3);
    for turn in 0..200 {
        let profiles = Profiles::new();
        let mut command = profiles.command(measured(), "p-%p.profraw");
        let exit = ["std-exit:0", "exit:0", "cleanup"][turn % 3];
        let steps = ["handle:15", "finalizer:a", "finalizer:b", "calls:10", "say:ready", exit];
        let ending = round(command.args(steps), &mut moments);
        let by_signal = ending.signal() == Some(Signal::SIGTERM);
        assert!(by_signal || ending.code() == Some(0), "{exit}: {ending}");
        let ran: Vec<_> = ending.stdout.lines().filter(|line| line.len() == 1).collect();
        assert_eq!(ran, ["b", "a"], "{exit}: {ending}");
        assert_eq!(profiles.count("measured_call"), 10, "{exit}: {:?}", profiles.files());
    }
    oracle.nothing_left();
}
