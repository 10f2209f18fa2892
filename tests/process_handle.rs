//! What a handle says of its process is so, and whichever way one waits for it, stops it or lets
//! go of it, it ends: with its value, or with the reason why there is none.

use std::fs;
use std::future::Future;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{self, Command};
use std::task::{Context, Waker};
use std::thread::{self};
use std::time::Duration;

use epilogue::process::{Builder, Side, Waitable};
use epilogue::{
    End, ExitStatus, JoinError, Limits, Process, Rung, StartError, Stdio, embed, join_all, scope,
    wait_any,
};
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal, kill, raise};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::unistd::{Pid, gettid};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use support::{
    Gate, Marks, Oracle, Program, Watchdog, block_on, park_for_ever, procfs, raw, stop, through,
};

/// More than a socket's buffer holds.
const LARGE: usize = 8 << 20;

fn begin() -> (Oracle, Watchdog) {
    (Oracle::begin(), Watchdog::start(Duration::from_secs(60)))
}

fn new() -> Builder {
    Process::builder()
}

/// A process that stands at the gate.
fn waiting(gate: &mut Gate) -> Process<u32> {
    let process = Process::start((gate.path(), 7), through).unwrap();
    assert_eq!(gate.wait().as_raw() as u32, process.id());
    process
}

fn large(length: usize) -> Vec<u8> {
    vec![7; length]
}

fn parked() -> Process<u32> {
    Process::start((), |()| park_for_ever()).unwrap()
}

/// Waits until the process of that descriptor has ended.
fn await_end(fd: &impl AsFd) {
    poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE).unwrap();
}

/// Threads of the library's that have nothing more to do end soon, which nobody waits for.
fn nothing_left_soon(oracle: &Oracle) {
    while !oracle.leftovers().is_empty() {
        thread::yield_now();
    }
}

// Waiting.

#[test]
fn try_join_gives_nothing_while_it_runs_and_then_the_value_once() {
    let (oracle, _watchdog) = begin();
    let mut gate = Gate::new();
    let mut process = waiting(&mut gate);
    assert_eq!(process.try_join().unwrap(), None);
    assert!(!process.is_finished());
    drop(gate);
    await_end(&process);
    assert!(process.is_finished());
    assert_eq!(process.try_join().unwrap(), Some(7));
    for _ in 0..2 {
        let again = process.try_join();
        assert!(matches!(again, Err(JoinError::AlreadyJoined)), "{again:?}");
    }
    assert!(process.is_finished());
    let again = process.join();
    assert!(matches!(again, Err(JoinError::AlreadyJoined)), "{again:?}");
    oracle.nothing_left();
}

/// Waits in vain for `timeout`, and asserts that it had passed.
#[track_caller]
fn never_early(process: &mut Process<u32>, timeout: Duration) {
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::empty()).unwrap();
    let expiration = Expiration::OneShot(TimeSpec::from_duration(timeout));
    timer.set(expiration, TimerSetTimeFlags::empty()).unwrap();
    assert_eq!(process.join_timeout(timeout).unwrap(), None);
    let mut fds = [PollFd::new(timer.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut fds, PollTimeout::ZERO), Ok(1), "it returned before {timeout:?}");
}

#[test]
fn join_timeout_never_returns_early_without_a_value() {
    let (oracle, _watchdog) = begin();
    let mut gate = Gate::new();
    let mut process = waiting(&mut gate);
    for timeout in [1, 300, 50_000, 100_000].map(Duration::from_micros) {
        never_early(&mut process, timeout);
    }
    drop(gate);
    assert_eq!(process.join_timeout(Duration::MAX).unwrap(), Some(7));
    let again = process.join_timeout(Duration::MAX);
    assert!(matches!(again, Err(JoinError::AlreadyJoined)), "{again:?}");
    drop(process);
    oracle.nothing_left();
}

#[test]
fn a_value_larger_than_a_sockets_buffer_is_read_by_whoever_asks_whether_it_ended() {
    let (oracle, _watchdog) = begin();
    let asked = Process::start(LARGE, large).unwrap();
    while !asked.is_finished() {
        thread::yield_now();
    }
    assert_eq!(asked.join().unwrap(), large(LARGE));
    let mut tried = Process::start(LARGE, large).unwrap();
    let value = loop {
        match tried.try_join().unwrap() {
            Some(value) => break value,
            None => thread::yield_now(),
        }
    };
    assert_eq!(value, large(LARGE));
    drop(tried);
    let mut timed = Process::start(LARGE, large).unwrap();
    assert_eq!(timed.join_timeout(Duration::MAX).unwrap().unwrap(), large(LARGE));
    drop(timed);
    drop(Process::start(LARGE, large).unwrap());
    oracle.nothing_left();
}

