//! What goes wrong in other pools does not here: neither in a pool as it is by default, nor in one
//! whose workers are replaced after each task. `PITFALLS.md` says which test is which pitfall's.

use std::collections::HashSet;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::panic;
use std::path::PathBuf;
use std::process;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use epilogue::pool::Builder;
use epilogue::{ExitStatus, Pool, Refusal, Stdio, TaskError, TaskOptions, as_completed};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, getpid};
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use support::{
    Gate, Marks, Program, await_end, begin, hooks, named_in_shm, park_for_ever, procfs, stop, sys,
    through,
};

/// Short, since what is ended in the middle of a task may have to wait for it.
const GRACE: Duration = Duration::from_millis(400);

/// Tells the story of two pools: one with workers that stay, one whose workers do one task each.
#[track_caller]
fn of_both(story: fn(Builder)) {
    for limited in [|builder| builder, |builder: Builder| builder.max_tasks_per_worker(1)] {
        let (oracle, _watchdog) = begin();
        // Not before: it looks at how many CPUs there are, by a descriptor.
        let builder = limited(Pool::builder().workers(2));
        story(builder);
        oracle.nothing_left_soon();
        oracle.nothing_left();
    }
}

/// When everything must be gone of a parent that died.
const BOUND: Duration = Duration::from_secs(1);

#[track_caller]
fn goes_on(pool: &Pool) {
    assert!(pool.map(0..10u64, |x| x + 1).unwrap().into_iter().eq(1..=10));
}

/// As many tasks in different workers as there are, all at the gate.
fn all_busy(pool: &Pool, gate: &mut Gate) -> (Vec<epilogue::Task<u64>>, Vec<Pid>) {
    let tasks = [0, 1].map(|n| pool.submit((gate.path(), n), through).unwrap());
    (tasks.into(), gate.wait_for(2))
}

#[test]
fn a_busy_worker_that_is_killed_fails_its_task_with_pid_and_signal_and_no_other() {
    of_both(|builder| {
        let pool = builder.start().unwrap();
        let mut gate = Gate::new();
        let (tasks, pids) = all_busy(&pool, &mut gate);
        let behind = pool.submit_all(0..20u64, |x| x).unwrap();
        kill(pids[0], Signal::SIGKILL).unwrap();
        gate.open_once();
        let outcomes: Vec<_> = tasks.into_iter().map(|task| task.join()).collect();
        let lost = outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
        let lost: Vec<_> = lost.collect();
        let [TaskError::WorkerLost(lost)] = lost[..] else { panic!("{lost:?}") };
        assert_eq!((lost.pid as i32, lost.status.signal()), (pids[0].as_raw(), Some(9)));
        assert!(behind.into_iter().map(|task| task.join().unwrap()).eq(0..20));
        goes_on(&pool);
        assert_eq!(pool.close().unwrap().lost, 1);
    });
}

#[test]
fn workers_that_are_killed_at_random_instants_between_tasks_lose_none_but_what_they_run() {
    of_both(|builder| {
        let pool = builder.start().unwrap();
        let mut lost = 0;
        for round in 0..10u64 {
            // Whoever is there now, busy or not.
            let children = procfs::descendants_of(getpid());
            let victims = children.iter().skip(round as usize % 2).take(1);
            victims.for_each(|victim| kill(victim.pid, Signal::SIGKILL).unwrap_or_default());
            for outcome in pool.map_outcomes(0..20u64, |x| x).unwrap() {
                match outcome {
                    Ok(_) => {}
                    Err(TaskError::WorkerLost(_)) => lost += 1,
                    Err(error) => panic!("{error:?}"),
                }
            }
        }
        let report = pool.close().unwrap();
        assert_eq!((report.done, report.lost), (10 * 20 - lost, lost), "{report}");
        assert!(report.broken.is_none() && lost <= 10, "{report}");
    });
}

