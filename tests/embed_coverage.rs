//! Coverage data survives the end of a process, exact to the count.

use std::fs;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{Build, Ending, Oracle, Program, Watchdog, not_tried, sys};

use coverage::{Profiles, count};

#[path = "support/coverage.rs"]
mod coverage;

const PATIENCE: Duration = Duration::from_secs(180);
const CALL: &str = "measured_call";
const FINALIZER: &str = "measured_finalizer";

/// The fixture with its coverage measured, in three ways.
struct Builds {
    usual: PathBuf,
    continuous: PathBuf,
    aborting: PathBuf,
}

/// All are built before the first story: a compiler's run would be seen as left behind by it.
fn builds() -> &'static Builds {
    static BUILDS: OnceLock<Builds> = OnceLock::new();
    let build = |variant| Build::program("embed_story", variant).flag("-Cinstrument-coverage");
    BUILDS.get_or_init(|| Builds {
        usual: build("measured").build(),
        continuous: build("continuous").flag("-Cllvm-args=-runtime-counter-relocation").build(),
        aborting: build("aborting").config("profile.dev.panic=\"abort\"").build(),
    })
}

fn measured() -> &'static Path {
    &builds().usual
}

/// A story of the measured program, and the profiles that it leaves.
///
/// The oracle is dropped last: taking the directory away opens descriptors.
struct Story {
    profiles: Profiles,
    pattern: &'static str,
    _watchdog: Watchdog,
    oracle: Oracle,
}

impl Story {
    fn new() -> Self {
        // Not part of any story's time.
        measured();
        let oracle = Oracle::begin();
        let watchdog = Watchdog::start(PATIENCE);
        Self { profiles: Profiles::new(), pattern: "p-%p.profraw", _watchdog: watchdog, oracle }
    }

    fn with_pattern(pattern: &'static str) -> Self {
        let mut story = Self::new();
        story.pattern = pattern;
        story
    }

    fn start(&self, steps: &[&str]) -> Program {
        let mut command = self.profiles.command(measured(), self.pattern);
        Program::start(command.args(steps))
    }

    /// Runs a story that needs nobody from outside.
    #[track_caller]
    fn run(&self, steps: &[&str]) -> Ending {
        let ending = self.start(steps).finish();
        self.oracle.nothing_left();
        ending
    }

    /// Asserts how often the measured function ran, and that nothing but whole profiles is there.
    #[track_caller]
    fn counted(&self, calls: u64, files: usize) {
        let found = self.profiles.files();
        assert_eq!(found.len(), files, "{found:?}");
        assert_eq!(self.profiles.count(CALL), calls, "{found:?}");
    }
}

#[test]
fn a_signal_that_ends_the_process_leaves_every_count_in_one_file() {
    for (number, signal) in
        [(15, Signal::SIGTERM), (2, Signal::SIGINT), (1, Signal::SIGHUP), (10, Signal::SIGUSR1)]
    {
        for pattern in ["p-%p.profraw", "p-%m.profraw", "p-%p-%m.profraw", "p-%p-%2m.profraw"] {
            let story = Story::with_pattern(pattern);
            let handle = format!("handle:{number}");
            let mut program =
                story.start(&[&handle, "finalizer:a", "calls:10", "say:ready", "wait"]);
            program.wait_for_line("ready");
            program.signal(signal);
            let input = program.hold_input();
            let ending = program.finish();
            drop(input);
            assert_eq!(ending.signal(), Some(signal), "{ending}");
            assert_eq!(ending.stderr, "", "{ending}");
            story.counted(10, 1);
            // The second save replaced the first: finalizers are measured, too.
            assert_eq!(story.profiles.count(FINALIZER), 1);
            story.oracle.nothing_left();
        }
    }
}

#[test]
fn without_embed_the_data_is_lost() {
    let story = Story::new();
    let ending = story.run(&["calls:10", "raise:15"]);
    assert_eq!(ending.signal(), Some(Signal::SIGTERM), "{ending}");
    story.counted(0, 0);
}

#[test]
fn a_plain_build_ends_the_same_way_and_writes_nothing() {
    builds();
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let profiles = Profiles::new();
    let plain = Path::new(env!("CARGO_BIN_EXE_embed_story"));
    let mut command = profiles.command(plain, "p-%p.profraw");
    let steps = ["same", "handle:15", "handle-crash", "finalizer:a", "flush", "raise:15", "park"];
    let ending = Program::start(command.args(steps)).finish();
    assert_eq!(ending.signal(), Some(Signal::SIGTERM), "{ending}");
    assert_eq!((&*ending.stdout, &*ending.stderr), ("instrumented false\na\n", ""), "{ending}");
    assert_eq!(fs::read_dir(profiles.path()).unwrap().count(), 0);
    oracle.nothing_left();
}

