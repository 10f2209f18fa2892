//! A program that a signal ends still runs its finalizers, once each, and ends as it would have.

use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use support::{Ending, Oracle, Program, Watchdog, not_tried, sys};

const PATIENCE: Duration = Duration::from_secs(180);

fn story(steps: &[&str]) -> Program {
    let mut command = Command::new(env!("CARGO_BIN_EXE_embed_story"));
    Program::start(command.args(steps).env("RUST_BACKTRACE", "0"))
}

fn lines(ending: &Ending) -> Vec<&str> {
    ending.stdout.lines().collect()
}

/// Runs a story that needs nobody from outside.
#[track_caller]
fn told(steps: &[&str]) -> Ending {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let ending = story(steps).finish();
    oracle.nothing_left();
    ending
}

/// Runs a story until it says `ready`, sends the signals, and waits for its end.
#[track_caller]
fn signalled(steps: &[&str], signals: &[Signal]) -> Ending {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let mut program = story(steps);
    program.wait_for_line("ready");
    signals.iter().for_each(|signal| program.signal(*signal));
    // Its input stays open, so that nothing but the signals ends it.
    let input = program.hold_input();
    let ending = program.finish();
    drop(input);
    oracle.nothing_left();
    ending
}

#[test]
fn finalizers_run_last_registered_first_and_the_process_dies_by_the_signal() {
    for (number, signal) in
        [(15, Signal::SIGTERM), (1, Signal::SIGHUP), (2, Signal::SIGINT), (10, Signal::SIGUSR1)]
    {
        let handle = format!("handle:{number}");
        let steps = [&*handle, "finalizer:a", "finalizer:b", "say:ready", "wait"];
        let ending = signalled(&steps, &[signal]);
        assert_eq!(ending.signal(), Some(signal), "{ending}");
        assert_eq!(lines(&ending), ["ready", "b", "a"], "{ending}");
        assert_eq!(ending.stderr, "", "{ending}");
    }
}

/// How many descriptors a program has that is none of ours, started as ours are. It reads the directory by
/// one more.
fn inherited_descriptors() -> usize {
    let oracle = Oracle::begin();
    let ending = Program::start(Command::new("ls").arg("/proc/self/fd")).finish();
    oracle.nothing_left();
    lines(&ending).len() - 1
}

#[test]
fn it_costs_nothing_until_a_signal_is_to_be_handled() {
    let ending =
        told(&["status", "finalizer:a", "is-asked", "flush", "status", "handle:15", "status"]);
    let said = lines(&ending);
    let (before, registered, handling) = (said[0], said[2], said[3]);
    // A constructor would have come before both looks. Rust's own handlers are those that tell of a
    // stack that overflows; a directory that is read is open meanwhile.
    let of_rust = (1 << (Signal::SIGSEGV as i32 - 1)) | (1 << (Signal::SIGBUS as i32 - 1));
    let of_a_stranger = inherited_descriptors() + 1;
    assert_eq!(before, format!("{of_rust:016x} 1 {of_a_stranger}"), "{ending}");
    // No handler, thread or descriptor; then one handler and one thread.
    assert_eq!(before, registered, "{ending}");
    // The C library handles two numbers of its own once there are threads.
    let catches = |line: &str| {
        u64::from_str_radix(line.split(' ').next().unwrap(), 16).unwrap() & 0x7fff_ffff
    };
    assert_eq!(catches(handling), catches(before) | 1 << (15 - 1), "{ending}");
    let rest = |line: &str| line.split_once(' ').unwrap().1.to_owned();
    assert_eq!(rest(before).replacen('1', "2", 1), rest(handling), "{ending}");
}

#[test]
fn without_embed_nothing_runs() {
    let ending = signalled(&["finalizer:a", "say:ready", "wait"], &[Signal::SIGTERM]);
    assert_eq!(ending.signal(), Some(Signal::SIGTERM), "{ending}");
    assert_eq!(lines(&ending), ["ready"], "{ending}");
}