#[test]
fn idle_workers_that_are_killed_all_of_them_are_replaced() {
    of_both(|builder| {
        let pool = builder.start().unwrap();
        for _ in 0..5 {
            goes_on(&pool);
            for worker in procfs::descendants_of(getpid()) {
                // One that is through with its only task leaves by itself.
                let Ok(pidfd) = sys::pidfd_open(worker.pid) else { continue };
                let _ = sys::pidfd_signal(pidfd.as_fd(), Signal::SIGKILL);
                await_end(&pidfd);
            }
            let tasks = pool.submit_all(0..2u64, |x| x).unwrap();
            assert!(tasks.into_iter().map(|task| task.join().unwrap()).eq(0..2));
        }
        let report = pool.close().unwrap();
        assert_eq!((report.done, report.lost), (60, 0), "{report}");
    });
}

#[test]
fn a_worker_that_stops_is_found_and_continued_and_one_that_stops_again_is_ended() {
    of_both(|builder| {
        let soon = Duration::from_millis(50);
        let pool = builder.stall_after(soon).grace_period(GRACE).start().unwrap();
        let outcomes = pool.map_outcomes(0..12u64, |n| {
            match n {
                3 => kill(getpid(), Signal::SIGSTOP).unwrap(),
                7 => (0..1000).for_each(|_| kill(getpid(), Signal::SIGSTOP).unwrap()),
                _ => {}
            }
            n
        });
        for (n, outcome) in outcomes.unwrap().into_iter().enumerate() {
            match outcome {
                Ok(value) => assert_eq!(value, n as u64),
                Err(TaskError::WorkerLost(_)) => assert_eq!(n, 7),
                Err(error) => panic!("{n}: {error:?}"),
            }
        }
        let report = pool.close().unwrap();
        assert_eq!((report.done, report.lost), (11, 1), "{report}");
        assert!(report.stalls.len() >= 2, "{report}");
    });
}

/// A program with workers that do one task each, two of them busy or all idle.
fn program(story: &str, marks: &Marks) -> Program {
    let (name, directory) = marks.variable();
    let mut command = process::Command::new(env!("CARGO_BIN_EXE_endings"));
    command.args([story, "2"]).env(name, directory).env("ONE_TASK_EACH", "1").process_group(0);
    Program::start(&mut command)
}

#[test]
fn however_a_parent_dies_its_workers_that_do_one_task_each_end_well() {
    for (story, signal, busy) in [
        ("idle", Signal::SIGKILL, 0),
        ("unprepared", Signal::SIGKILL, 2),
        ("unprepared", Signal::SIGTERM, 2),
        ("unprepared", Signal::SIGINT, 2),
        ("sigterm", Signal::SIGTERM, 2),
        ("interrupt-cleans-up", Signal::SIGINT, 2),
    ] {
        let (oracle, _watchdog) = begin();
        let marks = Marks::new();
        let mut program = program(story, &marks);
        program.wait_for_line("ready");
        match signal {
            Signal::SIGINT => killpg(program.pid(), signal).unwrap(),
            _ => program.signal(signal),
        }
        let input = program.hold_input();
        program.reap();
        drop(input);
        oracle.orphans_end_within(BOUND);
        let ending = program.finish();
        assert_eq!(ending.signal(), Some(signal), "{story}: {ending}");
        assert_eq!(marks.count("task"), 0, "{story}: what had not begun was done");
        assert_eq!(hooks::all_ran_once(&marks), 2 + busy, "{story} {signal}");
        drop(marks);
        oracle.nothing_left();
    }
}

#[test]
fn a_parent_is_killed_at_any_instant_while_its_workers_are_replaced() {
    let (oracle, _watchdog) = begin();
    let mut ended_well = 0;
    for round in 0..60u64 {
        let marks = Marks::new();
        let mut program = program("starting", &marks);
        if round % 2 == 1 {
            program.wait_for_line("registered");
        }
        // Instants that differ from round to round, and are the same in each run.
        thread::sleep(Duration::from_micros(round * 7919 % 40_000));
        program.signal(Signal::SIGKILL);
        program.reap();
        oracle.orphans_end_within(BOUND);
        ended_well += hooks::all_that_told_ran_once(&marks);
    }
    assert!(ended_well >= 30, "only {ended_well} workers got to register");
    oracle.nothing_left();
}

#[test]
fn a_pool_that_is_left_does_all_that_was_submitted_and_runs_every_hook() {
    of_both(|builder| {
        let marks = Marks::new();
        let pool = builder.start().unwrap();
        for _ in 0..30 {
            let task = pool.submit(marks.path(), |marks: PathBuf| {
                hooks::register(&marks);
                Marks::at(&marks).leave("task");
            });
            drop(task.unwrap());
        }
        drop(pool);
        assert_eq!(marks.count("task"), 30);
        let registered = hooks::all_ran_once(&marks);
        assert!((1..=30).contains(&registered), "{registered}");
    });
}

