//! A pool ends in the time and by the policy that it is given: whatever they are, each task has one
//! outcome, the finalizers ran, and nothing is left.

use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use epilogue::pool::Builder;
use epilogue::{EndCause, EndPolicy, ExitStatus, Pool, Report, Rung, Task, TaskError};
use support::{Gate, Marks, begin, held, hooks, leave_mark, park_for_ever};

const WORKERS: usize = 2;
const BEHIND: usize = 50;

/// No time at all: whoever has to be asked is asked at once.
const MOMENT: Duration = Duration::from_millis(1);
/// More than a test may take.
const AGES: Duration = Duration::from_secs(3600);

/// Nobody looks for stalls: nothing but its deadline wakes a pool that finishes its tasks.
fn builder() -> Builder {
    let builder = Pool::builder().workers(WORKERS).stall_after(AGES);
    builder.grace_period(Duration::from_secs(30))
}

/// A pool all of whose workers hold a task, with more behind those.
struct Busy {
    pool: Pool,
    held: Vec<Task<()>>,
    behind: Vec<Task<()>>,
    marks: Marks,
    gate: Gate,
}

fn busy(builder: Builder) -> Busy {
    let pool = builder.start().unwrap();
    let (marks, mut gate) = (Marks::new(), Gate::new());
    let hold = |argument: (PathBuf, PathBuf)| {
        hooks::register(&argument.0);
        held(argument);
    };
    let start = |_| pool.submit((marks.path(), gate.path()), hold).unwrap();
    let held = (0..WORKERS).map(start).collect();
    gate.wait_for(WORKERS);
    let behind = (0..BEHIND).map(|_| pool.submit(marks.path(), leave_mark).unwrap()).collect();
    Busy { pool, held, behind, marks, gate }
}

/// How many of the held tasks were let through, and asked to stop; how many behind them were done.
fn what_was_done(marks: &Marks) -> [usize; 3] {
    assert_eq!(hooks::all_ran_once(marks), WORKERS);
    ["let through", "asked", "task"].map(|event| marks.count(event))
}

#[track_caller]
fn all_never_began(tasks: Vec<Task<()>>) {
    for task in tasks {
        let error = task.join().unwrap_err();
        assert!(matches!(error, TaskError::Cancelled { begun: false }), "{error:?}");
    }
}

#[track_caller]
fn all_left_well(report: &Report, rung: Rung) {
    assert_eq!(report.workers.len(), WORKERS, "{report}");
    for worker in &report.workers {
        assert_eq!((worker.end.status, worker.end.rung), (ExitStatus::Exited(0), rung), "{report}");
    }
}

/// Waits until somebody ends the pool.
fn await_end_of(pool: &Pool) {
    while pool.submit((), |()| ()).is_ok() {
        thread::yield_now();
    }
}

#[test]
fn close_timeout_finishes_what_it_has_the_time_for() {
    let (oracle, _watchdog) = begin();
    for timeout in [AGES, Duration::MAX] {
        let Busy { pool, held, behind, marks, gate } = busy(builder());
        drop((held, behind, gate));
        let report = pool.close_timeout(timeout).unwrap();
        all_left_well(&report, Rung::Finish);
        assert_eq!((report.done, report.cancelled), ((WORKERS + BEHIND) as u64, 0), "{report}");
        assert_eq!(what_was_done(&marks), [WORKERS, 0, BEHIND]);
        assert_eq!(pool.close_timeout(MOMENT).unwrap(), report, "the second time");
    }
    oracle.nothing_left();
}

#[test]
fn close_timeout_asks_what_runs_to_return_and_cancels_the_rest_when_its_time_is_up() {
    let (oracle, _watchdog) = begin();
    for timeout in [Duration::ZERO, MOMENT, Duration::from_millis(50)] {
        let Busy { pool, held, behind, marks, gate } = busy(builder());
        let report = pool.close_timeout(timeout).unwrap();
        all_left_well(&report, Rung::Stop);
        let counts = (report.done, report.cancelled, report.lost);
        assert_eq!(counts, (WORKERS as u64, BEHIND as u64, 0), "{report}");
        held.into_iter().for_each(|task| task.join().unwrap());
        all_never_began(behind);
        assert_eq!(what_was_done(&marks), [0, WORKERS, 0]);
        drop((pool, gate));
    }
    oracle.nothing_left();
}

