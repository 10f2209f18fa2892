//! A callback may do anything: panic, submit, block, close or drop the pool, while workers crash.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use epilogue::{Pool, TaskError};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use support::{Gate, begin, procfs, through};

#[test]
fn every_callback_is_called_once_with_the_outcome_before_close_returns() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(2).unwrap();
    let called = Arc::new(Mutex::new(vec![0; 1000]));
    for n in 0..1000usize {
        let called = Arc::clone(&called);
        let task = pool.submit(n, |n| n * 2).unwrap();
        task.on_done(move |value| called.lock().unwrap()[value.unwrap() / 2] += 1);
    }
    assert_eq!(pool.close().unwrap().done, 1000);
    assert!(called.lock().unwrap().iter().all(|&count| count == 1));
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn a_callback_is_told_of_every_kind_of_outcome() {
    let (oracle, _watchdog) = begin();
    let gate = Gate::new();
    let pool = Pool::new(1).unwrap();
    let (sender, outcomes) = channel();
    let tell = |name: &'static str| {
        let sender = sender.clone();
        move |outcome: Result<u64, TaskError>| sender.send((name, outcome)).unwrap()
    };
    pool.submit(0u64, |_| std::process::abort()).unwrap().on_done(tell("lost"));
    pool.submit(0u64, |x| if x == 0 { panic!("on purpose") } else { x })
        .unwrap()
        .on_done(tell("panics"));
    pool.submit((gate.path(), 7), through).unwrap().on_done(tell("value"));
    let cancelled = pool.submit(0u64, |x| x).unwrap();
    assert!(cancelled.cancel());
    cancelled.on_done(tell("cancelled"));
    drop((gate, sender));
    let mut outcomes: Vec<_> = outcomes.into_iter().collect();
    outcomes.sort_by_key(|(name, _)| *name);
    let [cancelled, lost, panics, value] =
        <[_; 4]>::try_from(outcomes).unwrap().map(|(_, one)| one);
    assert!(matches!(cancelled, Err(TaskError::Cancelled { begun: false })), "{cancelled:?}");
    assert!(matches!(lost, Err(TaskError::WorkerLost(_))), "{lost:?}");
    assert!(matches!(panics, Err(TaskError::Panicked(_))), "{panics:?}");
    assert_eq!(value.unwrap(), 7);
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn a_callback_that_panics_or_blocks_holds_up_nothing_but_those_after_it() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(2).unwrap();
    let (sender, called) = channel();
    let (go, block) = sync_channel::<()>(0);
    pool.submit((), |()| ()).unwrap().on_done(|_| panic!("on purpose"));
    pool.submit((), |()| ()).unwrap().on_done(move |_| block.recv().unwrap());
    let last = sender.clone();
    pool.submit((), |()| ()).unwrap().on_done(move |_| last.send("after").unwrap());
    assert_eq!(pool.map(0..1000u64, |x| x).unwrap().len(), 1000);
    assert_eq!(pool.submit(1u64, |x| x).unwrap().join().unwrap(), 1);
    sender.send("before").unwrap();
    go.send(()).unwrap();
    drop((pool, sender));
    assert_eq!(called.into_iter().collect::<Vec<_>>(), ["before", "after"]);
    oracle.nothing_left();
}

#[test]
fn a_callback_may_submit_map_and_set_callbacks() {
    let (oracle, _watchdog) = begin();
    let pool = Arc::new(Pool::new(2).unwrap());
    let (sender, sums) = channel();
    for n in 0..50u64 {
        let (inner, sender) = (Arc::clone(&pool), sender.clone());
        pool.submit(n, |n| n).unwrap().on_done(move |value| {
            let squares = inner.map(0..value.unwrap(), |x| x * x).unwrap();
            let sum = inner.submit(squares, |all: Vec<u64>| all.iter().sum::<u64>()).unwrap();
            sum.on_done(move |sum| sender.send(sum.unwrap()).unwrap());
            drop(inner);
        });
    }
    drop(sender);
    let expected: u64 = (0..50u64).map(|n| (0..n).map(|x| x * x).sum::<u64>()).sum();
    assert_eq!(sums.into_iter().sum::<u64>(), expected);
    // The last callback may still hold the pool.
    assert!(pool.close().unwrap().is_clean());
    drop(pool);
    oracle.nothing_left_soon();
}

