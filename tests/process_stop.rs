//! A process that is stopped ends within its grace period, on the rung that it needed, and one that
//! is let go of ends all the same.

use std::os::unix::process::CommandExt;
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::process::Command;
use std::thread::{self};
use std::time::Duration;

use epilogue::process::Builder;
use epilogue::{End, ExitStatus, Process, Rung, Stdio, embed};
use nix::sys::signal::{SigSet, Signal, kill, raise};
use nix::unistd::Pid;
use support::{
    Gate, LARGE, Marks, Program, await_end, begin, large, park_for_ever, parked, poll_once, procfs,
    raw, stop, waiting,
};

fn new() -> Builder {
    Process::builder()
}

const FINALIZER: &str = "said goodbye";

/// How it ended, and whether its finalizer ran.
fn facts(end: &End) -> (Rung, ExitStatus, bool) {
    let finalizers = end.finalizers.iter().flatten();
    (end.rung, end.status, finalizers.into_iter().any(|one| one.name == FINALIZER))
}

fn killed() -> ExitStatus {
    ExitStatus::Signaled { signal: 9, core_dumped: false }
}

/// A process in the middle of `task`, which passes a gate when it is there.
fn busy(grace_period: Duration, task: fn(PathBuf)) -> Process<()> {
    let mut gate = Gate::new();
    let process = new().grace_period(grace_period).start(gate.path(), task).unwrap();
    gate.wait();
    process
}

const LONG: Duration = Duration::from_secs(30);

#[test]
fn one_that_hears_the_message_ends_by_it() {
    let (oracle, _watchdog) = begin();
    let task = |gate: PathBuf| {
        embed::finalizer(FINALIZER, || ());
        Gate::pass(&gate);
        park_for_ever()
    };
    let end = busy(LONG, task).terminate().unwrap();
    assert_eq!(facts(&end), (Rung::Stop, ExitStatus::Exited(0), true));
    oracle.nothing_left();
}

#[test]
fn a_finalizer_of_one_that_is_stopped_recovers_from_a_fault_by_the_programs_handler() {
    let (oracle, _watchdog) = begin();
    for task in [
        (|gate: PathBuf| {
            raw::guard_page();
            embed::finalizer(FINALIZER, raw::touch_guarded_page);
            Gate::pass(&gate);
            park_for_ever()
        }) as fn(PathBuf),
        |gate: PathBuf| {
            // It ends nothing, and from then on embed has a thread of its own.
            embed::cleanup_on_signal(Signal::SIGWINCH as i32).unwrap();
            raise(Signal::SIGWINCH).unwrap();
            let is_embeds = |thread: &procfs::Entry| thread.name == "epilogue-embed";
            while !procfs::threads_of(Pid::this()).iter().any(is_embeds) {
                thread::yield_now();
            }
            raw::guard_page();
            embed::finalizer(FINALIZER, raw::touch_guarded_page);
            Gate::pass(&gate);
            park_for_ever()
        },
    ] {
        let end = busy(LONG, task).terminate().unwrap();
        assert_eq!(facts(&end), (Rung::Stop, ExitStatus::Exited(0), true));
    }
    oracle.nothing_left();
}

#[test]
fn of_a_finalizer_with_many_words_the_first_are_told() {
    let (oracle, _watchdog) = begin();
    let process = Process::start((), |()| {
        embed::finalizer("n".repeat(2000), || panic!("{}", "w".repeat(2000)));
    });
    let process = process.unwrap();
    await_end(&process);
    let finalizers = process.terminate().unwrap().finalizers.unwrap();
    let [finalizer] = &finalizers[..] else { panic!("one was registered: {finalizers:?}") };
    assert_eq!(finalizer.name, "n".repeat(1024));
    let failure = finalizer.failure.as_ref().unwrap();
    assert!(failure.len() == 1024 && failure.ends_with('w'), "{failure}");
    oracle.nothing_left();
}

#[test]
fn one_that_blocks_or_ignores_sigterm_still_hears_the_message() {
    let (oracle, _watchdog) = begin();
    for task in [
        (|gate: PathBuf| {
            embed::finalizer(FINALIZER, || ());
            SigSet::all().thread_block().unwrap();
            Gate::pass(&gate);
            park_for_ever()
        }) as fn(PathBuf),
        |gate: PathBuf| {
            embed::finalizer(FINALIZER, || ());
            raw::ignore(Signal::SIGTERM as i32);
            Gate::pass(&gate);
            park_for_ever()
        },
    ] {
        let end = busy(LONG, task).terminate().unwrap();
        assert_eq!(facts(&end), (Rung::Stop, ExitStatus::Exited(0), true));
    }
    oracle.nothing_left();
}

#[test]
fn one_that_is_stopped_is_woken_and_ends_well() {
    let (oracle, _watchdog) = begin();
    let task = |gate: PathBuf| {
        embed::finalizer(FINALIZER, || ());
        Gate::pass(&gate);
        park_for_ever()
    };
    let process = busy(Duration::from_secs(4), task);
    stop(Pid::from_raw(process.id() as i32));
    let end = process.terminate().unwrap();
    assert!(end.rung < Rung::Kill && end.status.signal() != Some(9), "{end:?}");
    assert!(facts(&end).2, "{end:?}");
    oracle.nothing_left();
}