#[test]
fn backlogs_of_every_length_are_done_however_the_pool_is_left() {
    for most in 1..=2 {
        for backlog in [0, 1, 2, 5] {
            let (oracle, _watchdog) = begin();
            let start = || Pool::builder().workers(2).max_tasks_per_worker(most).start().unwrap();
            let pool = start();
            let tasks = pool.submit_all(0..backlog, |x: u64| x).unwrap();
            assert!(pool.close().unwrap().is_clean());
            assert!(tasks.into_iter().map(|task| task.join().unwrap()).eq(0..backlog));
            drop(pool);
            let pool = start();
            let tasks = pool.submit_all(0..backlog, |x: u64| x).unwrap();
            drop(pool);
            assert!(tasks.into_iter().map(|task| task.join().unwrap()).eq(0..backlog));
            let pool = start();
            let tasks = pool.submit_all(0..backlog, |x: u64| x).unwrap();
            let report = pool.terminate().unwrap();
            let done = tasks.into_iter().filter(|task| task.is_finished()).count() as u64;
            assert_eq!(done, backlog, "who waits is told");
            assert_eq!(report.done + report.cancelled, backlog, "{report}");
            drop(pool);
            oracle.nothing_left();
        }
    }
}

/// A value that cannot be written, or not be read.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Unfit {
    Fit,
    NotWritten,
    NotRead,
}

impl Serialize for Unfit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::NotWritten => Err(S::Error::custom("not to be written")),
            _ => (*self == Self::NotRead).serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Unfit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match bool::deserialize(deserializer)? {
            true => Err(D::Error::custom("not to be read")),
            false => Ok(Self::Fit),
        }
    }
}

fn unfit(n: u32) -> Unfit {
    [Unfit::Fit, Unfit::NotWritten, Unfit::NotRead][n as usize % 3]
}

#[test]
fn what_cannot_be_written_or_read_is_the_error_of_its_task_also_while_the_pool_shuts_down() {
    of_both(|builder| {
        let pool = builder.start().unwrap();
        for (n, outcome) in (0..30u32).zip(pool.map_outcomes(0..30u32, unfit).unwrap()) {
            match unfit(n) {
                Unfit::Fit => assert_eq!(outcome.unwrap(), Unfit::Fit),
                Unfit::NotWritten => {
                    assert!(matches!(outcome, Err(TaskError::Encode { .. })), "{outcome:?}");
                }
                Unfit::NotRead => {
                    assert!(matches!(outcome, Err(TaskError::Decode { .. })), "{outcome:?}");
                }
            }
        }
        assert!(pool.submit(Unfit::NotWritten, |_| ()).is_err());
        let mut gate = Gate::new();
        let (busy, _) = all_busy(&pool, &mut gate);
        let late = pool.submit_all(0..9u32, unfit).unwrap();
        thread::scope(|threads| {
            let close = threads.spawn(|| pool.close().unwrap());
            gate.open_once();
            for (n, task) in (0..).zip(late) {
                assert_eq!(task.join().is_ok(), unfit(n) == Unfit::Fit, "{n}");
            }
            assert_eq!(close.join().unwrap().lost, 0);
        });
        assert!(busy.into_iter().all(|task| task.join().is_ok()));
    });
}

#[test]
fn every_way_to_leave_a_task_has_an_error_of_its_own() {
    of_both(|builder| {
        let pool = builder.limit_core(0).start().unwrap();
        let outcomes = pool.map_outcomes(0..8u32, |n| match n {
            1 => panic!("on purpose"),
            2 => process::exit(0),
            3 => process::exit(3),
            4 => process::abort(),
            5 => sys::exit_now(0),
            6 => panic::resume_unwind(Box::new(3)),
            _ => n,
        });
        let outcomes = outcomes.unwrap();
        let status = |n: usize| match &outcomes[n] {
            Err(TaskError::WorkerLost(lost)) if lost.begun => lost.status,
            other => panic!("{n}: {other:?}"),
        };
        assert!(matches!((&outcomes[0], &outcomes[7]), (Ok(0), Ok(7))));
        assert!(matches!(&outcomes[1], Err(TaskError::Panicked(it)) if it.message == "on purpose"));
        assert!(matches!(&outcomes[6], Err(TaskError::Panicked(_))));
        // To leave with code 0 is no answer.
        assert_eq!([2, 3, 5].map(status), [0, 3, 0].map(ExitStatus::Exited));
        assert_eq!(status(4).signal(), Some(6));
        goes_on(&pool);
    });
}

