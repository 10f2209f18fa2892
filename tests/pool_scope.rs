//! Whatever was submitted in a scope of a pool has its outcome when the scope ends, however it is left
//! and whatever became of the handles; the pool goes on.

use std::error::Error;
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use epilogue::task::should_stop;
use epilogue::{Pool, Task, TaskError};
use nix::unistd::{getpid, gettid};
use support::{Gate, Marks, begin, leave_mark, procfs, through};

const WORKERS: usize = 2;
const TASKS: usize = 200;

fn pool() -> Pool {
    Pool::new(WORKERS).unwrap()
}

/// Leaves the mark `begun`, stands at the gate, and runs until it is asked to return.
fn until_asked((marks, gate): (PathBuf, PathBuf)) {
    Marks::at(&marks).leave("begun");
    Gate::pass(&gate);
    while !should_stop() {
        thread::yield_now();
    }
    Marks::at(&marks).leave("asked");
}

#[test]
fn what_was_submitted_in_a_scope_is_done_when_it_returns() {
    let (oracle, _watchdog) = begin();
    for most in [1, usize::MAX] {
        let builder = Pool::builder().workers(WORKERS).max_tasks_per_worker(most);
        let (pool, marks) = (builder.start().unwrap(), Marks::new());
        let tasks: Vec<Task<()>> = pool.scope(|s| {
            (0..20).for_each(|_| drop(s.submit(marks.path(), leave_mark).unwrap()));
            std::mem::forget(s.submit(marks.path(), leave_mark).unwrap());
            s.submit(marks.path(), leave_mark).unwrap().join().unwrap();
            let some = (0..8).map(|_| s.submit(marks.path(), leave_mark).unwrap());
            // One was given, and the others go with the iterator.
            pool.as_completed(some).next().unwrap().1.unwrap();
            (0..20).map(|_| s.submit(marks.path(), leave_mark).unwrap()).collect()
        });
        assert_eq!(marks.count("task"), 50);
        assert!(tasks.iter().all(Task::is_finished));
        assert_eq!(pool.scope(|_| 7), 7, "an empty one");
        tasks.into_iter().for_each(|task| task.join().unwrap());
        assert_eq!(pool.close().unwrap().done, 50);
    }
    oracle.nothing_left();
}

#[test]
fn an_early_return_from_a_scope_waits_for_its_tasks_whatever_becomes_of_them() {
    let (oracle, _watchdog) = begin();
    let (pool, marks) = (pool(), Marks::new());
    let error = pool
        .scope(|s| -> Result<(), Box<dyn Error>> {
            (0..TASKS).for_each(|_| drop(s.submit(marks.path(), leave_mark)));
            drop(s.submit((), |()| -> u8 { std::process::abort() })?);
            drop(s.submit((), |()| -> u8 { panic!("on purpose") })?);
            Err("the reason")?
        })
        .unwrap_err();
    assert_eq!(error.to_string(), "the reason");
    assert_eq!(marks.count("task"), TASKS);
    let report = pool.close().unwrap();
    assert_eq!((report.done, report.lost), (TASKS as u64 + 1, 1), "{report}");
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn a_panic_in_a_scope_asks_its_tasks_to_return_cancels_the_rest_and_no_task_of_others() {
    let (oracle, _watchdog) = begin();
    let (pool, marks, mut gate) = (pool(), Marks::new(), Gate::new());
    let mut others = Vec::new();
    let unwound = panic::catch_unwind(AssertUnwindSafe(|| {
        pool.scope(|s| {
            for _ in 0..WORKERS {
                drop(s.submit((marks.path(), gate.path()), until_asked).unwrap());
            }
            gate.wait_for(WORKERS);
            gate.open_once();
            for n in 0..TASKS {
                drop(s.submit(marks.path(), leave_mark).unwrap());
                others.push(pool.submit(n, |n| n).unwrap());
            }
            panic!("on purpose");
        })
    }));
    assert_eq!(unwound.unwrap_err().downcast_ref(), Some(&"on purpose"));
    let counts = ["begun", "asked", "task"].map(|event| marks.count(event));
    assert_eq!(counts, [WORKERS, WORKERS, 0]);
    for (n, task) in others.into_iter().enumerate() {
        assert_eq!(task.join().unwrap(), n);
    }
    let report = pool.close().unwrap();
    assert_eq!((report.done, report.cancelled), ((WORKERS + TASKS) as u64, TASKS as u64));
    drop((pool, gate));
    oracle.nothing_left();
}

#[test]
fn a_scope_ends_with_a_pool_that_another_thread_terminates_and_refuses_what_comes_later() {
    let (oracle, _watchdog) = begin();
    let (pool, marks, mut gate) = (pool(), Marks::new(), Gate::new());
    let behind = thread::scope(|threads| {
        pool.scope(|s| {
            for _ in 0..WORKERS {
                drop(s.submit((marks.path(), gate.path()), until_asked).unwrap());
            }
            gate.wait_for(WORKERS);
            gate.open_once();
            let behind = s.submit((), |()| ()).unwrap();
            threads.spawn(|| pool.terminate().unwrap());
            while s.submit((), |()| ()).is_ok() {
                thread::yield_now();
            }
            behind
        })
    });
    assert!(behind.is_finished());
    assert!(matches!(behind.join(), Err(TaskError::Cancelled { begun: false })));
    drop((pool, gate));
    oracle.nothing_left();
}

#[test]
fn a_scope_that_waits_hears_of_a_task_that_another_thread_cancels() {
    let (oracle, _watchdog) = begin();
    // Nobody looks for stalls: nothing but the outcome wakes who waits.
    let builder = Pool::builder().workers(WORKERS).stall_after(Duration::from_secs(3600));
    let (pool, mut gate) = (builder.start().unwrap(), Gate::new());
    let held = [(); WORKERS].map(|()| pool.submit((gate.path(), 1u8), through).unwrap());
    gate.wait_for(WORKERS);
    let (main, (sender, tasks)) = (gettid(), mpsc::channel::<Task<u8>>());
    thread::scope(|threads| {
        threads.spawn(move || {
            let task = tasks.recv().unwrap();
            // It has nothing to do but to wait for the scope's end.
            let sleeps = |thread: &procfs::Entry| thread.pid == main && thread.state == 'S';
            while !procfs::threads_of(getpid()).iter().any(sleeps) {
                thread::yield_now();
            }
            assert!(task.cancel());
        });
        pool.scope(|s| sender.send(s.submit(1u8, |x| x).unwrap()).unwrap());
    });
    assert!(held.iter().all(|task| task.is_running()));
    drop(gate);
    held.into_iter().for_each(|task| assert_eq!(task.join().unwrap(), 1));
    drop(pool);
    oracle.nothing_left();
}