#[test]
fn finalizers_run_once_at_every_way_out() {
    for (way, code) in [
        ("say:return", 0),
        ("exit:3", 3),
        ("std-exit:4", 4),
        ("exit-now:5", 5),
        ("cleanup", 0),
        ("panic", 101),
        ("together:exit:6", 6),
        ("together:cleanup", 0),
        ("exec:say:new", 0),
    ] {
        let ending = told(&["handle:15", "finalizer:a", "finalizer:b", way]);
        assert_eq!(ending.code(), Some(code), "{way}: {ending}");
        let ran: Vec<_> = lines(&ending).into_iter().filter(|line| line.len() == 1).collect();
        assert_eq!(ran, ["b", "a"], "{way}: {ending}");
    }
}

#[test]
fn what_is_in_a_buffer_is_written_and_at_exit_handlers_run_before_the_death() {
    let steps = ["handle:15", "print:rust ", "c-print:and c", "raise:15", "park"];
    let ending = told(&steps);
    assert_eq!(ending.signal(), Some(Signal::SIGTERM), "{ending}");
    assert_eq!(ending.stdout, "rust and c", "{ending}");
}

#[test]
fn a_panicking_finalizer_leaves_the_others_their_turn() {
    for (end, code) in [
        ("raise:15", None),
        ("exit:3", Some(3)),
        ("std-exit:4", Some(4)),
        ("cleanup", Some(0)),
        ("say:return", Some(0)),
    ] {
        let ending =
            told(&["handle:15", "goodbye", "finalizer:a", "panics:b", "finalizer:c", end, "wait"]);
        let expected = ["c", "a", "c Ran", "b Panicked { message: \"on purpose\" }", "a Ran"];
        let said = lines(&ending);
        let said: Vec<_> = said.into_iter().filter(|line| !line.starts_with("re")).collect();
        assert_eq!(said, expected, "{end}: {ending}");
        // A panic that leaves what runs at exit would abort, after all these lines.
        let signal = code.is_none().then_some(Signal::SIGTERM);
        assert_eq!((ending.code(), ending.signal()), (code, signal), "{end}: {ending}");
    }
}

#[test]
fn a_finalizer_recovers_from_a_fault_by_the_programs_handler_in_every_ending() {
    for (end, code) in
        [("raise:15", None), ("exit:3", Some(3)), ("std-exit:4", Some(4)), ("cleanup", Some(0))]
    {
        let steps = ["handle:15", "finalizer:a", "recovers:b", end];
        let stay: &[&str] = if code.is_none() { &["park"] } else { &[] };
        let ending = told(&[&steps[..], stay].concat());
        assert_eq!(ending.code(), code, "{end}: {ending}");
        let signal = code.is_none().then_some(Signal::SIGTERM);
        assert_eq!(ending.signal(), signal, "{end}: {ending}");
        let ran: Vec<_> = lines(&ending).into_iter().filter(|line| line.len() == 1).collect();
        assert_eq!(ran, ["b", "a"], "{end}: {ending}");
    }
}

#[test]
fn a_finalizer_that_never_returns_ends_at_the_deadline() {
    for stuck in ["parks:stuck", "spins:stuck", "stops:stuck"] {
        for end in ["raise:15", "exit:0", "std-exit:0", "say:return"] {
            let ending = told(&["handle:15", "deadline:100", "finalizer:late", stuck, end]);
            assert_eq!(ending.signal(), Some(Signal::SIGKILL), "{stuck} {end}: {ending}");
            assert!(!ending.stdout.contains("late"), "{stuck} {end}: {ending}");
        }
    }
}

#[test]
fn a_cleanup_by_hand_reports_what_timed_out_and_the_program_goes_on() {
    let steps = ["deadline:100", "finalizer:a", "parks:b", "panics:c", "finalizer:d", "cleanup"];
    let ending = told(&[&steps[..], &["finalizer:e", "say:on"]].concat());
    assert_eq!(ending.code(), Some(0), "{ending}");
    let report = [
        "report d Ran",
        "report c Panicked { message: \"on purpose\" }",
        "report b TimedOut",
        "report a Skipped",
    ];
    let expected = [&["d", "b"][..], &report, &["on", "e"]].concat();
    assert_eq!(lines(&ending), expected, "{ending}");
}