#[test]
fn a_task_that_outlasts_close_timeout_and_the_grace_period_is_cancelled_and_told_of() {
    let (oracle, _watchdog) = begin();
    let pool = builder().workers(1).grace_period(Duration::from_millis(600)).start().unwrap();
    let mut gate = Gate::new();
    let task = pool.submit(gate.path(), |gate: PathBuf| -> () {
        Gate::pass(&gate);
        park_for_ever()
    });
    gate.wait();
    drop(gate);
    let report = pool.close_timeout(MOMENT).unwrap();
    let error = task.unwrap().join().unwrap_err();
    assert!(matches!(error, TaskError::Cancelled { begun: true }), "{error:?}");
    assert_eq!((report.cancelled, report.workers[0].cancelled), (1, 1), "{report}");
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn of_those_who_end_a_pool_the_one_that_grants_the_least_time_is_obeyed() {
    type End = fn(&Pool) -> Report;
    let close: End = |pool| pool.close().unwrap();
    let late: End = |pool| pool.close_timeout(AGES).unwrap();
    let soon: End = |pool| pool.close_timeout(MOMENT).unwrap();
    let now: End = |pool| pool.terminate().unwrap();
    let (oracle, _watchdog) = begin();
    for (first, second) in [(close, soon), (late, soon), (late, now)] {
        let Busy { pool, held, behind, marks, gate } = busy(builder());
        thread::scope(|threads| {
            let first = threads.spawn(|| first(&pool));
            await_end_of(&pool);
            let report = second(&pool);
            assert_eq!(first.join().unwrap(), report);
            all_left_well(&report, Rung::Stop);
        });
        held.into_iter().for_each(|task| task.join().unwrap());
        drop(behind);
        // What was submitted until the first one ended the pool has another mark.
        assert_eq!(what_was_done(&marks), [0, WORKERS, 0]);
        drop((pool, gate));
    }
    oracle.nothing_left();
}

#[test]
fn a_map_that_close_timeout_ends_has_one_outcome_an_item() {
    let (oracle, _watchdog) = begin();
    let pool = builder().start().unwrap();
    let (marks, mut gate) = (Marks::new(), Gate::new());
    let items = (0..2000u64).map(|item| (item, marks.path(), gate.path()));
    let items: Vec<_> = items.collect();
    let map = thread::scope(|threads| {
        let map = threads.spawn(|| {
            pool.map_outcomes(items, |(item, marks, gate): (u64, PathBuf, PathBuf)| {
                if item < WORKERS as u64 {
                    held((marks, gate));
                }
                item
            })
        });
        gate.wait_for(WORKERS);
        let report = pool.close_timeout(MOMENT).unwrap();
        (map.join().unwrap().unwrap(), report)
    });
    let (outcomes, report) = map;
    assert_eq!(outcomes.len(), 2000);
    let [mut done, mut cancelled] = [0, 0];
    for (item, outcome) in outcomes.into_iter().enumerate() {
        match outcome {
            Ok(value) => {
                assert_eq!(value, item as u64);
                done += 1;
            }
            Err(TaskError::Cancelled { begun: false }) => cancelled += 1,
            Err(TaskError::Refused(epilogue::Refusal::Closed)) => {}
            Err(error) => panic!("item {item}: {error:?}"),
        }
    }
    assert_eq!((report.done, report.cancelled), (done, cancelled), "{report}");
    drop((pool, gate));
    oracle.nothing_left();
}

/// Drops a busy pool for that cause, in a thread of its own, and does `meanwhile` with the tasks.
fn dropped(
    cause: EndCause,
    policy: EndPolicy,
    meanwhile: impl FnOnce(Vec<Task<()>>, Vec<Task<()>>, Gate),
) -> [usize; 3] {
    let Busy { pool, held, behind, marks, gate } = busy(builder().on_end(cause, policy));
    let ending = thread::spawn(move || match cause {
        EndCause::Drop => drop(pool),
        _ => {
            let payload = panic::catch_unwind(AssertUnwindSafe(move || {
                let _pool = pool;
                panic!("on purpose");
            }));
            assert_eq!(payload.unwrap_err().downcast_ref(), Some(&"on purpose"));
        }
    });
    meanwhile(held, behind, gate);
    ending.join().unwrap();
    what_was_done(&marks)
}

fn all_returned(tasks: Vec<Task<()>>) {
    tasks.into_iter().for_each(|task| task.join().unwrap());
}

#[test]
fn a_pool_that_is_dropped_or_unwound_does_with_its_tasks_what_its_policy_says() {
    let (oracle, _watchdog) = begin();
    for cause in [EndCause::Drop, EndCause::Panic] {
        let done = dropped(cause, EndPolicy::Stop, |held, behind, gate| {
            all_returned(held);
            all_never_began(behind);
            drop(gate);
        });
        assert_eq!(done, [0, WORKERS, 0], "{cause:?}");
        let done = dropped(cause, EndPolicy::FinishBegun, |held, behind, gate| {
            // Before those that run may return.
            all_never_began(behind);
            drop(gate);
            all_returned(held);
        });
        assert_eq!(done, [WORKERS, 0, 0], "{cause:?}");
        let done = dropped(cause, EndPolicy::Finish, |held, behind, gate| {
            drop(gate);
            all_returned(held);
            all_returned(behind);
        });
        assert_eq!(done, [WORKERS, 0, BEHIND], "{cause:?}");
    }
    oracle.nothing_left();
}
