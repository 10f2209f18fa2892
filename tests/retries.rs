//! A task that was declared to be idempotent is begun again, if its worker dies during it; one that
//! ends all its workers is given up, and a storm of deaths ends in an error.

use std::collections::HashSet;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::Duration;

use epilogue::{Pool, Refusal, Report, Sender, SharedSlice, Task, TaskError, TaskOptions, channel};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::getpid;
use support::{Gate, Marks, begin, park_for_ever};

/// Closes the pool, and drops it: then nothing of it may be left.
fn end(pool: Pool) -> Report {
    pool.close().unwrap()
}

fn die() -> ! {
    setrlimit(Resource::RLIMIT_CORE, 0, 0).unwrap();
    std::process::abort()
}

/// Dies the first `deaths` times that it is begun.
fn die_at_first((marks, name, deaths): (PathBuf, String, usize)) -> (String, u32) {
    let marks = Marks::at(&marks);
    marks.leave(&name);
    if marks.count(&name) <= deaths {
        die();
    }
    (name, std::process::id())
}

#[test]
fn a_task_declared_idempotent_is_begun_again_in_another_worker() {
    let (oracle, _watchdog) = begin();
    let marks = Marks::new();
    let pool = Pool::new(1).unwrap();
    let options = TaskOptions::new().retries(2);
    let argument = (marks.path(), "twice".to_owned(), 2);
    let (name, pid) = pool.submit_with(&options, argument, die_at_first).unwrap().join().unwrap();
    let pids: HashSet<_> = marks.pids(&name).into_iter().collect();
    assert_eq!((marks.count(&name), pids.len()), (3, 3));
    assert!(pids.iter().any(|other| other.as_raw().unsigned_abs() == pid));
    let report = end(pool);
    assert_eq!((report.done, report.lost, report.retried), (1, 0, 2), "{report}");
    oracle.nothing_left();
}

/// The first time it dies when it has been asked, and nothing more was due by then.
#[test]
fn a_task_that_is_begun_again_is_asked_to_return_again() {
    let (oracle, _watchdog) = begin();
    let marks = Marks::new();
    let pool = Pool::new(1).unwrap();
    let options = TaskOptions::new().soft_timeout(Duration::from_millis(50)).retries(1);
    let task = pool.submit_with(&options, marks.path(), |marks: PathBuf| {
        while !epilogue::task::should_stop() {
            std::thread::yield_now();
        }
        let marks = Marks::at(&marks);
        marks.leave("asked");
        if marks.count("asked") == 1 {
            die();
        }
    });
    task.unwrap().join().unwrap();
    assert_eq!(end(pool).retried, 1);
    oracle.nothing_left();
}

#[test]
fn nothing_is_begun_again_that_was_not_declared_idempotent() {
    let (oracle, _watchdog) = begin();
    let marks = Marks::new();
    let pool = Pool::builder().workers(1).retries(5).start().unwrap();
    let options = TaskOptions::new().retries(0);
    let task = pool.submit_with(&options, (marks.path(), "once".to_owned(), 1), die_at_first);
    let outcome = task.unwrap().join();
    assert!(matches!(&outcome, Err(TaskError::WorkerLost(lost)) if lost.begun), "{outcome:?}");
    assert_eq!(marks.count("once"), 1);
    let report = end(pool);
    assert_eq!((report.lost, report.retried), (1, 0), "{report}");
    oracle.nothing_left();
}

#[test]
fn a_task_that_ends_all_its_workers_is_given_up_and_says_how_each_ended() {
    let (oracle, _watchdog) = begin();
    let marks = Marks::new();
    let pool = Pool::builder().workers(2).retries(2).start().unwrap();
    let deaths = |n| if n == 20 { usize::MAX } else { 0 };
    let items = (0..60).map(|n| (marks.path(), format!("task-{n}"), deaths(n)));
    for (n, outcome) in (0..).zip(pool.map_outcomes(items, die_at_first).unwrap()) {
        let name = format!("task-{n}");
        match outcome {
            Ok((value, _)) => assert_eq!((value, marks.count(&name)), (name, 1)),
            Err(TaskError::Poisoned(poisoned)) => {
                assert_eq!((n, poisoned.attempts, marks.count(&name)), (20, 3, 3));
                let pids: HashSet<_> = poisoned.ends.iter().map(|end| end.pid).collect();
                assert_eq!(pids.len(), 3, "{poisoned}");
                let abort = |status: epilogue::ExitStatus| status.signal() == Some(6);
                assert!(poisoned.ends.iter().all(|end| end.begun && abort(end.status)));
                assert_eq!(poisoned.to_string().matches("SIGABRT").count(), 3, "{poisoned}");
            }
            Err(other) => panic!("{name}: {other}"),
        }
    }
    let report = end(pool);
    assert_eq!((report.done, report.lost, report.retried), (59, 1, 2), "{report}");
    oracle.nothing_left();
}