#[test]
fn a_program_that_is_stopped_beyond_the_deadline_of_a_cleanup_goes_on_when_it_is_continued() {
    for goes_on in [&["cleanup", "say:on"][..], &["exec:say:on"]] {
        let oracle = Oracle::begin();
        let _watchdog = Watchdog::start(PATIENCE);
        let program = story(&[&["deadline:100", "stops:b"][..], goes_on].concat());
        let stopped = waitpid(program.pid(), Some(WaitPidFlag::WUNTRACED)).unwrap();
        assert_eq!(stopped, WaitStatus::Stopped(program.pid(), Signal::SIGSTOP));
        // The kill that must not come came half a second behind the deadline.
        let pidfd = sys::pidfd_open(program.pid()).unwrap();
        let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::from(1000u16)), Ok(0), "{goes_on:?}");
        drop(pidfd);
        program.signal(Signal::SIGCONT);
        let ending = program.finish();
        assert_eq!(ending.code(), Some(0), "{ending}");
        assert_eq!(ending.after("on").len(), 1, "{ending}");
        oracle.nothing_left();
    }
}

#[test]
fn a_program_that_is_to_be_gone_ends_though_it_is_stopped_in_a_cleanup() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let steps = ["handle:15", "on-stop", "waits-and:at-most:1000,raise:19", "cleanup"];
    let mut program = story(&[&["deadline:100000"], &steps[..]].concat());
    program.wait_for_line("waits begins");
    program.signal(Signal::SIGTERM);
    program.wait_for_line("Signal(15)");
    program.tell("go on");
    let ending = program.finish();
    assert_eq!(ending.signal(), Some(Signal::SIGKILL), "{ending}");
    oracle.nothing_left();
}

#[test]
fn a_hook_outlives_the_deadline_at_a_normal_exit_only() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let steps = ["deadline:3000", "finalizer:a", "hook:pool", "finalizer:b"];
    for (end, cause, limited) in [
        ("std-exit:0", "Exit", false),
        ("exit:0", "Cleanup", true),
        ("raise:15", "Signal(15)", true),
    ] {
        let ending = story(&[&["handle:15"], &steps[..], &[end, "park"]].concat()).finish();
        let told = format!("pool {cause} {limited}");
        assert_eq!(lines(&ending), ["b", &*told, "a"], "{ending}");
    }
    oracle.nothing_left();
}

#[test]
fn a_hook_that_takes_longer_than_the_deadline_finishes_at_a_normal_exit() {
    let steps = ["deadline:100", "finalizer:a", "slow-hook:pool", "finalizer:b", "std-exit:0"];
    let ending = told(&steps);
    assert_eq!(ending.code(), Some(0), "{ending}");
    assert_eq!(lines(&ending), ["b", "pool", "a"], "{ending}");
}

#[test]
fn a_cancelled_finalizer_never_runs_and_one_run_by_hand_does_not_run_again() {
    let ending = told(&["cancelled:x", "now:a", "cleanup"]);
    assert_eq!(lines(&ending), ["a", "Some(Ran)"], "{ending}");
}

#[test]
fn a_finalizer_that_leaves_ends_there_and_the_ending_goes_on() {
    for (end, code) in [("exit:3", Some(3)), ("std-exit:4", Some(4)), ("raise:15", None)] {
        let ending = told(&["handle:15", "finalizer:a", "leaves:b", "finalizer:c", end, "park"]);
        assert_eq!(ending.code(), code, "{ending}");
        assert_eq!(lines(&ending), ["c", "a"], "{ending}");
    }
}

#[test]
fn an_exit_in_the_middle_of_an_ending_skips_no_finalizer() {
    for exits in ["exit-on-stop", "std-exit-on-stop", "std-exits:b", "leaves:b"] {
        let ending = told(&["handle:15", "finalizer:a", exits, "finalizer:c", "raise:15", "park"]);
        assert_eq!(ending.signal(), Some(Signal::SIGTERM), "{exits}: {ending}");
        assert_eq!(lines(&ending), ["c", "a"], "{exits}: {ending}");
    }
    let ending = told(&["finalizer:a", "std-exits:b", "finalizer:c", "cleanup"]);
    assert_eq!(ending.code(), Some(8), "{ending}");
    assert_eq!(lines(&ending), ["c", "a"], "{ending}");
}

#[test]
fn who_asks_again_and_again_does_not_put_off_the_end_of_an_exit_that_hangs() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    // The hook is older than ours: it hangs when all finalizers have run.
    let mut program = story(&["waits-at-exit", "handle:15", "deadline:300", "finalizer:a"]);
    program.wait_for_line("at exit");
    let input = program.hold_input();
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    while waitid(Id::Pid(program.pid()), look).unwrap() == WaitStatus::StillAlive {
        program.signal(Signal::SIGTERM);
        thread::yield_now();
    }
    let ending = program.finish();
    drop(input);
    assert_eq!(ending.signal(), Some(Signal::SIGKILL), "{ending}");
    oracle.nothing_left();
}

