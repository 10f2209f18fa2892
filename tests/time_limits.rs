//! A task that takes too long has its outcome, and no other task notices. The clock starts when the
//! task does; waiting has a limit of its own.

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use epilogue::{Pool, Report, Rung, TaskError, TaskOptions, embed, task};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::getpid;
use serde::{Deserialize, Serialize};
use support::{Gate, Marks, begin, park_for_ever, procfs, through};

/// So short that a task which is to exceed it does so soon.
const SHORT: Duration = Duration::from_millis(50);
/// As long as a task that ends at once never takes, on a machine that is busy with others.
const LONG: Duration = Duration::from_secs(2);
const GRACE: Duration = Duration::from_millis(600);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Endless {
    Parks,
    Spins,
    IsDeafToSignals,
    Stops,
    CannotFinalize,
}

impl Endless {
    const ALL: [Self; 5] =
        [Self::Parks, Self::Spins, Self::IsDeafToSignals, Self::Stops, Self::CannotFinalize];

    fn go_on(self) -> ! {
        match self {
            Self::Parks => {}
            Self::Spins => loop {
                std::hint::spin_loop();
            },
            Self::IsDeafToSignals => SigSet::all().thread_block().unwrap(),
            Self::Stops => kill(getpid(), Signal::SIGSTOP).unwrap(),
            Self::CannotFinalize => drop(embed::finalizer("never done", || park_for_ever())),
        }
        park_for_ever()
    }
}

/// Closes the pool, and drops it: then nothing of it may be left.
fn end(pool: Pool) -> Report {
    pool.close().unwrap()
}

fn limited(timeout: Duration) -> TaskOptions {
    TaskOptions::new().timeout(timeout)
}

#[test]
fn a_task_that_never_ends_has_its_outcome_however_it_goes_on() {
    let (oracle, _watchdog) = begin();
    for endless in Endless::ALL {
        // Only one needs the whole of it.
        let grace = if endless == Endless::CannotFinalize { GRACE } else { LONG * 2 };
        let pool = Pool::builder().workers(1).grace_period(grace).start().unwrap();
        let task = pool.submit_with(&limited(SHORT), endless, |endless| endless.go_on()).unwrap();
        let outcome: Result<(), _> = task.join();
        assert!(matches!(outcome, Err(TaskError::TimedOut)), "{endless:?}: {outcome:?}");
        let report = end(pool);
        assert_eq!((report.timed_out, report.done, report.lost), (1, 0, 0), "{report}");
        let killed = report.workers[0].end.rung == Rung::Kill;
        assert!(!killed || endless == Endless::CannotFinalize, "{endless:?}: {report}");
        oracle.nothing_left();
    }
}

#[test]
fn what_waits_behind_a_task_that_never_ends_is_done_by_others_once() {
    let (oracle, _watchdog) = begin();
    let (marks, mut gate) = (Marks::new(), Gate::new());
    let pool = Pool::builder().workers(1).grace_period(GRACE).start().unwrap();
    let endless = pool.submit_with(&limited(SHORT), gate.path(), |gate| {
        Gate::pass(&gate);
        park_for_ever()
    });
    let behind: Vec<_> = (0..40u64)
        .map(|n| {
            let task = pool.submit((marks.path(), n), |(marks, n): (PathBuf, u64)| {
                Marks::at(&marks).leave(&format!("task-{n}"));
                (n, std::process::id())
            });
            task.unwrap()
        })
        .collect();
    let first = gate.wait();
    gate.open_once();
    for (n, task) in (0..).zip(behind) {
        let (value, pid) = task.join().unwrap();
        assert_eq!((value, marks.count(&format!("task-{n}"))), (n, 1));
        assert_ne!(pid, first.as_raw().unsigned_abs(), "in the worker that was being ended");
    }
    let outcome: Result<(), _> = endless.unwrap().join();
    assert!(matches!(outcome, Err(TaskError::TimedOut)), "{outcome:?}");
    let report = end(pool);
    assert_eq!((report.done, report.timed_out, report.lost, report.cancelled), (40, 1, 0, 0));
    drop(gate);
    oracle.nothing_left();
}

#[test]
fn an_item_of_a_map_that_never_ends_costs_no_other_item_anything() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::builder().workers(2).task_timeout(LONG * 2).start().unwrap();
    let limited = pool.task_timeout(LONG);
    let outcomes =
        limited.map_outcomes(0..100u32, |n| if n % 40 == 7 { park_for_ever() } else { n });
    for (n, outcome) in (0..).zip(outcomes.unwrap()) {
        match outcome {
            Ok(value) => assert_eq!(value, n),
            Err(TaskError::TimedOut) => assert_eq!(n % 40, 7),
            Err(other) => panic!("{n}: {other}"),
        }
    }
    // The pool's own limit holds where nothing else is said, and harms nobody who keeps it.
    assert_eq!(pool.map(0..1000u32, |n| n).unwrap(), (0..1000).collect::<Vec<_>>());
    let report = end(pool);
    assert_eq!((report.done, report.timed_out), (1097, 3), "{report}");
    oracle.nothing_left();
}

