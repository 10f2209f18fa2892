//! Whichever way one waits for a process, it tells the truth about it, and nobody wakes up for
//! nothing.

use std::fs;
use std::os::fd::AsFd;
use std::process::{self};
use std::thread::{self};
use std::time::Duration;

use epilogue::process::{Builder, Waitable};
use epilogue::{JoinError, Process, Rung, join_all, scope, wait_any};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{Pid, gettid};
use support::{
    Gate, LARGE, await_end, begin, block_on, large, never_early, parked, procfs, stop, through,
    waiting,
};

fn new() -> Builder {
    Process::builder()
}

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
    oracle.nothing_left_soon();
}