#[test]
fn every_way_out_counts_each_call_once() {
    for (way, files) in [
        ("say:return", 1),
        ("exit:3", 1),
        ("std-exit:0", 1),
        ("exit-now:0", 1),
        ("flush", 1),
        ("cleanup", 1),
        ("panic", 1),
        ("exec:say:new", 2),
        ("abort", 1),
    ] {
        for pattern in ["p-%p.profraw", "p-%m.profraw", "p.profraw"] {
            let story = Story::with_pattern(pattern);
            story.run(&["handle:15", "handle-crash", "finalizer:a", "calls:10", way]);
            story.counted(10, files);
        }
    }
}

#[test]
fn flushing_again_and_again_adds_nothing() {
    for pattern in ["p-%p.profraw", "p-%m.profraw", "p.profraw"] {
        let story = Story::with_pattern(pattern);
        let ending = story.run(&["calls:10", "flush", "calls:1", "flush", "flush"]);
        assert_eq!(ending.code(), Some(0), "{ending}");
        story.counted(11, 1);
    }
}

#[test]
fn a_signal_that_the_program_survives_adds_nothing() {
    let survivors = [&["ignore:15", "handle:15"][..], &["user:15", "handle:15", "handle:15"]];
    for survive in survivors {
        let story = Story::new();
        let steps = [survive, &["calls:10", "raise:15", "raise:15", "calls:1", "wait"]].concat();
        let ending = story.run(&steps);
        assert_eq!(ending.code(), Some(0), "{ending}");
        story.counted(11, 1);
    }
}

#[test]
fn the_data_is_saved_before_the_finalizers_and_before_the_handler_that_was_there() {
    let story = Story::new();
    let mut program = story.start(&[
        "deadline:60000",
        "user:15",
        "handle:15",
        "waits:slow",
        "calls:10",
        "say:ready",
        "park",
    ]);
    program.wait_for_line("ready");
    program.signal(Signal::SIGTERM);
    program.wait_for_line("slow begins");
    story.counted(10, 1);
    program.tell("go on");
    program.wait_for_line("handler");
    // Killed before it exits: what the handler and the cleanup saved is there.
    program.signal(Signal::SIGKILL);
    assert_eq!(program.finish().signal(), Some(Signal::SIGKILL));
    story.counted(10, 1);
    story.oracle.nothing_left();
}

#[test]
fn a_stuck_finalizer_costs_no_data() {
    for end in ["raise:15", "exit:0", "std-exit:0"] {
        let story = Story::new();
        let ending = story.run(&["handle:15", "deadline:50", "spins:a", "calls:10", end, "park"]);
        assert_eq!(ending.signal(), Some(Signal::SIGKILL), "{ending}");
        story.counted(10, 1);
    }
}

/// The hook is older than embed's, so it runs after that, and before the runtime has written.
#[test]
fn what_was_saved_stays_until_the_runtime_has_written_at_a_normal_exit() {
    for pattern in ["p-%p.profraw", "p-%m.profraw", "p.profraw"] {
        let story = Story::with_pattern(pattern);
        let mut program = story.start(&["waits-at-exit", "calls:10", "flush"]);
        program.wait_for_line("at exit");
        program.signal(Signal::SIGKILL);
        assert_eq!(program.finish().signal(), Some(Signal::SIGKILL));
        story.counted(10, 1);
        story.oracle.nothing_left();
    }
}

#[test]
fn a_copy_that_is_killed_in_its_exit_keeps_what_was_saved() {
    let story = Story::new();
    let fork = "fork:calls:10,flush,std-exit:0";
    let mut program = story.start(&["waits-at-exit", "handle:15", fork, "reap"]);
    // Its original may tell of it before or after.
    let child = program.wait_for_line("at exit");
    kill(Pid::from_raw(child.parse().unwrap()), Signal::SIGKILL).unwrap();
    program.wait_for_line("reaped SIGKILL");
    program.tell("go on");
    let ending = program.finish();
    assert_eq!(ending.code(), Some(0), "{ending}");
    // The original has called nothing.
    story.counted(10, 2);
    story.oracle.nothing_left();
}