#[test]
fn what_is_told_of_a_task_that_ends_its_workers_is_bounded() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(1).unwrap();
    let options = TaskOptions::new().retries(20);
    let outcome: Result<(), _> = pool.submit_with(&options, (), |()| die()).unwrap().join();
    match outcome {
        Err(TaskError::Poisoned(poisoned)) => {
            assert_eq!((poisoned.attempts, poisoned.ends.len()), (21, 8), "{poisoned}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(end(pool).retried, 20);
    oracle.nothing_left();
}

#[test]
fn only_the_guilty_item_of_a_call_is_begun_again() {
    let (oracle, _watchdog) = begin();
    let marks = Marks::new();
    let pool = Pool::new(1).unwrap();
    let items = (0..50).map(|n| (marks.path(), format!("task-{n}"), usize::from(n % 20 == 5)));
    let values = pool.retries(1).chunk_size(50).map(items, die_at_first).unwrap();
    for (n, (name, _)) in (0..).zip(values) {
        assert_eq!(name, format!("task-{n}"));
        assert_eq!(marks.count(&name), 1 + usize::from(n % 20 == 5), "{name}");
    }
    let report = end(pool);
    assert_eq!((report.done, report.lost, report.retried), (50, 0, 3), "{report}");
    oracle.nothing_left();
}

#[test]
fn what_can_be_sent_again_is_and_what_was_handed_over_is_not() {
    let (oracle, _watchdog) = begin();
    let marks = Marks::new();
    let pool = Pool::builder().workers(1).retries(1).start().unwrap();
    let shared = SharedSlice::copy_from(&[1u64, 2, 3]).unwrap();
    let sum =
        pool.submit((marks.path(), shared), |(marks, numbers): (PathBuf, SharedSlice<u64>)| {
            let marks = Marks::at(&marks);
            marks.leave("sum");
            if marks.count("sum") == 1 {
                die();
            }
            numbers.iter().sum::<u64>()
        });
    assert_eq!(sum.unwrap().join().unwrap(), 6);
    let (sender, receiver) = channel::<u64>().unwrap();
    let task = pool.submit((marks.path(), sender), |(marks, sender): (PathBuf, Sender<u64>)| {
        Marks::at(&marks).leave("send");
        sender.send(7).unwrap();
        die()
    });
    let outcome: Result<(), _> = task.unwrap().join();
    assert!(matches!(outcome, Err(TaskError::WorkerLost(_))), "{outcome:?}");
    assert_eq!((marks.count("send"), receiver.recv().unwrap()), (1, 7));
    assert!(receiver.recv().is_err());
    drop(receiver);
    let report = end(pool);
    assert_eq!((report.lost, report.retried), (1, 1), "{report}");
    oracle.nothing_left();
}

#[test]
fn a_large_argument_arrives_whole_each_time_that_its_task_is_begun() {
    let (oracle, _watchdog) = begin();
    let marks = Marks::new();
    let pool = Pool::builder().workers(2).retries(2).start().unwrap();
    let items = (0..8u8).map(|n| (marks.path(), n, vec![n; 1 << 20]));
    let values = pool.map(items, |(marks, n, bytes): (PathBuf, u8, Vec<u8>)| {
        let (marks, name) = (Marks::at(&marks), format!("task-{n}"));
        marks.leave(&name);
        let is_whole = bytes.len() == 1 << 20 && bytes.iter().all(|&byte| byte == n);
        if n % 3 == 1 && marks.count(&name) <= 2 {
            die();
        }
        is_whole
    });
    assert_eq!(values.unwrap(), [true; 8]);
    let report = end(pool);
    assert_eq!((report.done, report.lost, report.retried), (8, 0, 6), "{report}");
    oracle.nothing_left();
}

#[test]
fn a_pool_that_stops_begins_nothing_again() {
    let (oracle, _watchdog) = begin();
    let (marks, mut gate) = (Marks::new(), Gate::new());
    let grace = Duration::from_millis(400);
    let pool = Pool::builder().workers(1).retries(9).grace_period(grace).start().unwrap();
    let task = pool.submit((marks.path(), gate.path()), |(marks, gate): (PathBuf, PathBuf)| {
        Marks::at(&marks).leave("begun");
        Gate::pass(&gate);
        park_for_ever()
    });
    gate.wait();
    let report = pool.terminate().unwrap();
    let outcome: Result<(), _> = task.unwrap().join();
    assert!(matches!(outcome, Err(TaskError::Cancelled { begun: true })), "{outcome:?}");
    assert_eq!((report.cancelled, report.retried, marks.count("begun")), (1, 0, 1), "{report}");
    drop((pool, gate));
    oracle.nothing_left();
}

/// Those of its tasks that its worker had claimed and not begun are begun by no other, either.
#[test]
fn a_map_that_has_ended_early_begins_nothing_again() {
    let (oracle, _watchdog) = begin();
    let (marks, mut gate) = (Marks::new(), Gate::new());
    symlink(gate.path(), marks.path().join("gate")).unwrap();
    let (name, directory) = marks.variable();
    let pool = Pool::builder().workers(1).retries(9).env(name, directory).start().unwrap();
    let mut stream = pool.chunk_size(500).imap(0..GUILTY + 300, die_at_the_gate);
    assert_eq!(stream.next().unwrap().unwrap(), 0);
    gate.wait();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while pool.stats().cancelled == 0 {
                std::thread::yield_now();
            }
            drop(gate);
        });
        drop(stream);
    });
    assert_eq!((marks.count("begun"), marks.count("behind")), (1, 0));
    let report = end(pool);
    let counts = (report.done, report.lost, report.cancelled, report.retried);
    assert_eq!(counts, (GUILTY.into(), 1, 299, 0), "{report}");
    oracle.nothing_left();
}