#[test]
fn a_callback_that_hangs_ends_at_the_deadline_if_a_cleanup_was_under_way_too() {
    for cleanup in ["waits:slow", "waits:slow,finalizer:a"] {
        let oracle = Oracle::begin();
        let _watchdog = Watchdog::start(PATIENCE);
        let registered: Vec<_> = cleanup.split(',').collect();
        let begin = ["handle:15", "deadline:1000", "parks-on-stop"];
        let mut program = story(&[&begin[..], &registered, &["cleanup", "park"]].concat());
        program.wait_for_line("slow begins");
        program.signal(Signal::SIGTERM);
        program.wait_for_line("asked");
        let input = program.tell_and_hold("go on");
        let ending = program.finish();
        drop(input);
        assert_eq!(ending.signal(), Some(Signal::SIGKILL), "{ending}");
        oracle.nothing_left();
    }
}

#[test]
fn an_ending_waits_for_a_finalizer_that_another_thread_runs_by_hand() {
    let report = "report a Ran";
    for (end, code, said) in [
        ("raise:15", None, &[][..]),
        ("say:return", Some(0), &[]),
        ("exit:3", Some(3), &[]),
        ("exit-now:5", Some(5), &[]),
        ("cleanup", Some(0), &[report]),
        ("exec:say:new", Some(0), &["new"]),
    ] {
        let oracle = Oracle::begin();
        let _watchdog = Watchdog::start(PATIENCE);
        let stay = if code.is_none() { "park" } else { "say:last" };
        let begin = ["handle:15", "deadline:100000", "finalizer:a", "waits-by-hand:slow"];
        let mut program = story(&[&begin[..], &[end, stay]].concat());
        program.wait_for_line("a");
        program.tell("go on");
        let ending = program.finish();
        assert_eq!(ending.code(), code, "{end}: {ending}");
        let signal = code.is_none().then_some(Signal::SIGTERM);
        assert_eq!(ending.signal(), signal, "{end}: {ending}");
        let kept = |line: &&str| !["return", "last"].contains(line);
        let expected = [&["a", "slow ends"], said].concat();
        assert_eq!(lines(&ending).into_iter().filter(kept).collect::<Vec<_>>(), expected, "{end}");
        oracle.nothing_left();
    }
}

#[test]
fn a_finalizer_that_runs_by_hand_for_too_long_is_left_behind_or_ends_at_the_deadline() {
    for (end, killed) in [("cleanup", false), ("exit:3", true), ("raise:15", true)] {
        let oracle = Oracle::begin();
        let _watchdog = Watchdog::start(PATIENCE);
        let mut program = story(&["handle:15", "deadline:100", "waits-by-hand:slow", end, "park"]);
        let input = match killed {
            true => program.hold_input(),
            false => {
                program.wait_for_line("report slow TimedOut");
                program.signal(Signal::SIGKILL);
                program.hold_input()
            }
        };
        let ending = program.finish();
        drop(input);
        assert_eq!(ending.signal(), Some(Signal::SIGKILL), "{end}: {ending}");
        assert!(!ending.stdout.contains("ends"), "{end}: {ending}");
        oracle.nothing_left();
    }
    // Where there is no time nobody waits.
    for (end, code) in [("exit:3", Some(3)), ("raise:15", None)] {
        let ending = told(&["handle:15", "deadline:0", "waits-by-hand:slow", end, "park"]);
        assert_eq!(ending.code(), code, "{end}: {ending}");
    }
}

#[test]
fn a_finalizer_that_runs_by_hand_does_not_wait_for_itself_as_it_exits() {
    let ending = told(&["finalizer:a", "std-exits-by-hand:b", "say:never"]);
    assert_eq!(ending.code(), Some(8), "{ending}");
    assert_eq!(lines(&ending), ["a"], "{ending}");
}

