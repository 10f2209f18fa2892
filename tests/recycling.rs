//! A worker that has done enough, or has grown too much, is replaced: it never does more than it may,
//! no task is lost or waits for the replacement, and what ends with a worker ends well.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{LazyLock, Mutex};
use std::{env, process, thread};

use epilogue::pool::Builder;
use epilogue::{BuildError, Pool, Report, StartMethod, TaskError};
use nix::sys::time::TimeValLike;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use support::{Gate, Marks, begin, hooks};

const WORKERS: usize = 2;
const TASKS: usize = 60;

/// How many workers are used up in a row. More by `EPILOGUE_TEST_RECYCLED`.
const RECYCLED: usize = 2_500;

fn recycled() -> usize {
    env::var("EPILOGUE_TEST_RECYCLED").map_or(RECYCLED, |number| number.parse().unwrap())
}

fn builder(most: usize) -> Builder {
    Pool::builder().workers(WORKERS).max_tasks_per_worker(most)
}

/// A process and when it was first asked, in nanoseconds: its number alone may be another one's before so
/// many have ended.
type Who = (u32, i64);

fn times_three(x: usize) -> (usize, Who) {
    static SINCE: LazyLock<i64> = LazyLock::new(|| {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap();
        now.num_nanoseconds()
    });
    (3 * x, (process::id(), *SINCE))
}

/// All values are right, and no process has more tasks than it may.
#[track_caller]
fn check(values: &[(usize, Who)], most: usize) {
    let mut tasks = HashMap::<Who, usize>::new();
    for (x, &(value, who)) in values.iter().enumerate() {
        assert_eq!(value, 3 * x);
        *tasks.entry(who).or_default() += 1;
    }
    assert!(tasks.values().all(|&count| count <= most), "{tasks:?}");
}

#[track_caller]
fn check_report(report: &Report, tasks: usize, most: usize) {
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.done, report.lost, report.cancelled), (tasks as u64, 0, 0), "{report}");
    assert!(report.workers.iter().all(|worker| worker.done <= most as u64), "{report}");
}

#[test]
fn no_worker_does_more_tasks_than_it_may_however_they_come() {
    let (oracle, _watchdog) = begin();
    for most in [1, 2, 7] {
        let pool = builder(most).start().unwrap();
        check(&pool.map(0..TASKS, times_three).unwrap(), most);
        check(&pool.chunk_size(10).map(0..TASKS, times_three).unwrap(), most);
        let tasks: Vec<_> = (0..TASKS).map(|x| pool.submit(x, times_three).unwrap()).collect();
        let values: Vec<_> = tasks.into_iter().map(|task| task.join().unwrap()).collect();
        check(&values, most);
        for x in 0..TASKS {
            assert_eq!(pool.submit(x, times_three).unwrap().join().unwrap().0, 3 * x);
        }
        check_report(&pool.close().unwrap(), 4 * TASKS, most);
    }
    oracle.nothing_left();
}

#[test]
fn with_one_task_a_worker_every_task_of_many_is_answered_and_the_report_stays_short() {
    let (oracle, _watchdog) = begin();
    let tasks = recycled();
    let pool = builder(1).start_method(StartMethod::Server).start().unwrap();
    check(&pool.map(0..tasks, times_three).unwrap(), 1);
    let report = pool.close().unwrap();
    check_report(&report, tasks, 1);
    assert_eq!(report.workers.len(), 1000);
    assert!(report.omitted as usize >= tasks - 1000, "{}", report.omitted);
    drop(pool);
    epilogue::end_servers();
    oracle.nothing_left();
}

#[test]
fn a_pool_that_is_left_right_after_tasks_were_submitted_does_them_all() {
    let (oracle, _watchdog) = begin();
    for most in 1..4 {
        for leave in [|pool: Pool| drop(pool.close().unwrap()), drop] {
            let marks = Marks::new();
            let pool = builder(most).start().unwrap();
            for _ in 0..20 {
                let run = |path: PathBuf| Marks::at(&path).leave("ran");
                drop(pool.submit(marks.path(), run).unwrap());
            }
            leave(pool);
            assert_eq!(marks.count("ran"), 20);
        }
        // Those that it does not do are told of.
        let pool = builder(most).start().unwrap();
        let tasks: Vec<_> = (0..20).map(|x| pool.submit(x, times_three).unwrap()).collect();
        let report = pool.terminate().unwrap();
        let outcomes: Vec<_> = tasks.into_iter().map(|task| task.join()).collect();
        let done = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        assert_eq!((report.done, report.cancelled), (done as u64, 20 - done as u64), "{report}");
    }
    oracle.nothing_left();
}