#[test]
fn a_crash_in_the_middle_of_an_exit_costs_no_data() {
    let story = Story::new();
    let ending = story.run(&["aborts-at-exit", "handle-crash", "calls:10"]);
    assert_eq!(ending.signal(), Some(Signal::SIGABRT), "{ending}");
    story.counted(11, 1);
}

/// A hook that is older than embed's, and one that is newer.
#[test]
fn what_runs_at_exit_on_the_way_to_a_death_by_a_signal_is_counted() {
    for (steps, calls) in [
        (&["calls-at-exit", "handle:15", "calls-at-exit", "calls:10", "raise:15", "park"][..], 12),
        (&["is-hit-and-leaves-at-exit", "handle:15", "calls:10"], 11),
    ] {
        let story = Story::new();
        let ending = story.run(steps);
        assert_eq!(ending.signal(), Some(Signal::SIGTERM), "{ending}");
        story.counted(calls, 1);
    }
}

#[test]
fn a_flush_saves_what_an_exit_at_once_or_a_bare_exec_would_lose() {
    for (steps, calls, files) in [
        (&["calls:10", "flush", "leave-at-once:0"][..], 10, 1),
        // Both images have the same pid, and neither overwrites the other.
        (&["calls:10", "flush", "bare-exec:calls:5,say:new"], 15, 2),
        (&["handle:15", "calls:10", "exec:handle:15,calls:5,raise:15,park"], 15, 2),
    ] {
        let story = Story::new();
        story.run(steps);
        story.counted(calls, files);
    }
}

#[test]
fn a_crash_saves_the_data_and_happens_all_the_same() {
    for (crash, signal, message) in [
        ("abort", Signal::SIGABRT, ""),
        ("fault", Signal::SIGSEGV, ""),
        ("raise:8", Signal::SIGFPE, ""),
        ("overflow", Signal::SIGABRT, "has overflowed its stack"),
        ("thread:overflow", Signal::SIGABRT, "has overflowed its stack"),
        ("thread:fault", Signal::SIGSEGV, ""),
        ("thread:abort", Signal::SIGABRT, ""),
    ] {
        let story = Story::new();
        let ending = story.run(&["handle-crash", "finalizer:a", "calls:10", crash, "park"]);
        assert_eq!(ending.signal(), Some(signal), "{crash}: {ending}");
        assert!(ending.stderr.contains(message), "{crash}: {ending}");
        assert_eq!(ending.stdout, "", "{crash}: memory is not to be trusted: {ending}");
        story.counted(10, 1);
    }
}

#[test]
fn crashes_that_two_threads_survive_at_once_cost_a_later_one_no_data() {
    let story = Story::new();
    let ending = story.run(&["recover-together:11", "calls:10", "abort"]);
    assert_eq!(ending.signal(), Some(Signal::SIGABRT), "{ending}");
    story.counted(10, 1);
}

#[test]
fn a_finalizer_that_overflows_its_stack_costs_no_data() {
    let story = Story::new();
    let steps = ["handle:15", "handle-crash", "overflows:a", "calls:10", "raise:15", "park"];
    let ending = story.run(&steps);
    assert!(matches!(ending.signal(), Some(Signal::SIGSEGV | Signal::SIGABRT)), "{ending}");
    story.counted(10, 1);
    assert_eq!(story.profiles.count(FINALIZER), 1, "what ran up to there");
}

#[test]
fn copies_that_end_together_each_write_their_own_file() {
    for (end, pattern) in [
        ("std-exit:0", "p-%p.profraw"),
        ("std-exit:0", "p.profraw"),
        ("raise:15", "p-%p.profraw"),
        ("exit:0", "p-%p-%m.profraw"),
        ("exit-now:0", "p.profraw"),
    ] {
        let story = Story::with_pattern(pattern);
        let forks = format!("forks:20,calls:1,{end},park");
        let ending = story.run(&["handle:15", "finalizer:a", "calls:10", &forks, "reap"]);
        assert_eq!(ending.code(), Some(0), "{ending}");
        assert_eq!(ending.stdout.matches("reaped").count(), 20, "{ending}");
        // A copy begins with its parent's counts.
        story.counted(20 * 11 + 10, 21);
        assert_eq!(story.profiles.count(FINALIZER), 1, "{end}: only the parent's ran");
    }
}