#[test]
fn an_exit_waits_neither_for_a_thread_that_waits_for_it_nor_for_all_that_are_still_to_come() {
    for step in ["exits-by-hand-in-an-exit:b", "again-and-again-by-hand:b"] {
        let ending = told(&["finalizer:a", step, "say:return"]);
        assert_eq!(ending.code(), Some(0), "{step}: {ending}");
        assert_eq!(lines(&ending), ["return", "a"], "{step}: {ending}");
    }
}

#[test]
fn a_stop_of_the_terminal_does_nothing_where_nobody_could_continue_the_process() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let mut command = Command::new("setsid");
    command.arg(env!("CARGO_BIN_EXE_embed_story"));
    let steps = ["handle:20", "handle:15", "finalizer:a", "say:ready", "wait"];
    let mut program = Program::start(command.args(steps));
    program.wait_for_line("ready");
    program.signal(Signal::SIGTSTP);
    program.wait_for_line("a");
    // The thread that served the first serves this one next: a process that is stopped would not die.
    program.signal(Signal::SIGTERM);
    let input = program.hold_input();
    let ending = program.finish();
    drop(input);
    assert_eq!(ending.signal(), Some(Signal::SIGTERM), "{ending}");
    oracle.nothing_left();
}

#[test]
fn a_stop_of_the_terminal_stops_the_process_by_that_signal_again_and_again() {
    for (number, signal) in [(20, Signal::SIGTSTP), (21, Signal::SIGTTIN), (22, Signal::SIGTTOU)] {
        let oracle = Oracle::begin();
        let _watchdog = Watchdog::start(PATIENCE);
        let mut command = Command::new(env!("CARGO_BIN_EXE_embed_story"));
        let handle = format!("handle:{number}");
        let steps = [&*handle, "handle:28", "finalizer:a", "say:ready", "wait", "finalizer:b"];
        // The cleanup waits for the ending before it, which would run the next finalizer as well.
        let rest = ["say:ready", "wait", "cleanup", "finalizer:c", "say:ready", "wait"];
        // A group of its own, whose parent is of another one, and could continue it.
        let mut program = Program::start(command.args(steps).args(rest).process_group(0));
        // What comes in between shows that embed's thread is done with the first.
        for (sent, ran) in [(signal, "a"), (Signal::SIGWINCH, "b"), (signal, "c")] {
            program.wait_for_line("ready");
            program.signal(sent);
            program.wait_for_line(ran);
            if sent == signal {
                let stopped = waitpid(program.pid(), Some(WaitPidFlag::WUNTRACED)).unwrap();
                assert_eq!(stopped, WaitStatus::Stopped(program.pid(), signal));
                program.signal(Signal::SIGCONT);
            }
            program.tell("go on");
        }
        let ending = program.finish();
        assert_eq!(ending.code(), Some(0), "{ending}");
        oracle.nothing_left();
    }
}

#[test]
fn a_signal_during_the_cleanup_is_deferred_and_nothing_runs_twice() {
    for begin in ["raise:15", "cleanup", "exit:0", "std-exit:0", "thread:exit:0", "say:return"] {
        let ending = told(&["handle:15", "finalizer:a", "is-hit:15", begin, "wait"]);
        assert_eq!(ending.signal(), Some(Signal::SIGTERM), "{begin}: {ending}");
        let said = lines(&ending).into_iter().filter(|line| !line.starts_with("re"));
        let said: Vec<_> = said.collect();
        assert_eq!(said, ["slow begins", "slow ends", "a"], "{begin}: {ending}");
    }
}

#[test]
fn a_signal_during_the_cleanup_is_not_lost_where_the_program_leaves_at_once_after_it() {
    for leave in ["exit-now:5", "exec:say:new"] {
        // Embed's thread may or may not be faster.
        for _ in 0..20 {
            let ending = told(&["handle:15", "finalizer:a", "is-hit:15", leave]);
            assert_eq!(ending.signal(), Some(Signal::SIGTERM), "{leave}: {ending}");
            assert_eq!(lines(&ending), ["slow begins", "slow ends", "a"], "{leave}: {ending}");
        }
    }
}

#[test]
fn of_several_signals_the_first_is_the_one_to_die_by() {
    // The first stop is asked for by a signal that the program survives. Embed's thread is busy
    // with it when the others arrive.
    let steps = ["user:10", "handle:10", "handle:15", "handle:1", "raise-on-stop:15,1", "raise:10"];
    let ending = told(&[&steps[..], &["park"]].concat());
    assert_eq!(ending.signal(), Some(Signal::SIGTERM), "{ending}");
}