#[test]
fn a_callback_may_close_the_pool_and_those_after_it_are_called() {
    let (oracle, _watchdog) = begin();
    for _ in 0..20 {
        let pool = Arc::new(Pool::new(2).unwrap());
        let called = Arc::new(AtomicUsize::new(0));
        for n in 0..10u64 {
            let (pool, called) = (Arc::downgrade(&pool), Arc::clone(&called));
            let Ok(task) = pool.upgrade().unwrap().submit(n, |n| n) else { break };
            task.on_done(move |_| {
                let pool = pool.upgrade();
                assert!(pool.is_some_and(|pool| pool.close().unwrap().is_clean()));
                called.fetch_add(1, Ordering::Relaxed);
            });
        }
        let report = pool.close().unwrap();
        assert_eq!(called.load(Ordering::Relaxed) as u64, report.done);
        drop(pool);
    }
    oracle.nothing_left_soon();
}

#[test]
fn a_callback_may_drop_the_pool() {
    let (oracle, _watchdog) = begin();
    let mut gate = Gate::new();
    let pool = Pool::new(2).unwrap();
    let first = pool.submit((gate.path(), 0u64), through).unwrap();
    let second = pool.submit((gate.path(), 1u64), through).unwrap();
    gate.wait_for(2);
    let (sender, done) = channel();
    let last = sender.clone();
    first.on_done(move |value| {
        drop(pool);
        sender.send(value.unwrap()).unwrap();
    });
    second.on_done(move |value| last.send(value.unwrap()).unwrap());
    drop(gate);
    let mut values: Vec<_> = done.into_iter().collect();
    values.sort();
    assert_eq!(values, [0, 1]);
    // Nobody joins the thread that dropped the pool.
    oracle.nothing_left_soon();
}

#[test]
fn a_callback_that_is_set_after_the_end_is_called_at_once() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(1).unwrap();
    let tasks = [1u64, 2].map(|x| pool.submit(x, |x| x).unwrap());
    assert!(pool.close().unwrap().is_clean());
    let [first, second] = tasks;
    let here = thread::current().id();
    let (sender, called) = channel();
    let other = sender.clone();
    first.on_done(move |value| sender.send((value.unwrap(), thread::current().id())).unwrap());
    drop(pool);
    second.on_done(move |value| other.send((value.unwrap(), thread::current().id())).unwrap());
    assert_eq!(called.into_iter().collect::<Vec<_>>(), [(1, here), (2, here)]);
    oracle.nothing_left();
}