#[test]
fn a_handle_can_be_polled_as_a_descriptor() {
    let (oracle, _watchdog) = begin();
    let mut gate = Gate::new();
    let process = waiting(&mut gate);
    let mut fds = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut fds, PollTimeout::ZERO), Ok(0));
    drop(gate);
    assert_eq!(poll(&mut fds, PollTimeout::NONE), Ok(1));
    assert!(process.is_finished());
    assert_eq!(process.join().unwrap(), 7);
    oracle.nothing_left();
}

#[test]
fn a_handle_has_the_id_and_the_name_of_its_process() {
    let (oracle, _watchdog) = begin();
    let process = new().name("reckoner").start((), |()| process::id()).unwrap();
    let (id, name) = (process.id(), process.name().to_owned());
    let text = format!("{process:?}");
    assert_eq!(text, format!("Process {{ id: {id}, name: {name:?}, .. }}"));
    assert_eq!((process.join().unwrap(), name.as_str()), (id, "reckoner"));
    oracle.nothing_left();
}

// Stopping.

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
fn a_stop_in_the_middle_of_a_large_answer_ends_too() {
    let (oracle, _watchdog) = begin();
    let process = Process::start(LARGE, large).unwrap();
    let end = process.terminate().unwrap();
    assert!(end.rung < Rung::Kill, "{end:?}");
    oracle.nothing_left();
}

// Letting go.

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
    nothing_left_soon(&oracle);
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

// Awaiting.

/// Polls once, in vain.
fn poll_once<F: Future + Unpin>(future: &mut F) {
    let polled = Pin::new(future).poll(&mut Context::from_waker(Waker::noop()));
    assert!(polled.is_pending());
}

#[test]
fn a_process_can_be_awaited_without_a_runtime() {
    let (oracle, _watchdog) = begin();
    assert_eq!(block_on(Process::start(3u64, |x| x * x).unwrap()).unwrap(), 9);
    assert_eq!(block_on(Process::start(LARGE, large).unwrap()).unwrap().len(), LARGE);
    let exited = block_on(Process::start((), |()| -> u8 { process::exit(3) }).unwrap());
    assert!(matches!(exited, Err(JoinError::Exited(3))), "{exited:?}");
    nothing_left_soon(&oracle);
}

#[test]
fn several_tasks_await_a_process_each_and_the_last_to_poll_one_is_woken() {
    let (oracle, _watchdog) = begin();
    let mut gate = Gate::new();
    let mut processes: Vec<_> = (0..3).map(|_| waiting(&mut gate)).collect();
    // First by a task that then forgets them.
    processes.iter_mut().for_each(poll_once);
    thread::scope(|threads| {
        let tasks: Vec<_> =
            processes.into_iter().map(|one| threads.spawn(|| block_on(one).unwrap())).collect();
        drop(gate);
        for task in tasks {
            assert_eq!(task.join().unwrap(), 7);
        }
    });
    nothing_left_soon(&oracle);
}

#[test]
fn a_future_that_gave_its_value_has_none_to_give_again() {
    let (oracle, _watchdog) = begin();
    let mut process = Process::start(3u64, |x| x * x).unwrap();
    assert_eq!(block_on(&mut process).unwrap(), 9);
    assert!(matches!(block_on(&mut process), Err(JoinError::AlreadyJoined)));
    assert!(matches!(process.try_join(), Err(JoinError::AlreadyJoined)));
    drop(process);
    nothing_left_soon(&oracle);
}

#[test]
fn one_that_is_dropped_half_awaited_is_joined() {
    let (oracle, _watchdog) = begin();
    let (mut gate, marks) = (Gate::new(), Marks::new());
    let argument = (gate.path(), marks.variable().1.to_owned());
    let mut process = Process::start(argument, |(gate, marks): (PathBuf, PathBuf)| {
        Gate::pass(&gate);
        Marks::at(&marks).leave("end");
    })
    .unwrap();
    gate.wait();
    poll_once(&mut process);
    // It goes on some time from now, which is a time that nobody knows.
    let opener = thread::spawn(move || drop(gate));
    drop(process);
    assert_eq!(marks.count("end"), 1);
    opener.join().unwrap();
    drop(marks);
    nothing_left_soon(&oracle);
}