/// A worker claims ever more of those before it, which take no time; 256 at most.
const GUILTY: u32 = 200;

fn die_at_the_gate(n: u32) -> u32 {
    if n >= GUILTY {
        let marks = Marks::from_env();
        marks.leave(if n == GUILTY { "begun" } else { "behind" });
        if n == GUILTY {
            Gate::pass(&marks.path().join("gate"));
            die();
        }
    }
    n
}

/// A task that lost the only worker and waits to be begun again, and the one before it, which is at the gate.
fn one_waits_to_be_begun_again(
    pool: &Pool,
    options: &TaskOptions,
    marks: &Marks,
    gate: &mut Gate,
) -> (Task<()>, Task<()>) {
    let argument = (marks.path(), gate.path());
    let first = pool.submit_with(options, argument, |(marks, gate): (PathBuf, PathBuf)| {
        Marks::at(&marks).leave("begun");
        Gate::pass(&gate);
        die()
    });
    let first = first.unwrap();
    gate.wait();
    // What has waited goes before what is begun again.
    let second = pool.submit(gate.path(), |gate: PathBuf| Gate::pass(&gate)).unwrap();
    gate.open_once();
    gate.wait();
    (first, second)
}

#[test]
fn a_task_that_is_cancelled_as_it_waits_to_be_begun_again_is_told_to_have_begun() {
    let (oracle, _watchdog) = begin();
    let (marks, mut gate) = (Marks::new(), Gate::new());
    let pool = Pool::new(1).unwrap();
    let options = TaskOptions::new().retries(1);
    let (first, second) = one_waits_to_be_begun_again(&pool, &options, &marks, &mut gate);
    assert!(first.cancel(), "nobody has begun it again");
    let outcome = first.join();
    assert!(matches!(outcome, Err(TaskError::Cancelled { begun: true })), "{outcome:?}");
    gate.open_once();
    second.join().unwrap();
    assert_eq!(marks.count("begun"), 1);
    let report = end(pool);
    assert_eq!((report.done, report.cancelled, report.retried), (1, 1, 1), "{report}");
    drop(gate);
    oracle.nothing_left();
}

/// As long as a task that its worker can begin at once never waits, on a machine that is busy with others.
const LONG: Duration = Duration::from_secs(2);

#[test]
fn a_task_that_waits_too_long_to_be_begun_again_is_not_and_is_not_told_never_to_have_begun() {
    let (oracle, _watchdog) = begin();
    let (marks, mut gate) = (Marks::new(), Gate::new());
    let pool = Pool::new(1).unwrap();
    // Its worker is there: only the second time does it wait.
    pool.submit((), |()| ()).unwrap().join().unwrap();
    let options = TaskOptions::new().retries(1).queue_timeout(LONG);
    let (first, second) = one_waits_to_be_begun_again(&pool, &options, &marks, &mut gate);
    let outcome = first.join().unwrap_err();
    assert!(matches!(outcome, TaskError::Expired), "{outcome:?}");
    assert!(!outcome.to_string().contains("never"), "{outcome}");
    gate.open_once();
    second.join().unwrap();
    assert_eq!(marks.count("begun"), 1);
    let report = end(pool);
    assert_eq!((report.done, report.timed_out, report.retried), (2, 1, 1), "{report}");
    drop(gate);
    oracle.nothing_left();
}