#[test]
fn submitting_from_everywhere_while_workers_crash_locks_nobody_out() {
    let (oracle, _watchdog) = begin();
    let pool = Arc::new(Pool::new(2).unwrap());
    let (outcomes, callbacks) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let crash = |n: u64| match n % 50 {
        49 => std::process::abort(),
        _ => n,
    };
    thread::scope(|scope| {
        for thread in 0..4u64 {
            let (pool, outcomes, callbacks) = (&pool, &outcomes, &callbacks);
            scope.spawn(move || {
                for n in (0..100).map(|n| n * 4 + thread) {
                    let (inner, callbacks) = (Arc::downgrade(pool), Arc::clone(callbacks));
                    pool.submit(n, crash).unwrap().on_done(move |outcome| {
                        // From a callback, also of a task that was lost.
                        if let Some(pool) = inner.upgrade() {
                            let again = pool.submit(outcome.unwrap_or(1), |n| n).unwrap();
                            let callbacks = Arc::clone(&callbacks);
                            again.on_done(move |_| {
                                callbacks.fetch_add(1, Ordering::Relaxed);
                            });
                        }
                        callbacks.fetch_add(1, Ordering::Relaxed);
                    });
                    let outcome = pool.submit(n, crash).unwrap().join();
                    assert!(
                        matches!(outcome, Ok(_) | Err(TaskError::WorkerLost(_))),
                        "{outcome:?}"
                    );
                    outcomes.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    // From a task's result: a pool of the worker's own.
    let nested = pool.submit(3u64, |n| Pool::new(1).unwrap().map(0..n, |x| x).unwrap().len());
    assert_eq!(nested.unwrap().join().unwrap(), 3);
    while callbacks.load(Ordering::Relaxed) < 800 {
        thread::yield_now();
    }
    assert_eq!(outcomes.into_inner(), 400);
    assert_eq!(pool.close().unwrap().lost, 16);
    drop(pool);
    oracle.nothing_left();
}

/// A task that was submitted, is called back for, and lies behind another one.
#[test]
fn what_only_a_callback_waits_for_is_done() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(1).unwrap();
    let (sender, values) = channel();
    let gate = Gate::new();
    let pass = |(gate, n): (PathBuf, u64)| through((gate, n));
    for n in 0..30 {
        let sender = sender.clone();
        pool.submit((gate.path(), n), pass)
            .unwrap()
            .on_done(move |n| sender.send(n.unwrap()).unwrap());
    }
    drop((gate, sender));
    // In the order in which the worker was done.
    assert_eq!(values.into_iter().collect::<Vec<_>>(), (0..30).collect::<Vec<_>>());
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn whoever_ends_the_pool_waits_for_all_callbacks_even_if_another_thread_does_so_already() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(1).unwrap();
    let (entered, is_called) = channel();
    let (go_on, goes_on) = sync_channel::<()>(0);
    let called = Arc::new(AtomicUsize::new(0));
    let counts = Arc::clone(&called);
    pool.submit(1u64, |x| x).unwrap().on_done(move |_| {
        entered.send(()).unwrap();
        let _ = goes_on.recv();
        counts.fetch_add(1, Ordering::SeqCst);
    });
    is_called.recv().unwrap();
    thread::scope(|s| {
        let close = || {
            assert!(pool.close().is_ok());
            called.load(Ordering::SeqCst)
        };
        let closers = ["first", "second"].map(|name| {
            thread::Builder::new().name(name.to_owned()).spawn_scoped(s, close).unwrap()
        });
        // The pool is gone but for its callback, and both wait for that; or one has come back.
        let is_there = |name: &str, state: Option<char>| {
            let threads = procfs::threads_of(Pid::this());
            threads.iter().any(|one| one.name == name && state.is_none_or(|it| one.state == it))
        };
        while !closers.iter().any(|closer| closer.is_finished())
            && (is_there("epilogue-pool", None)
                || !["first", "second"].iter().all(|name| is_there(name, Some('S'))))
        {
            thread::yield_now();
        }
        drop(go_on);
        assert!(closers.into_iter().all(|closer| closer.join().unwrap() == 1));
    });
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn a_callback_is_called_at_once_although_another_thread_sleeps_for_a_longer_task() {
    let (oracle, _watchdog) = begin();
    // On one CPU, a worker that is woken has often answered before whoever woke it goes on.
    let before = sched_getaffinity(Pid::from_raw(0)).unwrap();
    let mut one = CpuSet::new();
    let first = (0..CpuSet::count()).find(|&cpu| before.is_set(cpu).unwrap()).unwrap();
    one.set(first).unwrap();
    sched_setaffinity(Pid::from_raw(0), &one).unwrap();
    let mut gate = Gate::new();
    // Nobody looks by the clock.
    let pool = Pool::builder().workers(2).stall_after(Duration::MAX).start().unwrap();
    let long = pool.submit((gate.path(), 1u64), through).unwrap();
    gate.wait();
    thread::scope(|s| {
        let named = thread::Builder::new().name("sleeper".to_owned());
        let sleeper = named.spawn_scoped(s, || long.join()).unwrap();
        let sleeps = |one: &procfs::Entry| one.name == "sleeper" && one.state == 'S';
        for n in 0..2000u64 {
            while !procfs::threads_of(Pid::this()).iter().any(sleeps) {
                thread::yield_now();
            }
            let (sender, outcome) = channel();
            pool.submit(n, |n| n).unwrap().on_done(move |value| sender.send(value).unwrap());
            assert_eq!(outcome.recv().unwrap().unwrap(), n);
        }
        gate.open_once();
        assert_eq!(sleeper.join().unwrap().unwrap(), 1);
    });
    sched_setaffinity(Pid::from_raw(0), &before).unwrap();
    drop((pool, gate));
    oracle.nothing_left();
}
