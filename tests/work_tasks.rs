//! A task's handle tells the truth: whether it waits, runs or is done, and whether it was cancelled.

use std::path::PathBuf;
use std::time::Duration;

use epilogue::{Pool, Task, TaskError, TaskOptions};
use support::{Gate, Marks, begin, through};

/// A pool whose only worker stands at the gate, with a task behind the one that it runs.
fn busy_pool(gate: &mut Gate, marks: &Marks) -> (Pool, Task<u64>, Task<u64>) {
    let pool = Pool::new(1).unwrap();
    let first = pool.submit((gate.path(), 1u64), through).unwrap();
    gate.wait();
    let second = pool.submit((marks.path(), 2u64), |(marks, x)| {
        Marks::at(&marks).leave("second");
        x
    });
    (pool, first, second.unwrap())
}

#[test]
fn a_task_that_has_not_begun_is_cancelled_and_never_begins() {
    let (oracle, _watchdog) = begin();
    let (mut gate, marks) = (Gate::new(), Marks::new());
    let (pool, first, second) = busy_pool(&mut gate, &marks);
    assert!(second.cancel(), "nobody had begun it");
    assert!(!second.cancel(), "it was cancelled before");
    assert!(second.is_finished());
    assert!(matches!(second.join(), Err(TaskError::Cancelled { begun: false })));
    gate.open_once();
    assert_eq!(first.join().unwrap(), 1);
    let report = pool.close().unwrap();
    assert_eq!((report.done, report.cancelled, marks.count("second")), (1, 1, 0));
    drop((pool, gate));
    oracle.nothing_left();
}

#[test]
fn tens_of_thousands_are_cancelled_one_by_one_in_either_order() {
    let (oracle, _watchdog) = begin();
    for backwards in [false, true] {
        let (mut gate, marks) = (Gate::new(), Marks::new());
        let (pool, first, second) = busy_pool(&mut gate, &marks);
        let mut tasks = pool.submit_all(0..50_000u64, |x| x).unwrap();
        if backwards {
            tasks.reverse();
        }
        // The first few are with the worker, who begins none.
        assert!(tasks.iter().all(Task::cancel));
        gate.open_once();
        assert_eq!((first.join().unwrap(), second.join().unwrap()), (1, 2));
        assert_eq!(pool.close().unwrap().cancelled, 50_000);
        drop((tasks, pool, gate));
    }
    oracle.nothing_left();
}

#[test]
fn a_task_that_has_begun_is_not_cancelled() {
    let (oracle, _watchdog) = begin();
    let (mut gate, marks) = (Gate::new(), Marks::new());
    let (pool, first, second) = busy_pool(&mut gate, &marks);
    assert!(!first.cancel());
    gate.open_once();
    assert_eq!((first.join().unwrap(), second.join().unwrap()), (1, 2));
    drop((pool, gate));
    oracle.nothing_left();
}

#[test]
fn cancelling_is_exact_while_workers_begin_what_is_cancelled() {
    let (oracle, _watchdog) = begin();
    let (marks, mut gate) = (Marks::new(), Gate::new());
    let pool = Pool::new(2).unwrap();
    let mut cancelled = 0;
    // In the first round none can begin; in the others some do.
    let held = [0, 1].map(|n| pool.submit((gate.path(), n), through).unwrap());
    gate.wait_for(2);
    for round in 0..20 {
        fn leave((marks, name): (PathBuf, String)) {
            Marks::at(&marks).leave(&name);
        }
        let name = |n: usize| format!("{round}-{n}");
        let tasks = (0..40).map(|n| pool.submit((marks.path(), name(n)), leave).unwrap());
        let tasks: Vec<_> = tasks.collect();
        let answers: Vec<bool> = tasks.iter().map(Task::cancel).collect();
        gate.open_once();
        for (n, (task, was_cancelled)) in tasks.into_iter().zip(answers).enumerate() {
            let outcome = task.join();
            let ran = marks.count(&name(n));
            match was_cancelled {
                true => assert!(matches!(outcome, Err(TaskError::Cancelled { begun: false }))),
                false => outcome.unwrap(),
            }
            assert_eq!(ran, usize::from(!was_cancelled), "task {n} of round {round}");
            cancelled += u64::from(was_cancelled);
        }
    }
    assert_eq!(held.map(|task| task.join().unwrap()), [0, 1]);
    let report = pool.close().unwrap();
    assert_eq!((report.done, report.cancelled), (802 - cancelled, cancelled));
    assert!(cancelled >= 40, "{cancelled} were cancelled, and 40 could not begin");
    drop((pool, gate));
    oracle.nothing_left();
}

