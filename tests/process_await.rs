//! A process is a future of its value: in any runtime and in none, and half awaited, too.

use std::path::PathBuf;
use std::process::{self};
use std::thread::{self};
use std::time::Duration;

use epilogue::{JoinError, Process, wait_any};
use support::{Gate, LARGE, Marks, begin, block_on, large, never_early, poll_once, waiting};

#[test]
fn a_process_can_be_awaited_without_a_runtime() {
    let (oracle, _watchdog) = begin();
    assert_eq!(block_on(Process::start(3u64, |x| x * x).unwrap()).unwrap(), 9);
    assert_eq!(block_on(Process::start(LARGE, large).unwrap()).unwrap().len(), LARGE);
    let exited = block_on(Process::start((), |()| -> u8 { process::exit(3) }).unwrap());
    assert!(matches!(exited, Err(JoinError::Exited(3))), "{exited:?}");
    oracle.nothing_left_soon();
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
    oracle.nothing_left_soon();
}

#[test]
fn a_future_that_gave_its_value_has_none_to_give_again() {
    let (oracle, _watchdog) = begin();
    let mut process = Process::start(3u64, |x| x * x).unwrap();
    assert_eq!(block_on(&mut process).unwrap(), 9);
    assert!(matches!(block_on(&mut process), Err(JoinError::AlreadyJoined)));
    assert!(matches!(process.try_join(), Err(JoinError::AlreadyJoined)));
    drop(process);
    oracle.nothing_left_soon();
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
    oracle.nothing_left_soon();
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
    oracle.nothing_left_soon();
}