#[test]
fn the_clock_starts_when_the_task_does_and_waiting_has_its_own() {
    let (oracle, _watchdog) = begin();
    let (marks, mut gate) = (Marks::new(), Gate::new());
    let pool = Pool::builder().workers(1).start().unwrap();
    // It has begun, so however long it takes is no waiting.
    let options = TaskOptions::new().queue_timeout(LONG);
    let first = pool.submit_with(&options, (gate.path(), 1), through).unwrap();
    gate.wait();
    let in_time = pool.submit_with(&limited(LONG), 2, |n| n).unwrap();
    let leave = |marks: PathBuf| Marks::at(&marks).leave("begun");
    let options = TaskOptions::new().queue_timeout(SHORT);
    let late = pool.submit_with(&options, marks.path(), leave).unwrap();
    // Its time, of which less is left than any task behind it has, passes in the queue.
    let options = TaskOptions::new().queue_timeout(LONG * 5 / 4);
    let later = pool.submit_with(&options, marks.path(), leave).unwrap();
    for task in [late, later] {
        let outcome = task.join();
        assert!(matches!(outcome, Err(TaskError::Expired)), "{outcome:?}");
    }
    gate.open_once();
    assert_eq!(first.join().unwrap(), 1);
    assert_eq!(in_time.join().unwrap(), 2, "its clock ran while it waited");
    let report = end(pool);
    assert_eq!((report.timed_out, marks.count("begun")), (2, 0), "{report}");
    assert!(report.is_clean());
    drop(gate);
    oracle.nothing_left();
}

#[test]
fn a_task_is_asked_to_stop_at_its_soft_limit_and_its_value_counts() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::builder().workers(1).start().unwrap();
    let options = TaskOptions::new().soft_timeout(SHORT);
    let patient = pool.submit_with(&options, 7u64, |n| {
        while !task::should_stop() {
            thread::yield_now();
        }
        // Its own threads may ask, too.
        (n, thread::spawn(task::should_stop).join().unwrap(), embed::stop_requested())
    });
    assert_eq!(patient.unwrap().join().unwrap(), (7, true, false));
    assert!(!pool.submit((), |()| task::should_stop()).unwrap().join().unwrap());
    assert!(!task::should_stop(), "in a process that runs no task");
    let values = pool.soft_timeout(LONG).map(0..3u64, |n| {
        while n == 1 && !task::should_stop() {
            thread::yield_now();
        }
        task::should_stop()
    });
    assert_eq!(values.unwrap(), [false, true, false]);
    assert!(end(pool).is_clean());
    oracle.nothing_left();
}

#[test]
fn who_ignores_the_soft_limit_meets_the_hard_one_and_finalizers_run() {
    let (oracle, _watchdog) = begin();
    let marks = Marks::new();
    let pool = Pool::builder().workers(2).soft_timeout(SHORT).task_timeout(LONG).start();
    let pool = pool.unwrap();
    let task = pool.submit(marks.path(), |marks| {
        let marks_there = marks.clone();
        embed::finalizer("leave a mark", move || Marks::at(&marks_there).leave("finalized"));
        while !task::should_stop() {
            thread::yield_now();
        }
        Marks::at(&marks).leave("asked");
        park_for_ever()
    });
    let outcome: Result<(), _> = task.unwrap().join();
    assert!(matches!(outcome, Err(TaskError::TimedOut)), "{outcome:?}");
    // Its outcome comes when nothing of it runs any more.
    assert_eq!((marks.count("asked"), marks.count("finalized")), (1, 1));
    let report = end(pool);
    assert!(report.workers.iter().all(|worker| worker.end.rung < Rung::Signal), "{report}");
    oracle.nothing_left();
}