#[test]
fn copies_that_merge_on_purpose_still_do() {
    let story = Story::with_pattern("p-%m.profraw");
    story.run(&["handle:15", "calls:10", "forks:20,calls:1", "reap"]);
    story.counted(20 * 11 + 10, 1);
}

#[test]
fn a_copys_file_bears_its_pid() {
    let story = Story::new();
    let ending = story.run(&["handle:15", "fork:calls:1,raise:15,park", "reap"]);
    let child = ending.stdout.lines().find_map(|line| line.strip_prefix("child ")).unwrap();
    let name = format!(".embed-{child}-");
    let files = story.profiles.files();
    let own = files.iter().filter(|file| file.to_string_lossy().contains(&name));
    assert_eq!(own.map(|file| count(file, CALL)).collect::<Vec<_>>(), [1], "{files:?}");
}

#[test]
fn the_directory_is_made_and_a_relative_name_means_the_directory_at_start() {
    for end in ["raise:15", "std-exit:0", "leave-at-once:0"] {
        let story = Story::new();
        let elsewhere = story.profiles.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        let chdir = format!("chdir:{}", elsewhere.display());
        let mut command = story.profiles.command(measured(), "");
        command.current_dir(story.profiles.path()).env("LLVM_PROFILE_FILE", "deep/er/p-%p.profraw");
        // As in a process that an instrumented one has started: the runtime makes no directory.
        command.env("__LLVM_PROFILE_RT_INIT_ONCE", "__LLVM_PROFILE_RT_INIT_ONCE");
        command.args(["handle:15", &chdir, "calls:10", "flush", end, "park"]);
        let program = Program::start(&mut command);
        program.finish();
        story.counted(10, 1);
        assert!(story.profiles.files()[0].starts_with(story.profiles.path().join("deep/er")));
        assert_eq!(fs::read_dir(elsewhere).unwrap().count(), 0);
        story.oracle.nothing_left();
    }
}

#[test]
fn the_directory_that_was_compiled_into_a_program_is_where_its_data_goes() {
    let build = Build::program("embed_story", "generating").flag("-Cprofile-generate=of-the-build");
    let generating = build.build();
    for end in ["raise:15", "std-exit:0", "leave-at-once:0"] {
        let story = Story::new();
        let mut command = story.profiles.command(&generating, "");
        command.current_dir(story.profiles.path()).env_remove("LLVM_PROFILE_FILE");
        Program::start(command.args(["handle:15", "calls:10", "flush", end, "park"])).finish();
        let files = story.profiles.files();
        assert_eq!(files.len(), 1, "{files:?}");
        assert!(files[0].starts_with(story.profiles.path().join("of-the-build")), "{files:?}");
        story.oracle.nothing_left();
    }
}

#[test]
fn a_tools_glob_finds_the_file() {
    // cargo-llvm-cov collects `NAME-*.profraw` in the target directory.
    let story = Story::with_pattern("name-%p-%m.profraw");
    story.run(&["handle:15", "calls:10", "raise:15", "park"]);
    let file = &story.profiles.files()[0];
    let name = file.file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with("name-") && name.ends_with(".profraw"), "{name}");
    assert_eq!(file.parent(), Some(story.profiles.path()));
}

/// However many signals came, it ended once, and one whole file has all its counts.
#[track_caller]
fn one_ending(story: Story, ending: &Ending) {
    assert_eq!(ending.stdout, "ready\na\n", "{ending}");
    story.counted(10, 1);
    story.oracle.nothing_left();
}

#[test]
fn five_signals_at_once_are_one_ending_and_every_file_is_whole() {
    for _ in 0..50 {
        let story = Story::new();
        let mut program =
            story.start(&["handle:15", "finalizer:a", "calls:10", "say:ready", "wait"]);
        program.wait_for_line("ready");
        (0..5).for_each(|_| program.signal(Signal::SIGTERM));
        let input = program.hold_input();
        let ending = program.finish();
        drop(input);
        assert_eq!(ending.signal(), Some(Signal::SIGTERM), "{ending}");
        one_ending(story, &ending);
    }
}