#[test]
fn a_copy_that_comes_back_from_a_finalizer_runs_none_of_its_parents() {
    for (way, reaped) in [
        ("calls:1", "reaped code 0"),
        ("finalizer:own", "own reaped code 0"),
        ("std-exit:3", "reaped code 3"),
        ("finalizer:own,exit:4", "own reaped code 4"),
        ("panic", "reaped code 101"),
        ("raise:15", "reaped SIGTERM"),
    ] {
        for (end, signal) in
            [("raise:15", Some(Signal::SIGTERM)), ("cleanup", None), ("say:return", None)]
        {
            let stay = if signal.is_some() { "park" } else { "wait" };
            if (way, end) == ("std-exit:3", "say:return") {
                // In the copy std waits for the exit that is under way in the original.
                continue;
            }
            let forks = format!("forks-in:{way}");
            let on_stop = format!("fork-on-stop:{way}");
            let steps = ["handle:15", "finalizer:a", &forks, &on_stop, end, stay];
            let ending = told(&steps);
            assert_eq!(ending.signal(), signal, "{way} {end}: {ending}");
            let said = lines(&ending)
                .into_iter()
                .filter(|line| !line.starts_with("re") || line.starts_with("reaped"));
            let said = said.collect::<Vec<_>>().join(" ");
            // The callbacks are for signals alone.
            let expected = match signal {
                Some(_) => format!("{reaped} {reaped} a"),
                None => format!("{reaped} a"),
            };
            assert_eq!(said, expected, "{way} {end}: {ending}");
        }
    }
}

#[test]
fn a_finalizer_that_leaves_at_once_or_for_another_program_takes_no_turn_from_the_others() {
    for (leaves, end, code) in [
        ("exits-now:b", "raise:15", None),
        ("exits-now:b", "exit:3", Some(3)),
        ("execs:b", "raise:15", None),
        ("execs:b", "std-exit:4", Some(4)),
    ] {
        let ending = told(&["handle:15", "finalizer:a", leaves, "finalizer:c", end, "park"]);
        assert_eq!(ending.code(), code, "{leaves} {end}: {ending}");
        let said = lines(&ending).into_iter().filter(|line| !line.starts_with("exec "));
        assert_eq!(said.collect::<Vec<_>>(), ["c", "a"], "{leaves} {end}: {ending}");
    }
}

#[test]
fn with_no_time_at_all_finalizers_are_skipped_and_the_process_ends_as_it_would_have() {
    for (end, code) in [("raise:15", None), ("exit:3", Some(3)), ("say:return", Some(0))] {
        let ending = told(&["handle:15", "deadline:0", "finalizer:a", end, "wait"]);
        assert_eq!(ending.code(), code, "{end}: {ending}");
        let signal = code.is_none().then_some(Signal::SIGTERM);
        assert_eq!(ending.signal(), signal, "{end}: {ending}");
        assert!(!ending.stdout.contains('a'), "{end}: {ending}");
    }
    let ending = told(&["deadline:0", "finalizer:a", "cleanup"]);
    assert_eq!(lines(&ending), ["report a Skipped"], "{ending}");
}

#[test]
fn a_signal_during_an_exit_on_another_thread_is_no_crash() {
    // Such an exit takes away the main thread's stack for signals.
    for begin in ["thread:exit:0", "thread:std-exit:0"] {
        let oracle = Oracle::begin();
        let _watchdog = Watchdog::start(PATIENCE);
        let mut program = story(&["handle:15", "finalizer:a", "waits:slow", begin, "park"]);
        program.wait_for_line("slow begins");
        (0..50).for_each(|_| program.signal(Signal::SIGTERM));
        program.tell("go on");
        let ending = program.finish();
        // The exit may be done before the kernel has delivered them.
        let in_time = ending.signal() == Some(Signal::SIGTERM);
        assert!(in_time || ending.code() == Some(0), "{begin}: {ending}");
        assert_eq!(lines(&ending), ["slow begins", "slow ends", "a"], "{begin}: {ending}");
        oracle.nothing_left();
    }
}