#[test]
fn a_running_task_that_is_cancelled_is_asked_and_by_option_ended() {
    let (oracle, _watchdog) = begin();
    let mut gate = Gate::new();
    let pool = Pool::builder().workers(1).grace_period(GRACE).start().unwrap();
    let obedient = pool.submit(gate.path(), |gate| {
        Gate::pass(&gate);
        while !task::should_stop() {
            thread::yield_now();
        }
        5
    });
    let obedient = obedient.unwrap();
    gate.wait();
    assert!(!obedient.cancel(), "it had begun");
    gate.open_once();
    assert_eq!(obedient.join().unwrap(), 5);

    for within in [Duration::ZERO, SHORT] {
        let options = TaskOptions::new().cancel_within(within).retries(3);
        let stubborn = pool.submit_with(&options, gate.path(), |gate| {
            Gate::pass(&gate);
            park_for_ever()
        });
        let stubborn = stubborn.unwrap();
        gate.wait();
        let behind = pool.submit(3, |n| n).unwrap();
        assert!(!stubborn.cancel());
        gate.open_once();
        let outcome: Result<(), _> = stubborn.join();
        assert!(matches!(outcome, Err(TaskError::Cancelled { begun: true })), "{outcome:?}");
        assert_eq!(behind.join().unwrap(), 3);
    }
    let report = end(pool);
    assert_eq!((report.done, report.cancelled, report.lost), (3, 2, 0), "{report}");
    drop(gate);
    oracle.nothing_left();
}

#[test]
fn every_task_has_one_outcome_in_a_storm_of_limits_cancels_and_deaths() {
    let (oracle, _watchdog) = begin();
    const TASKS: u64 = 300;
    let pool = Pool::builder().workers(3).grace_period(GRACE).start().unwrap();
    let tasks = (0..TASKS).map(|n| {
        let options = match n % 5 {
            0 => limited(SHORT / 5),
            1 => TaskOptions::new().queue_timeout(SHORT).cancel_within(Duration::ZERO),
            2 => TaskOptions::new().soft_timeout(SHORT / 10).retries(1),
            _ => TaskOptions::new(),
        };
        let task = pool.submit_with(&options, n, |n| match n {
            n if n % 15 == 0 => park_for_ever(),
            n if n % 35 == 2 => std::process::abort(),
            n => n,
        });
        let task = task.unwrap();
        if n % 7 == 1 {
            let _ = task.cancel();
        }
        task
    });
    let tasks: Vec<_> = tasks.collect();
    let (mut done, mut timed_out, mut lost, mut cancelled) = (0, 0, 0, 0);
    for (n, task) in (0..).zip(tasks) {
        match task.join() {
            Ok(value) => done += u64::from(value == n),
            Err(TaskError::TimedOut | TaskError::Expired) => timed_out += 1,
            Err(TaskError::WorkerLost(_) | TaskError::Poisoned(_)) => lost += 1,
            Err(TaskError::Cancelled { .. }) => cancelled += 1,
            Err(other) => panic!("{n}: {other}"),
        }
    }
    assert_eq!(done + timed_out + lost + cancelled, TASKS);
    let report = end(pool);
    let counts = (report.done, report.timed_out, report.lost, report.cancelled);
    assert_eq!(counts, (done, timed_out, lost, cancelled), "{report}");
    oracle.nothing_left();
}

/// How often the pool's own thread has gone to sleep.
fn sleeps_of_the_supervisor() -> u64 {
    let threads = procfs::threads_of(getpid());
    let thread = threads.iter().find(|thread| thread.name == "epilogue-pool").unwrap();
    let status = format!("/proc/self/task/{}/status", thread.pid);
    let status = std::fs::read_to_string(status).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.unwrap().trim().parse().unwrap()
}

#[test]
fn a_limit_that_is_kept_costs_no_message_and_no_wake_up() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::builder().workers(2).task_timeout(Duration::from_secs(3600)).start().unwrap();
    pool.map(0..100u32, |n| n).unwrap();
    let before = sleeps_of_the_supervisor();
    pool.map(0..2000u32, |n| n).unwrap();
    let woken = sleeps_of_the_supervisor() - before;
    assert!(woken < 200, "woken {woken} times by 2000 tasks");
    assert!(end(pool).is_clean());
    oracle.nothing_left();
}

#[test]
fn a_worker_that_stops_is_still_ended_for_its_task_alone() {
    let (oracle, _watchdog) = begin();
    let mut gate = Gate::new();
    let pool = Pool::builder().workers(2).grace_period(GRACE).start().unwrap();
    let other = pool.submit((gate.path(), 4), through).unwrap();
    let pid = gate.wait();
    support::stop(pid);
    // It stops itself: nobody can know where it is by the time that it has.
    let task = pool.submit_with(&limited(SHORT), (), |()| Endless::Stops.go_on()).unwrap();
    let outcome: Result<(), _> = task.join();
    assert!(matches!(outcome, Err(TaskError::TimedOut)), "{outcome:?}");
    kill(pid, Signal::SIGCONT).unwrap();
    gate.open_once();
    assert_eq!(other.join().unwrap(), 4);
    let report = end(pool);
    assert_eq!((report.done, report.timed_out, report.lost), (1, 1, 0), "{report}");
    drop(gate);
    oracle.nothing_left();
}