/// Each of them saves, for each has a number of its own, the last while another thread ends the process.
#[test]
fn signals_up_to_the_very_end_leave_no_part_of_a_file() {
    let signals = [1, 3, 10, 12, 13, 14, 15, 24, 25, 26, 27, 29, 30];
    let handled: Vec<_> = signals.iter().map(|signal| format!("handle:{signal}")).collect();
    let steps = ["finalizer:a", "calls:10", "say:ready", "wait"];
    let steps: Vec<_> = handled.iter().map(String::as_str).chain(steps).collect();
    for _ in 0..60 {
        let story = Story::new();
        let mut program = story.start(&steps);
        program.wait_for_line("ready");
        let pidfd = sys::pidfd_open(program.pid()).unwrap();
        let input = program.hold_input();
        for signal in signals {
            // One that has ended waits to be reaped, and takes them all the same.
            sys::pidfd_signal(pidfd.as_fd(), Signal::try_from(signal).unwrap()).unwrap();
            thread::sleep(Duration::from_micros(100));
        }
        drop(pidfd);
        let ending = program.finish();
        drop(input);
        let death = ending.signal().unwrap() as i32;
        assert!(signals.contains(&death), "{ending}");
        one_ending(story, &ending);
    }
}

/// They come faster than data can be saved, and as fast as they can be sent.
#[test]
fn signals_without_end_do_not_keep_a_process_from_its_own() {
    for pause in [Some(Duration::from_micros(100)), None] {
        let story = Story::new();
        let mut program =
            story.start(&["handle:15", "finalizer:a", "calls:10", "say:ready", "wait"]);
        program.wait_for_line("ready");
        let pidfd = sys::pidfd_open(program.pid()).unwrap();
        let input = program.hold_input();
        while !has_ended(pidfd.as_fd()) {
            sys::pidfd_signal(pidfd.as_fd(), Signal::SIGTERM).unwrap();
            pause.into_iter().for_each(thread::sleep);
        }
        drop(pidfd);
        let ending = program.finish();
        drop(input);
        assert_eq!(ending.signal(), Some(Signal::SIGTERM), "{ending}");
        one_ending(story, &ending);
    }
}

#[test]
fn a_program_that_is_replaced_while_it_saves_leaves_no_part_of_a_file() {
    let story = Story::new();
    // In memory no call sleeps: a thread that saves loses its CPU anywhere.
    let in_memory = Path::new("/dev/shm");
    let usual = std::env::temp_dir();
    let place = tempfile::tempdir_in(if in_memory.is_dir() { in_memory } else { &usual }).unwrap();
    for _ in 0..20 {
        let mut command = story.profiles.command(measured(), story.pattern);
        command.env("LLVM_PROFILE_FILE", place.path().join(story.pattern));
        let steps = ["calls:10", "exec-amid-saves:calls:5,say:new"];
        let ending = Program::start(command.args(steps)).finish();
        assert_eq!((ending.code(), ending.stdout.as_str()), (Some(0), "new\n"), "{ending}");
    }
    let names = fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().path());
    let parts: Vec<_> =
        names.filter(|name| !name.to_string_lossy().ends_with(".profraw")).collect();
    assert!(parts.is_empty(), "{parts:?}");
    drop(place);
    story.oracle.nothing_left();
}

#[test]
fn a_program_that_could_not_be_replaced_goes_on_being_measured() {
    let story = Story::new();
    let ending = story.run(&["calls:10", "exec-nothing", "calls:5", "flush", "leave-at-once:0"]);
    assert_eq!(ending.code(), Some(0), "{ending}");
    story.counted(15, 1);
}

/// Whether the process is gone, but for being reaped.
fn has_ended(pidfd: BorrowedFd<'_>) -> bool {
    let mut polled = [PollFd::new(pidfd, PollFlags::POLLIN)];
    poll(&mut polled, PollTimeout::ZERO).unwrap() > 0
}

#[test]
fn a_directory_that_takes_no_file_is_told_in_one_line_and_the_process_still_ends() {
    let story = Story::new();
    let blocked = story.profiles.path().join("blocked");
    fs::write(&blocked, "not a directory").unwrap();
    let mut command = story.profiles.command(measured(), "blocked/p-%p.profraw");
    command.args([
        "handle:15",
        "user:1",
        "handle:1",
        "finalizer:a",
        "flush",
        "raise:1",
        "raise:15",
    ]);
    let ending = Program::start(command.arg("park")).finish();
    assert_eq!(ending.signal(), Some(Signal::SIGTERM), "{ending}");
    let ours = ending.stderr.lines().filter(|line| line.starts_with("epilogue: ")).count();
    assert_eq!(ours, 1, "{ending}");
    assert!(ending.stdout.contains("flush cannot save coverage data to "), "{ending}");
    assert!(ending.stdout.contains("\na\n"), "{ending}");
    story.oracle.nothing_left();
}