#[test]
fn one_that_is_half_awaited_can_be_waited_for_in_every_other_way() {
    let (oracle, _watchdog) = begin();
    let mut gate = Gate::new();
    let mut process = waiting(&mut gate);
    poll_once(&mut process);
    assert_eq!(process.try_join().unwrap(), None);
    assert!(!process.is_finished());
    never_early(&mut process, Duration::from_millis(100));
    let soon = Process::start((), |()| ()).unwrap();
    assert_eq!(wait_any(&[&process, &soon]), Some(1));
    drop(gate);
    assert_eq!(process.join_timeout(Duration::MAX).unwrap(), Some(7));
    drop((process, soon));
    nothing_left_soon(&oracle);
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
    nothing_left_soon(&oracle);
}

// Several at once.

#[test]
fn wait_any_finds_the_one_that_has_ended_among_all_kinds() {
    let (oracle, _watchdog) = begin();
    assert_eq!(wait_any(&[]), None);
    let mut gate = Gate::new();
    let (never, stopped) = (parked(), parked());
    stop(Pid::from_raw(stopped.id() as i32));
    scope(|s| {
        let scoped = s.start((gate.path(), 1u8), through).unwrap();
        gate.wait();
        let big = Process::start(LARGE, large).unwrap();
        // Its answer has to be read before it can end.
        assert_eq!(wait_any(&[&never, &stopped, &scoped, &big]), Some(3));
        assert_eq!(wait_any(&[&never, &stopped, &scoped, &big]), Some(3), "and it still has");
        assert_eq!(big.join().unwrap().len(), LARGE);
        gate.open_once();
        assert_eq!(wait_any(&[&never, &stopped, &scoped]), Some(2));
        assert_eq!(scoped.join().unwrap(), 1);
    });
    for process in [never, stopped] {
        assert!(process.terminate().unwrap().rung < Rung::Kill);
    }
    drop(gate);
    oracle.nothing_left();
}

#[test]
fn wait_any_takes_a_handle_twice_and_a_handle_in_several_threads() {
    let (oracle, _watchdog) = begin();
    let mut gate = Gate::new();
    let (a, b) = (waiting(&mut gate), waiting(&mut gate));
    let ended = thread::scope(|threads| {
        let wait = |names: [char; 3]| {
            wait_any(&names.map(|name| (if name == 'a' { &a } else { &b }) as &dyn Waitable))
        };
        let orders = [['a', 'b', 'a'], ['b', 'a', 'b'], ['a', 'a', 'b'], ['b', 'b', 'b']];
        let waits = orders.map(|order| threads.spawn(move || wait(order)));
        drop(gate);
        waits.map(|wait| wait.join().unwrap())
    });
    assert!(ended.iter().all(Option::is_some), "{ended:?}");
    assert_eq!((a.join().unwrap(), b.join().unwrap()), (7, 7));
    oracle.nothing_left();
}

#[test]
fn a_wait_for_one_that_goes_on_holds_up_no_wait_for_another() {
    let (oracle, _watchdog) = begin();
    let (mut gate, mut other) = (Gate::new(), Gate::new());
    let (a, b) = (waiting(&mut gate), waiting(&mut other));
    thread::scope(|threads| {
        let long = threads.spawn(|| wait_any(&[&a]));
        while !waits().contains(&true) {
            thread::yield_now();
        }
        drop(other);
        assert_eq!(wait_any(&[&a, &b]), Some(1));
        assert!(!a.is_finished() && b.is_finished());
        drop(gate);
        assert_eq!(long.join().unwrap(), Some(0));
    });
    assert_eq!((a.join().unwrap(), b.join().unwrap()), (7, 7));
    oracle.nothing_left();
}

#[test]
fn join_all_joins_all_and_keeps_their_order() {
    let (oracle, _watchdog) = begin();
    let processes = [0, 1, 2, 3].map(|n: usize| {
        Process::start(n, |n| match n {
            1 => panic!("the second"),
            2 => process::exit(5),
            n => large(n * LARGE / 3),
        })
        .unwrap()
    });
    let outcomes = join_all(processes);
    assert_eq!(outcomes[0].as_ref().unwrap().len(), 0);
    assert!(
        matches!(&outcomes[1], Err(JoinError::Panicked(panic)) if panic.message == "the second")
    );
    assert!(matches!(outcomes[2], Err(JoinError::Exited(5))));
    assert_eq!(outcomes[3].as_ref().unwrap().len(), LARGE);
    assert_eq!(join_all(Vec::<Process<u8>>::new()).len(), 0);
    oracle.nothing_left();
}