#[test]
fn one_that_is_deaf_to_everything_is_killed_when_the_grace_period_is_over() {
    let (oracle, _watchdog) = begin();
    // It becomes a program that knows nothing of its wire, and ignores the signal.
    let process = new()
        .grace_period(Duration::from_millis(400))
        .stdout(Stdio::Capture)
        .start((), |()| -> u8 {
            let script = "trap '' TERM; while :; do sleep 1000; done";
            let error = Command::new("sh").args(["-c", script]).exec();
            panic!("{error}");
        })
        .unwrap();
    // Its wire is closed by the exec, before the trap is set: wait for that.
    let pid = Pid::from_raw(process.id() as i32);
    while procfs::descendants_of(pid).is_empty() {
        thread::yield_now();
    }
    let end = process.terminate().unwrap();
    assert_eq!(facts(&end), (Rung::Kill, killed(), false));
    // Its own child is the user's.
    assert_eq!(oracle.leftovers().processes.len(), 1);
    kill(oracle.leftovers().processes[0].pid, Signal::SIGKILL).unwrap();
    oracle.nothing_left_within(Duration::from_secs(20));
}

#[test]
fn kill_takes_no_notice_of_finalizers() {
    let (oracle, _watchdog) = begin();
    let task = |gate: PathBuf| {
        embed::finalizer(FINALIZER, || ());
        Gate::pass(&gate);
        park_for_ever()
    };
    let end = busy(LONG, task).kill().unwrap();
    assert_eq!(facts(&end), (Rung::Kill, killed(), false));
    let stopped = busy(LONG, task);
    stop(Pid::from_raw(stopped.id() as i32));
    assert_eq!(facts(&stopped.kill().unwrap()), (Rung::Kill, killed(), false));
    oracle.nothing_left();
}

#[test]
fn one_that_has_ended_needs_no_stop() {
    let (oracle, _watchdog) = begin();
    for end in [Process::terminate, Process::kill] {
        let process = Process::start(3u32, |x| x).unwrap();
        await_end(&process);
        assert!(process.is_finished());
        let end = end(process).unwrap();
        assert_eq!((end.rung, end.status), (Rung::Finish, ExitStatus::Exited(0)));
    }
    oracle.nothing_left();
}

#[test]
fn one_that_has_ended_is_not_told_as_stopped_though_nobody_had_looked() {
    let (oracle, _watchdog) = begin();
    for end in [Process::terminate, Process::kill] {
        let mut gate = Gate::new();
        // The start would see the end of one that does not wait for it.
        let process = waiting(&mut gate);
        drop(gate);
        await_end(&process);
        let end = end(process).unwrap();
        assert_eq!((end.rung, end.status), (Rung::Finish, ExitStatus::Exited(0)));
    }
    oracle.nothing_left();
}

#[test]
fn a_stop_in_the_middle_of_a_large_answer_ends_too() {
    let (oracle, _watchdog) = begin();
    let process = Process::start(LARGE, large).unwrap();
    let end = process.terminate().unwrap();
    assert!(end.rung < Rung::Kill, "{end:?}");
    oracle.nothing_left();
}

/// A process that ignores `SIGTERM` and does not leave when it is told to, half awaited.
fn deaf_and_half_awaited() -> Process<()> {
    let mut process = busy(Duration::from_millis(400), |gate| {
        raw::ignore(Signal::SIGTERM as i32);
        embed::finalizer("never", || park_for_ever());
        Gate::pass(&gate);
        park_for_ever()
    });
    poll_once(&mut process);
    process
}

#[test]
fn one_that_is_half_awaited_climbs_the_whole_ladder_when_it_is_stopped() {
    let (oracle, _watchdog) = begin();
    let end = deaf_and_half_awaited().kill().unwrap();
    assert_eq!((end.rung, end.status), (Rung::Kill, killed()));
    let mut cooperative = parked();
    poll_once(&mut cooperative);
    let end = cooperative.terminate().unwrap();
    assert_eq!((end.rung, end.status), (Rung::Stop, ExitStatus::Exited(0)));
    let end = deaf_and_half_awaited().terminate().unwrap();
    assert!(!end.success(), "{end:?}");
    let unwound = panic::catch_unwind(AssertUnwindSafe(|| {
        let _process = deaf_and_half_awaited();
        panic!("with it in hand");
    }));
    assert_eq!(*unwound.unwrap_err().downcast::<&str>().unwrap(), "with it in hand");
    oracle.nothing_left_soon();
}

#[test]
fn a_detached_process_goes_on_and_is_reaped() {
    let (oracle, _watchdog) = begin();
    let (mut gate, marks) = (Gate::new(), Marks::new());
    let argument = (gate.path(), marks.variable().1.to_owned());
    let process = Process::start(argument, |(gate, marks): (PathBuf, PathBuf)| {
        Gate::pass(&gate);
        Marks::at(&marks).leave("went on");
        large(LARGE)
    });
    process.unwrap().detach();
    gate.wait();
    assert_eq!(marks.count("went on"), 0);
    drop(gate);
    while marks.count("went on") == 0 {
        thread::yield_now();
    }
    drop(marks);
    oracle.nothing_left_soon();
}

fn story(name: &str) -> Program {
    Program::start(Command::new(env!("CARGO_BIN_EXE_process_endings")).arg(name))
}

#[test]
fn a_program_that_returns_from_main_waits_for_what_it_detached() {
    let (oracle, _watchdog) = begin();
    let mut program = story("detached");
    program.wait_for_line("returning");
    program.tell("go on");
    let ending = program.finish();
    assert_eq!(ending.code(), Some(0), "{ending}");
    assert!(ending.stdout.contains("went on"), "{ending}");
    oracle.nothing_left();
}

#[test]
fn what_was_detached_ends_with_a_program_that_is_ended() {
    let (oracle, _watchdog) = begin();
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let mut program = story("detached-for-ever");
        program.wait_for_line("ready");
        program.signal(signal);
        let input = program.hold_input();
        program.reap();
        oracle.orphans_end_within(Duration::from_secs(20));
        drop(input);
        let ending = program.finish();
        assert_eq!(ending.signal(), Some(signal), "{ending}");
    }
    oracle.nothing_left();
}