#[test]
fn the_next_worker_is_up_before_the_one_before_it_leaves_and_waits_for_that() {
    let (oracle, _watchdog) = begin();
    let (marks, mut gate) = (Marks::new(), Gate::new());
    let (name, directory) = marks.variable();
    let up = || Marks::from_env().leave("up");
    let pool = Pool::builder().workers(1).max_tasks_per_worker(1).env(name, directory);
    let pool = pool.initializer(up).start().unwrap();
    let first = pool.submit(gate.path(), |gate| {
        Gate::pass(&gate);
        Marks::from_env().leave("first is through");
    });
    let pid = gate.wait();
    // The first one is in the middle of its last task.
    while marks.pids("up").iter().all(|&other| other == pid) {
        thread::yield_now();
    }
    let through = |()| Marks::from_env().count("first is through");
    let second = pool.submit((), through).unwrap();
    gate.open_once();
    first.unwrap().join().unwrap();
    assert_eq!(second.join().unwrap(), 1, "two tasks ran at once in a pool of one");
    drop((pool, gate));
    oracle.nothing_left();
}

#[test]
fn a_worker_that_is_replaced_runs_its_finalizers() {
    let (oracle, _watchdog) = begin();
    let marks = Marks::new();
    let pool = builder(3).start().unwrap();
    let items = std::iter::repeat_n(marks.path(), TASKS);
    pool.map(items, |marks: PathBuf| hooks::register(&marks)).unwrap();
    check_report(&pool.close().unwrap(), TASKS, 3);
    assert!(hooks::all_ran_once(&marks) >= TASKS / 3);
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn a_worker_that_dies_in_its_last_task_loses_that_one() {
    let (oracle, _watchdog) = begin();
    for most in [1, 2, 5] {
        let pool = builder(most).start().unwrap();
        let outcomes = pool.map_outcomes(0..TASKS, |x| match x % 10 {
            9 => process::abort(),
            _ => x,
        });
        for (x, outcome) in outcomes.unwrap().into_iter().enumerate() {
            match outcome {
                Ok(value) => assert_eq!(value, x),
                Err(TaskError::WorkerLost(_)) => assert_eq!(x % 10, 9),
                Err(error) => panic!("{x}: {error}"),
            }
        }
        let report = pool.close().unwrap();
        assert_eq!((report.done as usize, report.lost as usize), (TASKS * 9 / 10, TASKS / 10));
    }
    oracle.nothing_left();
}

/// What a task has leaked.
static LEAKED: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

fn leak(bytes: usize) -> i32 {
    LEAKED.lock().unwrap().push(vec![1; bytes]);
    process::id() as i32
}

#[test]
fn a_worker_whose_memory_has_grown_is_replaced_and_one_whose_memory_has_not_stays() {
    let (oracle, _watchdog) = begin();
    let marks = Marks::new();
    let pool = Pool::builder().workers(1).max_memory_growth(64 << 20).start().unwrap();
    let pids = pool.map(std::iter::repeat_n(1 << 10, 1000), leak).unwrap();
    assert!(pids.iter().all(|pid| *pid == pids[0]), "it has not grown");
    pool.submit(marks.path(), |marks: PathBuf| hooks::register(&marks)).unwrap().join().unwrap();
    assert_eq!(pool.submit(96 << 20, leak).unwrap().join().unwrap(), pids[0]);
    // It goes on until another one is up.
    let another = (0..).find_map(|_| {
        let pid = pool.submit(0, leak).unwrap().join().unwrap();
        (pid != pids[0]).then_some(pid)
    });
    let report = pool.close().unwrap();
    let ended: Vec<_> = report.workers.iter().map(|worker| worker.pid as i32).collect();
    assert!(ended.len() == 2 && ended.contains(&pids[0]), "{report}");
    assert!(ended.contains(&another.unwrap()), "{report}");
    assert!(report.is_clean() && report.lost == 0, "{report}");
    assert_eq!(hooks::all_ran_once(&marks), 1);
    assert_eq!(marks.pids("finalizer"), [Pid::from_raw(pids[0])]);
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn a_pool_whose_workers_may_do_nothing_is_not_started() {
    let (oracle, _watchdog) = begin();
    assert!(matches!(builder(0).start(), Err(BuildError::NoTasks)));
    oracle.nothing_left();
}