/// The call that `poll` makes, and its third argument if it is to wait for ever.
#[cfg(target_arch = "x86_64")]
const POLL: (i64, u32) = (nix::libc::SYS_poll, u32::MAX);
#[cfg(not(target_arch = "x86_64"))]
const POLL: (i64, u32) = (nix::libc::SYS_ppoll, 0);

/// Whether it is for ever, for each other thread of this process that waits in `poll`.
fn waits() -> Vec<bool> {
    let threads = procfs::threads_of(Pid::this());
    let others = threads.iter().filter(|thread| thread.pid != gettid());
    let waits = others.filter_map(|thread| {
        let path = format!("/proc/self/task/{}/syscall", thread.pid);
        let text = fs::read_to_string(path).ok()?;
        let mut fields = text.split_whitespace();
        let call: i64 = fields.next()?.parse().ok()?;
        let timeout = fields.nth(2).filter(|_| call == POLL.0)?;
        let timeout = u64::from_str_radix(timeout.strip_prefix("0x")?, 16).ok()?;
        Some(timeout as u32 == POLL.1)
    });
    waits.collect()
}

#[test]
fn nobody_who_waits_wakes_up_before_there_is_something_to_see() {
    let (oracle, _watchdog) = begin();
    let mut gate = Gate::new();
    let processes = [(); 4].map(|()| waiting(&mut gate));
    let [joined, awaited, any, other] = processes;
    thread::scope(|threads| {
        threads.spawn(|| assert_eq!(joined.join().unwrap(), 7));
        threads.spawn(|| assert_eq!(block_on(awaited).unwrap(), 7));
        threads.spawn(|| assert!(wait_any(&[&any, &other]).is_some()));
        // One each: that of the future is the library's.
        while waits().iter().filter(|endless| **endless).count() < 3 {
            thread::yield_now();
        }
        // Nor does anybody else.
        assert!(!waits().contains(&false));
        drop(gate);
    });
    drop((any, other));
    nothing_left_soon(&oracle);
}

// Results.

#[inline(never)]
fn place_of_the_panic() -> u8 {
    panic!("deep inside")
}

#[test]
fn a_panic_comes_with_its_place_and_on_request_with_its_backtrace() {
    let (oracle, _watchdog) = begin();
    let panicked = |builder: Builder| {
        let call = |()| place_of_the_panic();
        match builder.stderr(Stdio::Null).start((), call).unwrap().join() {
            Err(JoinError::Panicked(panic)) => panic,
            other => panic!("{other:?}"),
        }
    };
    let plain = panicked(new());
    assert_eq!((plain.message.as_str(), plain.backtrace), ("deep inside", None));
    assert!(plain.location.unwrap().starts_with(file!()));
    let traced = panicked(new().backtrace());
    let backtrace = traced.backtrace.unwrap();
    assert!(backtrace.contains("place_of_the_panic"), "{backtrace}");
    oracle.nothing_left();
}

/// Cannot be written if it is odd. Cannot be read by another process if it is ten or more.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Picky(u32);

impl Serialize for Picky {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 % 2 {
            0 => (self.0, process::id()).serialize(serializer),
            _ => Err(serde::ser::Error::custom("odd")),
        }
    }
}

impl<'de> Deserialize<'de> for Picky {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (number, writer) = <(u32, u32)>::deserialize(deserializer)?;
        match number {
            10.. if writer != process::id() => Err(serde::de::Error::custom("too large")),
            _ => Ok(Self(number)),
        }
    }
}

#[test]
fn what_cannot_be_sent_or_read_says_which_way_it_went() {
    let (oracle, _watchdog) = begin();
    let send = |argument, add: fn(Picky) -> Picky| Process::start(argument, add);
    assert_eq!(send(Picky(2), |x| x).unwrap().join().unwrap(), Picky(2));
    let refused = send(Picky(1), |x| x).map(|_| ()).unwrap_err();
    assert!(matches!(refused, StartError::Encode(_)), "{refused:?}");
    let unread = send(Picky(10), |x| x).unwrap().join();
    assert!(matches!(unread, Err(JoinError::Decode { side: Side::Argument, .. })), "{unread:?}");
    let unsent = send(Picky(2), |x| Picky(x.0 + 1)).unwrap().join();
    assert!(matches!(unsent, Err(JoinError::Encode(_))), "{unsent:?}");
    let lost = send(Picky(8), |x| Picky(x.0 + 2)).unwrap().join();
    assert!(matches!(lost, Err(JoinError::Decode { side: Side::Result, .. })), "{lost:?}");
    oracle.nothing_left();
}