#[test]
fn a_second_interrupt_skips_what_is_left() {
    let ending = told(&["handle:2", "finalizer:a", "is-hit:2", "raise:2", "park"]);
    assert_eq!(ending.signal(), Some(Signal::SIGINT), "{ending}");
    assert_eq!(lines(&ending), ["slow begins", "slow ends"], "{ending}");
}

#[test]
fn what_was_ignored_stays_ignored() {
    let steps = ["ignore:1", "handle:1", "finalizer:a", "raise:1", "say:alive"];
    let ending = told(&steps);
    assert_eq!(ending.code(), Some(0), "{ending}");
    assert_eq!(lines(&ending), ["alive", "a"], "{ending}");
}

#[test]
fn the_handler_before_is_called_once_with_its_sender_after_the_finalizers_and_the_program_goes_on()
{
    for install in [&["handle:15"][..], &["handle:15", "handle:15", "together:handle:15"]] {
        let steps = [&["user:15"][..], install, &["finalizer:a", "say:ready", "wait"]].concat();
        let oracle = Oracle::begin();
        let _watchdog = Watchdog::start(PATIENCE);
        let mut program = story(&[&steps[..], &["finalizer:b", "say:on"]].concat());
        program.wait_for_line("ready");
        program.signal(Signal::SIGTERM);
        program.wait_for_line("a");
        program.wait_for_line("handler");
        let ending = program.finish();
        assert_eq!(ending.code(), Some(0), "{ending}");
        let handler = format!("handler 15 {} 1", std::process::id());
        assert_eq!(lines(&ending), ["ready", "a", &*handler, "on", "b"], "{ending}");
        oracle.nothing_left();
    }
}

#[test]
fn a_call_that_the_handler_before_interrupts_is_interrupted_after_it_has_run() {
    let steps = ["user-interrupts:15", "handle:15", "raise:15", "until-handled:1", "say:on"];
    let ending = told(&steps);
    assert_eq!(ending.code(), Some(0), "{ending}");
    assert!(ending.stdout.ends_with("on\n"), "{ending}");
}

#[test]
fn a_signal_that_is_not_handled_by_default_changes_nothing_but_the_cleanup() {
    let steps = ["handle:28", "finalizer:a", "on-stop", "raise:28", "wait", "say:on"];
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let mut program = story(&steps);
    program.wait_for_line("a");
    let ending = program.finish();
    assert_eq!(ending.code(), Some(0), "{ending}");
    assert_eq!(lines(&ending), ["Signal(28)", "a", "on"], "{ending}");
    oracle.nothing_left();
}

#[test]
fn a_signal_that_no_program_handles_is_a_typed_error() {
    let steps = [9, 19, 0, -1, 16, 33, 65].map(|number| format!("refuse:{number}"));
    let ending = told(&steps.each_ref().map(String::as_str));
    assert_eq!(ending.code(), Some(0), "{ending}");
    assert_eq!(ending.stdout.matches("cannot be caught").count(), 2, "{ending}");
    assert_eq!(ending.stdout.matches("there is no signal").count(), 5, "{ending}");
}

#[test]
fn a_long_loop_learns_of_the_signal() {
    let steps = ["is-asked", "handle:15", "on-stop", "hook:last", "raise:15", "park"];
    let ending = told(&steps);
    assert_eq!(lines(&ending), ["asked false", "Signal(15)", "last Signal(15) true"], "{ending}");
}

#[test]
fn a_copy_made_by_fork_runs_its_own_finalizers_and_never_its_parents() {
    for fork in ["fork", "fork-unseen"] {
        let own = format!("{fork}:finalizer:own,std-exit:3");
        let ending = told(&["handle:15", "finalizer:parents", &own, "reap", "say:on"]);
        assert_eq!(ending.code(), Some(0), "{ending}");
        let said: Vec<_> =
            lines(&ending).into_iter().filter(|line| !line.starts_with("child")).collect();
        assert_eq!(said, ["own", "reaped code 3", "on", "parents"], "{ending}");
    }
}

#[test]
fn a_signal_to_a_copy_ends_the_copy_alone() {
    for (child, ran) in [("finalizer:own,raise:15,park", true), ("raise:15,park", false)] {
        let fork = format!("fork:{child}");
        let ending = told(&["handle:15", "finalizer:parents", &fork, "reap", "say:on"]);
        assert_eq!(ending.code(), Some(0), "{ending}");
        assert!(ending.stdout.contains("reaped SIGTERM\non\nparents"), "{ending}");
        assert_eq!(ending.stdout.contains("own"), ran, "{ending}");
    }
}