#[test]
fn a_full_disk_leaves_no_part_of_a_file() {
    // A limit of the process on the size of files stands in for the disk's.
    let story = Story::new();
    let script = "ulimit -f 1; trap '' XFSZ; exec \"$0\" \"$@\"";
    let mut command = story.profiles.command(Path::new("sh"), "p-%p.profraw");
    command.args(["-c", script]).arg(measured());
    let steps = ["handle:15", "finalizer:a", "calls:10", "flush", "raise:15", "park"];
    let ending = Program::start(command.args(steps)).finish();
    assert_eq!(ending.signal(), Some(Signal::SIGTERM), "{ending}");
    assert!(ending.stdout.contains("flush cannot save coverage data to "), "{ending}");
    assert_eq!(ending.stderr.lines().count(), 1, "{ending}");
    story.counted(0, 0);
    story.oracle.nothing_left();
}

#[test]
fn a_handler_in_which_calls_fail_leaves_errno_as_it_was() {
    let story = Story::new();
    let script = "ulimit -f 1; trap '' XFSZ; exec \"$0\" \"$@\"";
    let mut command = story.profiles.command(Path::new("sh"), "p-%p.profraw");
    command.args(["-c", script]).arg(measured());
    // The handler saves the data, for which there is no room. The finalizer holds the end up until
    // the handler has returned on the other thread.
    command.args(["handle:15", "waits:a", "calls:10", "errno-across:15", "park"]);
    let mut program = Program::start(&mut command);
    let errno = program.wait_for_line("errno ");
    program.tell("end");
    let ending = program.finish();
    assert_eq!(errno, "77", "{ending}");
    assert_eq!(ending.signal(), Some(Signal::SIGTERM), "{ending}");
    story.counted(0, 0);
    story.oracle.nothing_left();
}

#[test]
fn a_limit_on_the_size_of_files_does_not_end_the_process() {
    // The signal that the kernel sends with the error has its default action, which is deadly.
    let story = Story::new();
    let mut command = story.profiles.command(Path::new("sh"), "p-%p.profraw");
    command.args(["-c", "ulimit -f 1; exec \"$0\" \"$@\""]).arg(measured());
    let steps = ["handle:15", "finalizer:a", "calls:10", "flush", "raise:15", "park"];
    let ending = Program::start(command.args(steps)).finish();
    assert_eq!(ending.signal(), Some(Signal::SIGTERM), "{ending}");
    assert!(ending.stdout.contains("flush cannot save coverage data to "), "{ending}");
    assert!(ending.stdout.ends_with("a\n"), "{ending}");
    assert_eq!(ending.stderr.lines().count(), 1, "{ending}");
    story.counted(0, 0);
    story.oracle.nothing_left();
}

#[test]
fn a_full_file_system_leaves_no_part_of_a_file() {
    let story = Story::new();
    // The mount is seen by one thread and what it starts, and is gone with them.
    let profiles = &story.profiles;
    thread::scope(|scope| scope.spawn(|| fill_and_run(profiles)).join()).unwrap();
    story.oracle.nothing_left();
}

fn fill_and_run(profiles: &Profiles) {
    let nowhere: Option<&str> = None;
    let directory = profiles.path();
    let mounted = unshare(CloneFlags::CLONE_NEWNS)
        .and_then(|()| mount(nowhere, "/", nowhere, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nowhere))
        .and_then(|()| {
            let size = Some("size=1m");
            mount(Some("none"), directory, Some("tmpfs"), MsFlags::empty(), size)
        });
    if let Err(error) = mounted {
        return not_tried(format!("no file system may be mounted here to be filled: {error}"));
    }
    let mut rest = fs::File::create(directory.join("rest")).unwrap();
    let mut room = 0;
    while rest.write_all(&[0; 4096]).is_ok() {
        room += 1;
        assert!(room < 1024, "this is not the small file system");
    }
    drop(rest);
    let steps = ["handle:15", "finalizer:a", "calls:10", "flush", "raise:15", "park"];
    let mut command = profiles.command(measured(), "p-%p.profraw");
    command.args(steps);
    let ending = Program::start(&mut command).finish();
    assert_eq!(ending.signal(), Some(Signal::SIGTERM), "{ending}");
    let full = "No space left on device";
    assert!(ending.stdout.contains(full) && ending.stdout.ends_with("\na\n"), "{ending}");
    assert_eq!(ending.stderr.lines().count(), 1, "{ending}");
    fs::remove_file(directory.join("rest")).unwrap();
    assert_eq!((profiles.count(CALL), profiles.files().len()), (0, 0));
    // With room again, the same steps save: nothing but the room was missing.
    let ending = Program::start(&mut command).finish();
    assert_eq!(ending.signal(), Some(Signal::SIGTERM), "{ending}");
    assert_eq!((profiles.count(CALL), profiles.files().len()), (10, 1));
}