#[test]
fn a_task_waits_then_runs_then_is_finished_and_the_handle_says_which() {
    let (oracle, _watchdog) = begin();
    let (mut gate, marks) = (Gate::new(), Marks::new());
    let (pool, first, second) = busy_pool(&mut gate, &marks);
    assert_eq!((first.is_running(), first.is_finished()), (true, false));
    assert_eq!((second.is_running(), second.is_finished()), (false, false));
    gate.open_once();
    assert_eq!(second.join().unwrap(), 2);
    assert_eq!((first.is_running(), first.is_finished()), (false, true));
    assert!(pool.close().unwrap().is_clean());
    assert_eq!((first.is_running(), first.is_finished()), (false, true));
    assert_eq!(first.join().unwrap(), 1);
    drop((pool, gate));
    oracle.nothing_left();
}

#[test]
fn a_join_that_times_out_gives_the_task_back_and_a_later_one_its_value_once() {
    let (oracle, _watchdog) = begin();
    let (mut gate, marks) = (Gate::new(), Marks::new());
    let (pool, mut first, mut second) = busy_pool(&mut gate, &marks);
    assert_eq!(first.join_timeout(Duration::from_millis(1)).unwrap(), None);
    assert_eq!(second.join_timeout(Duration::ZERO).unwrap(), None);
    assert_eq!(first.try_join().unwrap(), None);
    gate.open_once();
    assert_eq!(first.join_timeout(Duration::MAX).unwrap(), Some(1));
    assert!(matches!(first.try_join(), Err(TaskError::AlreadyJoined)));
    assert!(matches!(first.join_timeout(Duration::ZERO), Err(TaskError::AlreadyJoined)));
    let second = loop {
        if let Some(value) = second.try_join().unwrap() {
            break value;
        }
        std::thread::yield_now();
    };
    assert_eq!(second, 2);
    drop((pool, gate));
    oracle.nothing_left();
}

#[test]
fn who_joins_again_and_again_for_no_time_at_all_gets_the_value() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(1).unwrap();
    let mut task = pool.submit(1u64, |n| n + 1).unwrap();
    let value = loop {
        if let Some(value) = task.join_timeout(Duration::ZERO).unwrap() {
            break value;
        }
        std::thread::yield_now();
    };
    assert_eq!(value, 2);
    drop(pool);
    oracle.nothing_left();
}

/// Whoever reads for all may leave at any moment because its time is over.
#[test]
fn those_who_wait_beside_one_that_times_out_get_their_outcomes() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(2).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let pool = &pool;
            scope.spawn(move || {
                for n in 0..500 {
                    let value = thread << 32 | n;
                    let mut task = pool.submit(value, |x| x + 1).unwrap();
                    let timeout = Duration::from_micros(n % 7);
                    let early = match thread % 2 {
                        0 => task.join_timeout(timeout).unwrap(),
                        _ => None,
                    };
                    assert_eq!(early.map_or_else(|| task.join(), Ok).unwrap(), value + 1);
                }
            });
        }
    });
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn a_worker_that_becomes_idle_takes_over_what_nobody_waits_for() {
    let (oracle, _watchdog) = begin();
    let (mut first, mut second, mut behind) = (Gate::new(), Gate::new(), Gate::new());
    let pool = Pool::new(2).unwrap();
    let mut tasks = vec![pool.submit((first.path(), 0u64), through).unwrap()];
    first.wait();
    tasks.push(pool.submit((second.path(), 1), through).unwrap());
    second.wait();
    // One of them behind each.
    tasks.extend((2..4).map(|x| pool.submit((behind.path(), x), through).unwrap()));
    second.open_once();
    // The second worker is at the gate with its own; let through, it has to take the other's.
    behind.wait();
    behind.open_once();
    behind.wait();
    drop((first, second, behind));
    let values: Vec<_> = tasks.into_iter().map(|task| task.join().unwrap()).collect();
    assert_eq!(values, [0, 1, 2, 3]);
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn a_task_has_the_name_that_it_was_given() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(1).unwrap();
    let options = TaskOptions::new().name("answer");
    let tasks = [42u64, 43].map(|x| pool.submit_with(&options, x, |x| x).unwrap());
    assert_eq!(tasks.each_ref().map(|task| task.name()), [Some("answer"); 2]);
    assert!(format!("{:?}", tasks[0]).contains("answer"));
    assert_eq!(pool.submit((), |()| ()).unwrap().name(), None);
    assert_eq!(tasks.map(|task| task.join().unwrap()), [42, 43]);
    drop(pool);
    oracle.nothing_left();
}