#[test]
fn a_signal_that_ends_no_copy_is_still_handled_there_after_it() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    // Nobody could continue a process of that session: a stop does nothing there.
    let mut command = Command::new("setsid");
    command.arg(env!("CARGO_BIN_EXE_embed_story"));
    let handled = [17, 18, 20, 21, 22, 23, 28];
    let steps = |verb: &str| handled.map(|number| format!("{verb}:{number}"));
    let fork = format!("fork:{},status", steps("raise").join(","));
    command.args(steps("handle")).args([&fork, "reap"]);
    let ending = Program::start(&mut command).finish();
    assert_eq!(ending.after("reaped "), ["code 0"], "{ending}");
    let is_status = |line: &&str| line.split(' ').next().is_some_and(|mask| mask.len() == 16);
    let status = lines(&ending).into_iter().find(is_status).unwrap();
    let caught = u64::from_str_radix(&status[..16], 16).unwrap();
    for number in handled {
        assert_ne!(caught & 1 << (number - 1), 0, "{number}: {ending}");
    }
    oracle.nothing_left();
}

#[test]
fn the_first_process_of_a_namespace_exits_with_the_code_that_names_the_signal() {
    let steps = "first-process:handle:15,finalizer:a,raise:15,park";
    let ending = told(&[steps]);
    if ending.stdout.contains("refused") {
        return not_tried("this system makes no namespaces");
    }
    assert_eq!(lines(&ending), ["a", "first process exit status: 143"], "{ending}");
}

#[test]
fn a_signal_that_all_threads_of_the_program_block_still_ends_it() {
    let steps = ["mask:15", "handle:15", "finalizer:a", "say:ready", "wait"];
    let ending = signalled(&steps, &[Signal::SIGTERM]);
    assert_eq!(ending.signal(), Some(Signal::SIGTERM), "{ending}");
    assert_eq!(lines(&ending), ["ready", "a"], "{ending}");
}

#[test]
fn a_signal_that_the_program_waits_for_itself_stays_its_own() {
    // Only SIGTERM is handled: embed's thread must not let the others in, which would be deadly.
    for (mask, signal) in WAITED_FOR {
        let steps = [mask, "handle:15", "say:ready", "wait", "say:on"];
        let oracle = Oracle::begin();
        let _watchdog = Watchdog::start(PATIENCE);
        let mut program = story(&steps);
        program.wait_for_line("ready");
        program.signal(signal);
        let ending = program.finish();
        assert_eq!(ending.code(), Some(0), "{ending}");
        oracle.nothing_left();
    }
}

/// One that a program may use for itself, and two of those that tell of a fault.
const WAITED_FOR: [(&str, Signal); 3] =
    [("mask:10", Signal::SIGUSR1), ("mask:5", Signal::SIGTRAP), ("mask:31", Signal::SIGSYS)];

#[test]
fn a_signal_that_the_program_waits_for_since_it_handles_another_one_cuts_no_end_short() {
    // It is pending meanwhile, and its default action is deadly.
    for (mask, signal) in WAITED_FOR {
        let steps = ["handle:15", mask, "finalizer:a", "say:ready", "park"];
        let ending = signalled(&steps, &[signal, Signal::SIGTERM]);
        assert_eq!(ending.signal(), Some(Signal::SIGTERM), "{ending}");
        assert_eq!(lines(&ending), ["ready", "a"], "{ending}");
    }
}

#[test]
fn what_a_finalizer_starts_begins_with_the_mask_of_the_program() {
    // A signal that the program handles is let in where finalizers run, a blocked one is not.
    let before = ["mask:12", "handle:15", "mask-of-child", "starts"];
    for way in [&[][..], &["exit:0"], &["std-exit:0"], &["exit-now:0"], &["cleanup"]] {
        let ending = told(&[&before, way].concat());
        let masks =
            |place| lines(&ending).into_iter().filter_map(move |line| line.strip_prefix(place));
        let main: Vec<_> = masks("main ").collect();
        assert_eq!(main, ["SigBlk:\t0000000000000800"], "{ending}");
        assert_eq!(masks("finalizer ").collect::<Vec<_>>(), main, "{way:?}: {ending}");
    }
}