#[test]
fn what_is_no_file_stays_the_only_thing_there() {
    for end in ["raise:15", "std-exit:0"] {
        let story = Story::with_pattern("discarded");
        std::os::unix::fs::symlink("/dev/null", story.profiles.path().join("discarded")).unwrap();
        let ending = story.run(&["handle:15", "finalizer:a", "calls:10", "flush", end, "park"]);
        assert_eq!((&*ending.stdout, &*ending.stderr), ("a\n", ""), "{ending}");
        assert_eq!(fs::read_dir(story.profiles.path()).unwrap().count(), 1);
    }
}

#[test]
fn what_is_printed_to_a_closed_stream_does_not_end_up_in_the_file() {
    let story = Story::new();
    let steps = ["calls:10", "close:1", "thread:chatter", "thread:chatter", "flushes:200"];
    for _ in 0..5 {
        let ending = story.run(&[&steps[..], &["leave-at-once:0"]].concat());
        assert_eq!((ending.code(), &*ending.stderr), (Some(0), ""), "{ending}");
    }
    story.counted(50, 5);
}

#[test]
fn nobody_else_may_do_more_with_the_file_than_the_umask_says() {
    let story = Story::new();
    let script = "umask 077; exec \"$0\" \"$@\"";
    let mut command = story.profiles.command(Path::new("sh"), "p-%p.profraw");
    command.args(["-c", script]).arg(measured()).args(["handle:15", "raise:15", "park"]);
    Program::start(&mut command).finish();
    let mode = fs::metadata(&story.profiles.files()[0]).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    story.oracle.nothing_left();
}

#[test]
fn continuous_mode_is_left_alone() {
    let story = Story::new();
    let mut command = story.profiles.command(&builds().continuous, "p-%p%c.profraw");
    command.args(["handle:15", "finalizer:a", "calls:10", "flush", "cleanup", "raise:15", "park"]);
    let ending = Program::start(&mut command).finish();
    assert_eq!(ending.signal(), Some(Signal::SIGTERM), "{ending}");
    assert_eq!(ending.stderr, "", "{ending}");
    story.counted(10, 1);
    story.oracle.nothing_left();
}

#[test]
fn a_build_that_aborts_on_panic_keeps_its_data() {
    let story = Story::new();
    let mut command: Command = story.profiles.command(&builds().aborting, "p-%p.profraw");
    command.args(["handle-crash", "calls:10", "panic"]);
    let ending = Program::start(&mut command).finish();
    assert_eq!(ending.signal(), Some(Signal::SIGABRT), "{ending}");
    story.counted(10, 1);
    story.oracle.nothing_left();
}

#[test]
fn a_build_that_aborts_on_panic_runs_its_finalizers_on_a_signal() {
    let story = Story::new();
    let mut command = story.profiles.command(&builds().aborting, "p-%p.profraw");
    command.args(["handle:15", "finalizer:a", "calls:10", "raise:15", "park"]);
    let ending = Program::start(&mut command).finish();
    assert_eq!(ending.signal(), Some(Signal::SIGTERM), "{ending}");
    assert_eq!((&*ending.stdout, &*ending.stderr), ("a\n", ""), "{ending}");
    assert_eq!(story.profiles.count(FINALIZER), 1);
    story.counted(10, 1);
    story.oracle.nothing_left();
}

#[test]
fn a_build_that_aborts_on_panic_runs_no_finalizer_on_a_panic() {
    let story = Story::new();
    let mut command = story.profiles.command(&builds().aborting, "p-%p.profraw");
    command.args(["handle:15", "handle-crash", "finalizer:a", "calls:10", "panic"]);
    let ending = Program::start(&mut command).finish();
    assert_eq!(ending.signal(), Some(Signal::SIGABRT), "{ending}");
    assert_eq!(ending.stdout, "", "{ending}");
    story.counted(10, 1);
    story.oracle.nothing_left();
}