#[test]
fn an_endless_input_is_taken_as_far_as_allowed_and_an_iterator_is_dropped_half_way() {
    of_both(|builder| {
        let pool = builder.start().unwrap();
        let taken = AtomicUsize::new(0);
        let items = (0u64..).inspect(|_| {
            taken.fetch_add(1, Ordering::Relaxed);
        });
        let mut outcomes = pool.imap(items, |x| x).ahead(5);
        for n in 0..40 {
            assert_eq!(outcomes.next().unwrap().unwrap(), n);
            assert!(taken.load(Ordering::Relaxed) as u64 <= n + 1 + 5);
        }
        drop(outcomes);
        let mut bounded = pool.imap_unordered(0..1000u64, |x| x).ahead(10);
        bounded.next().unwrap().unwrap();
        drop(bounded);
        assert!(pool.close().unwrap().is_clean());
    });
}

#[test]
fn submitting_to_workers_that_take_nothing_blocks_nobody_and_loses_nothing() {
    of_both(|builder| {
        let pool = builder.start().unwrap();
        let mut gate = Gate::new();
        let (busy, pids) = all_busy(&pool, &mut gate);
        pids.iter().for_each(|&pid| stop(pid));
        // Much more than any buffer between two processes holds.
        let long = |n: u64| vec![n as u8; 40_000];
        let flood = pool.submit_all((0..500u64).map(long), |bytes| bytes[39_999]).unwrap();
        kill(pids[0], Signal::SIGKILL).unwrap();
        kill(pids[1], Signal::SIGCONT).unwrap();
        drop(gate);
        let lost = busy.into_iter().map(|task| task.join()).filter(Result::is_err).count();
        assert_eq!(lost, 1);
        for (n, task) in (0..500u64).zip(flood) {
            assert_eq!(task.join().unwrap(), n as u8);
        }
        assert_eq!(pool.close().unwrap().lost, 1);
    });
}

const HANDLES: (&str, &str) = (env!("CARGO_BIN_EXE_endings"), "handles");

#[test]
fn a_signal_to_a_worker_is_no_business_of_its_parents_handler() {
    let (oracle, _watchdog) = begin();
    // In a program of its own, since a handler is everybody's.
    let ending = Program::start(process::Command::new(HANDLES.0).arg(HANDLES.1)).finish();
    assert!(ending.status.success(), "{ending}");
    assert_eq!(ending.stdout.lines().next(), Some("handled 0"), "{ending}");
    assert!(ending.stdout.ends_with("handled 1\n"), "{ending}");
    oracle.nothing_left();
}

/// Fails in all workers but the first two.
fn fail_later() {
    let marks = Marks::from_env();
    marks.leave("tried");
    assert!(marks.count("tried") <= 2, "no licence");
}

#[test]
fn an_initializer_that_fails_in_replacements_ends_the_pool_with_its_words_after_bounded_starts() {
    of_both(|builder| {
        let marks = Marks::new();
        let (name, directory) = marks.variable();
        let pool =
            builder.env(name, directory).initializer(fail_later).limit_core(0).stderr(Stdio::Null);
        let pool = pool.start().unwrap();
        // The workers that there are die, if they do not leave after their first task.
        let outcomes = pool.map_outcomes(0..40u32, |n| if n >= 20 { process::abort() } else { n });
        for (n, outcome) in outcomes.unwrap().into_iter().enumerate() {
            match outcome {
                Ok(value) => assert_eq!(value, n as u32),
                Err(TaskError::WorkerLost(_)) => assert!(n >= 20),
                Err(TaskError::Refused(Refusal::Broken { cause })) => {
                    assert!(cause.contains("no licence"), "{cause}");
                }
                Err(error) => panic!("{n}: {error:?}"),
            }
        }
        let refused = pool.submit(1u32, |n| n).unwrap_err();
        assert!(matches!(refused.reason, Refusal::Broken { .. }), "{refused:?}");
        let report = pool.close().unwrap();
        assert!(report.broken.is_some_and(|cause| cause.contains("no licence")));
        // 8 and 2 a worker that fail in a row, and those that were under way by then.
        assert!(marks.count("tried") <= 20, "{} starts", marks.count("tried"));
    });
}