#[test]
fn what_is_larger_than_the_limit_is_refused_on_either_side() {
    let (oracle, _watchdog) = begin();
    let mut limits = Limits::default();
    limits.max_bytes = 1 << 16;
    let builder = new().limits(limits);
    let refused = builder.clone().start(large(LARGE), |all| all.len()).map(|_| ()).unwrap_err();
    assert!(matches!(refused, StartError::Encode(_)), "{refused:?}");
    let unsent = builder.start(LARGE, large).unwrap().join();
    assert!(matches!(unsent, Err(JoinError::Encode(_))), "{unsent:?}");
    oracle.nothing_left();
}

#[test]
fn every_ending_without_a_value_is_told_apart() {
    let (oracle, _watchdog) = begin();
    let run = |how: u8| -> u8 {
        match how {
            0 => process::exit(0),
            3 => process::exit(3),
            6 => process::abort(),
            signal => {
                raise(Signal::try_from(i32::from(signal)).unwrap()).unwrap();
                park_for_ever()
            }
        }
    };
    let end = |how| {
        let process = new().limit_core(0).start(how, run).unwrap();
        process.join().unwrap_err()
    };
    assert!(matches!(end(0), JoinError::Exited(0)));
    assert!(matches!(end(3), JoinError::Exited(3)));
    for signal in [6, 9, 11, 15] {
        let error = end(signal);
        let JoinError::Signaled { signal: found, core_dumped: false } = error else {
            panic!("{error:?}");
        };
        assert_eq!(found, i32::from(signal));
    }
    oracle.nothing_left();
}

#[test]
fn a_value_that_was_given_counts_also_if_the_process_then_ended_badly() {
    let (oracle, _watchdog) = begin();
    let process = Process::start((), |()| {
        embed::finalizer("abort", || process::abort());
        5u8
    });
    assert_eq!(process.unwrap().join().unwrap(), 5);
    oracle.nothing_left();
}

/// Puts files in the place of this thread's cgroups, and returns that in which the kernel counts
/// whom it killed for want of memory. None for a user who may not, or who is in no such cgroup.
fn counter_of_kills() -> Option<PathBuf> {
    const ROOT: &str = "/sys/fs/cgroup";
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap();
    unshare(CloneFlags::CLONE_NEWNS).ok()?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).ok()?;
    mount(Some("tmpfs"), ROOT, Some("tmpfs"), MsFlags::empty(), none).ok()?;
    let file = |line: &str| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let path = path.trim_start_matches('/');
        match controllers {
            "" => Some(Path::new(ROOT).join(path).join("memory.events")),
            "memory" => {
                Some(Path::new(ROOT).join(controllers).join(path).join("memory.oom_control"))
            }
            _ => None,
        }
    };
    let file = groups.lines().find_map(file)?;
    fs::create_dir_all(file.parent()?).ok()?;
    Some(file)
}

#[test]
fn a_kill_that_the_count_of_the_cgroup_explains_is_told_as_a_want_of_memory() {
    let (oracle, _watchdog) = begin();
    let story = |()| {
        let counter = counter_of_kills()?;
        let count = |kills: u32| fs::write(&counter, format!("low 0\noom_kill {kills}\n")).unwrap();
        let killed = || {
            let process = Process::start((), |()| -> u8 {
                raise(Signal::SIGKILL).unwrap();
                park_for_ever()
            });
            format!("{:?}", process.unwrap().join().unwrap_err())
        };
        count(5);
        let before = killed();
        count(6);
        let out_of_memory = killed();
        let after = killed();
        count(7);
        let exited = Process::start((), |()| -> u8 { process::exit(3) }).unwrap().join();
        Some([before, out_of_memory, after, format!("{:?}", exited.unwrap_err())])
    };
    let signaled = "Signaled { signal: 9, core_dumped: false }";
    match Process::start((), story).unwrap().join().unwrap() {
        Some(told) => assert_eq!(told, [signaled, "OutOfMemory", signaled, "Exited(3)"]),
        None => eprintln!("NOT TRIED: this user may mount nothing, or is in no memory cgroup"),
    }
    eprintln!("NOT TRIED: a kill by the kernel itself; the count is the test's");
    oracle.nothing_left();
}