#[test]
fn a_storm_of_deaths_ends_in_an_error_that_tells_the_last() {
    let (oracle, _watchdog) = begin();
    let marks = Marks::new();
    let hour = Duration::from_secs(3600);
    let pool = Pool::builder().workers(2).restart_intensity(10, hour).start().unwrap();
    let items = std::iter::repeat_with(|| (marks.path(), "begun".to_owned(), usize::MAX));
    // Without the limit this would go on until the last item.
    let outcomes = pool.map_outcomes(items.take(5000), die_at_first).unwrap();
    let lost = outcomes.iter().filter(|one| matches!(one, Err(TaskError::WorkerLost(_)))).count();
    let broken = |error: &TaskError| match error {
        TaskError::Refused(Refusal::Broken { cause }) => cause.contains("SIGABRT"),
        TaskError::Cancelled { begun } => *begun,
        TaskError::WorkerLost(_) => true,
        _ => false,
    };
    assert!(outcomes.iter().all(|one| one.as_ref().is_err_and(broken)));
    assert!((11..=12).contains(&lost), "{lost} were lost");
    assert!(marks.count("begun") <= 12, "{} were begun", marks.count("begun"));
    let refused = pool.submit(5u64, |n| n).unwrap_err();
    assert!(matches!(refused.reason, Refusal::Broken { .. }), "{}", refused.reason);
    assert_eq!(refused.into_value(), 5);
    let report = end(pool);
    assert!(report.broken.is_some_and(|cause| cause.contains("SIGABRT")));
    oracle.nothing_left();
}

#[test]
fn what_waits_in_a_pool_that_gives_up_is_refused_wherever_it_lies() {
    let (oracle, _watchdog) = begin();
    let mut gate = Gate::new();
    let hour = Duration::from_secs(3600);
    let pool = Pool::builder().workers(2).restart_intensity(0, hour).start().unwrap();
    let held: Vec<_> = (0..2)
        .map(|_| pool.submit(gate.path(), |gate: PathBuf| Gate::pass(&gate)).unwrap())
        .collect();
    let pids = gate.wait_for(2);
    // Some lie ahead with each worker, and the others wait for room.
    let waiting: Vec<_> = (0..50u32).map(|n| pool.submit(n, |n| n).unwrap()).collect();
    kill(pids[0], Signal::SIGKILL).unwrap();
    for task in waiting {
        let outcome = task.join();
        let broken = matches!(outcome, Err(TaskError::Refused(Refusal::Broken { .. })));
        assert!(broken, "{outcome:?}");
    }
    gate.open_once();
    let lost = held.into_iter().map(Task::join).filter(Result::is_err).count();
    assert_eq!(lost, 1);
    let report = end(pool);
    assert_eq!((report.lost, report.cancelled), (1, 0), "{report}");
    drop(gate);
    oracle.nothing_left();
}

#[test]
fn deaths_that_are_few_enough_are_no_storm() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::builder().workers(1).restart_intensity(5, Duration::from_secs(3600)).start();
    let pool = pool.unwrap();
    let outcomes = pool.map_outcomes(0..20u32, |n| if n < 5 { die() } else { n }).unwrap();
    assert_eq!(outcomes.iter().filter(|one| one.is_ok()).count(), 15);
    // An end that the pool wants is no death.
    for _ in 0..3 {
        let options = TaskOptions::new().timeout(Duration::from_millis(20));
        let task = pool.submit_with(&options, (), |()| park_for_ever()).unwrap();
        assert!(matches!(task.join(), Err::<(), _>(TaskError::TimedOut)));
    }
    assert_eq!(pool.map(0..3u32, |n| n).unwrap(), [0, 1, 2]);
    assert!(end(pool).broken.is_none());
    oracle.nothing_left();
}

#[test]
fn the_death_of_an_idle_worker_is_a_replacement_and_a_line_in_the_report() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(1).unwrap();
    let pids: Vec<_> = (0..3)
        .map(|_| {
            let pid = pool.submit((), |()| getpid().as_raw()).unwrap().join().unwrap();
            let pid = nix::unistd::Pid::from_raw(pid);
            kill(pid, Signal::SIGKILL).unwrap();
            // Until it has been reaped: then its number means nobody.
            while kill(pid, None).is_ok() {
                std::thread::yield_now();
            }
            pid
        })
        .collect();
    assert_eq!(pool.map(0..9u32, |n| n).unwrap().len(), 9);
    let report = end(pool);
    assert_eq!((report.done, report.lost, report.cancelled, report.workers.len()), (12, 0, 0, 4));
    for (worker, pid) in report.workers.iter().zip(pids) {
        assert_eq!(worker.pid, pid.as_raw().unsigned_abs());
        assert_eq!(worker.end.status.signal(), Some(9));
    }
    oracle.nothing_left();
}