/// A long value, in a worker that is killed about when it answers.
fn answer_and_die((n, micros): (u8, u64)) -> Vec<u8> {
    if n == 3 {
        let worker = getpid();
        thread::spawn(move || {
            thread::sleep(Duration::from_micros(micros));
            kill(worker, Signal::SIGKILL).unwrap();
        });
    }
    vec![n; 300_000]
}

#[test]
fn a_worker_that_is_killed_while_it_answers_spoils_no_answer() {
    of_both(|builder| {
        let pool = builder.start().unwrap();
        let mut lost = 0;
        for round in 0..20u64 {
            let items = (0..8u8).map(|n| (n, round * 30));
            for (n, outcome) in pool.map_outcomes(items, answer_and_die).unwrap().iter().enumerate()
            {
                match outcome {
                    Ok(bytes) => assert!(*bytes == vec![n as u8; 300_000]),
                    Err(TaskError::WorkerLost(_)) => lost += 1,
                    Err(error) => panic!("{n}: {error:?}"),
                }
            }
        }
        let report = pool.close().unwrap();
        assert_eq!((report.done, report.lost), (160 - lost, lost), "{report}");
        assert!(lost <= 20, "{lost} lost by 20 kills");
    });
}

#[test]
fn a_pool_with_all_queues_full_is_terminated_again_and_again() {
    of_both(|builder| {
        let builder = builder.grace_period(GRACE);
        for round in 0..10 {
            let pool = builder.clone().start().unwrap();
            let items = (0..200u64).map(|n| (n, vec![n as u8; 1000 * (round % 10)]));
            let tasks = pool.submit_all(items, |(n, bytes)| (n, bytes)).unwrap();
            let report = pool.terminate().unwrap();
            let outcomes: Vec<_> = tasks.into_iter().map(|task| task.join()).collect();
            let done = outcomes.iter().filter(|outcome| outcome.is_ok()).count() as u64;
            let is_told = |outcome: &Result<_, TaskError>| match outcome {
                Ok(_) | Err(TaskError::Cancelled { .. }) => true,
                Err(error) => panic!("{error:?}"),
            };
            assert!(outcomes.iter().all(is_told));
            assert_eq!((report.done, report.cancelled), (done, 200 - done), "{report}");
        }
    });
}

#[test]
fn callbacks_panic_submit_close_and_drop_the_pool() {
    of_both(|builder| {
        let pool = Arc::new(builder.start().unwrap());
        let (sender, called) = mpsc::channel();
        pool.submit((), |()| ()).unwrap().on_done(|_| panic!("on purpose"));
        let (inner, tell) = (Arc::clone(&pool), sender.clone());
        pool.submit(4u64, |n| n).unwrap().on_done(move |value| {
            let again = inner.submit(value.unwrap(), |n| n + 1).unwrap();
            again.on_done(move |value| tell.send(value.unwrap()).unwrap());
            drop(inner);
        });
        assert_eq!(called.recv().unwrap(), 5);
        let inner = Arc::clone(&pool);
        pool.submit(6u64, |n| n).unwrap().on_done(move |value| {
            assert!(inner.close().is_ok());
            // The last one but that of the story, which is gone by then or is the last itself.
            drop(inner);
            sender.send(value.unwrap()).unwrap();
        });
        drop(pool);
        assert_eq!(called.into_iter().collect::<Vec<_>>(), [6]);
    });
}

#[test]
fn submitting_cancelling_and_closing_at_once_wakes_every_waiter() {
    of_both(|builder| {
        let builder = builder.grace_period(GRACE);
        for round in 0..9 {
            let pool = builder.clone().start().unwrap();
            let counted = AtomicUsize::new(0);
            thread::scope(|threads| {
                for _ in 0..3 {
                    threads.spawn(|| {
                        let tasks: Vec<_> =
                            (0..30u64).map_while(|n| pool.submit(n, |n| n).ok()).collect();
                        for task in tasks.iter().step_by(3) {
                            task.cancel();
                        }
                        let expected = tasks.len();
                        assert_eq!(as_completed(tasks).count(), expected);
                        counted.fetch_add(1, Ordering::Relaxed);
                    });
                }
                match round % 3 {
                    0 => drop(pool.close().unwrap()),
                    1 => drop(pool.terminate().unwrap()),
                    _ => {}
                }
            });
            assert_eq!(counted.into_inner(), 3);
        }
    });
}

#[test]
fn a_storm_of_limits_and_cancels_gives_every_task_its_outcome() {
    of_both(|builder| {
        let pool = builder.grace_period(GRACE).start().unwrap();
        let options = TaskOptions::new().timeout(Duration::from_millis(30));
        let options = options.cancel_within(Duration::ZERO);
        let task = |n| if n % 10 == 0 { park_for_ever() } else { n };
        let tasks: Vec<_> =
            (0..80u64).map(|n| pool.submit_with(&options, n, task).unwrap()).collect();
        for task in tasks.iter().skip(5).step_by(7) {
            task.cancel();
        }
        let (mut done, mut ended) = (0, 0);
        for (n, task) in (0..).zip(tasks) {
            match task.join() {
                Ok(value) => done += u64::from(value == n),
                Err(TaskError::TimedOut | TaskError::Cancelled { .. }) => ended += 1,
                Err(error) => panic!("{n}: {error:?}"),
            }
        }
        assert_eq!(done + ended, 80);
        let report = pool.close().unwrap();
        assert_eq!((report.done, report.timed_out + report.cancelled), (done, ended), "{report}");
    });
}

#[test]
fn errors_of_a_mebibyte_that_nobody_reads_do_not_hold_up_the_end() {
    of_both(|builder| {
        let pool = builder.start().unwrap();
        let error = pool.try_map(0..4u8, |n| Err::<(), _>(n.to_string().repeat(1 << 20)));
        assert!(matches!(error, Err(TaskError::Failed(_))));
        // Nobody looks at these.
        let unread = pool.submit_all(0..4u8, |n| vec![n; 1 << 20]).unwrap();
        let report = pool.close().unwrap();
        assert!(report.is_clean(), "{report}");
        drop(unread);
    });
}

/// Leaves a mark as it is dropped, in a worker.
#[derive(Serialize, Deserialize)]
struct Marked {
    marks: PathBuf,
    name: String,
    parent: u32,
}

impl Drop for Marked {
    fn drop(&mut self) {
        if self.parent != process::id() {
            Marks::at(&self.marks).leave(&self.name);
        }
    }
}

#[test]
fn a_worker_keeps_neither_its_last_argument_nor_its_last_value() {
    of_both(|builder| {
        let marks = Marks::new();
        let pool = builder.start().unwrap();
        let mut names = HashSet::new();
        for n in 0..10 {
            let marked = |name: String| Marked { marks: marks.path(), name, parent: process::id() };
            let (argument, value) = (format!("argument-{n}"), format!("value-{n}"));
            let task =
                pool.submit((marked(argument.clone()), value.clone()), |(argument, name)| Marked {
                    marks: argument.marks.clone(),
                    name,
                    parent: argument.parent,
                });
            drop(task.unwrap().join().unwrap());
            // Nothing more is asked of the worker, and both are gone soon.
            while marks.count(&argument) + marks.count(&value) < 2 {
                thread::yield_now();
            }
            names.extend([argument, value]);
        }
        assert!(names.iter().all(|name| marks.count(name) == 1));
    });
}

#[test]
fn pools_leave_no_file_in_shared_memory_also_where_workers_are_killed() {
    of_both(|builder| {
        let before = named_in_shm();
        for _ in 0..5 {
            let pool = builder.clone().start().unwrap();
            let outcomes = pool.map_outcomes(0..20u32, |n| {
                if n == 10 {
                    kill(getpid(), Signal::SIGKILL).unwrap();
                }
                vec![n as u8; 200_000]
            });
            assert_eq!(outcomes.unwrap().iter().filter(|outcome| outcome.is_err()).count(), 1);
        }
        assert_eq!(named_in_shm(), before);
    });
}
