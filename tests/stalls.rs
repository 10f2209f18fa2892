//! A worker that has something to do, and does not get on with it, is found, told of, and by policy
//! continued or ended. It keeps no task from the others, and nobody waits for it for ever.

use std::path::PathBuf;
use std::process;
use std::sync::mpsc;
use std::time::Duration;

use epilogue::pool::Builder;
use epilogue::{OnStall, Pool, Reaction, Report, Stall, StallKind, Task, TaskError};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpid};
use serde::{Deserialize, Serialize};
use support::{Gate, Marks, begin, block_on, park_for_ever, stop, through};

/// So short that a test sees several of them.
const SOON: Duration = Duration::from_millis(100);

const GRACE: Duration = Duration::from_millis(600);

fn builder(workers: usize, policy: OnStall) -> Builder {
    let pool = Pool::builder().workers(workers).grace_period(GRACE);
    pool.stall_after(SOON).on_stall(policy)
}

/// Closes the pool, and drops it: then nothing of it may be left.
fn end(pool: Pool) -> Report {
    pool.close().unwrap()
}

fn worker_of(pool: &Pool) -> Pid {
    let pid = pool.submit((), |()| process::id()).unwrap().join().unwrap();
    Pid::from_raw(pid as i32)
}

fn kinds(stalls: &[Stall]) -> Vec<(StallKind, Reaction)> {
    stalls.iter().map(|stall| (stall.kind, stall.reaction)).collect()
}

/// Waits for a task until the pool tells of a stall.
fn wait_for_a_stall(pool: &Pool, task: &mut Task<u32>) -> Stall {
    loop {
        if let Some(stall) = pool.stalls().pop() {
            return stall;
        }
        assert_eq!(task.join_timeout(SOON / 10).unwrap(), None);
    }
}

fn stop_here(n: u32) -> u32 {
    if n % 10 == 3 {
        kill(getpid(), Signal::SIGSTOP).unwrap();
    }
    n
}

#[test]
fn a_worker_that_is_stopped_with_a_task_is_continued_and_all_have_their_values() {
    let (oracle, _watchdog) = begin();
    let pool = builder(2, OnStall::default()).start().unwrap();
    assert_eq!(pool.map(0..20, stop_here).unwrap(), (0..20).collect::<Vec<_>>());
    let report = end(pool);
    assert_eq!((report.done, report.lost, report.workers.len()), (20, 0, 2), "{report}");
    assert!(!report.stalls.is_empty());
    for stall in &report.stalls {
        let found = (stall.kind, stall.state, stall.reaction);
        assert_eq!(found, (StallKind::Stopped, 'T', Reaction::Continued), "{stall}");
        assert!(report.workers.iter().any(|worker| worker.pid == stall.pid));
        assert!(report.to_string().contains(&stall.to_string()), "{report}");
    }
    oracle.nothing_left();
}

#[test]
fn a_task_that_waits_in_a_stopped_worker_waits_for_no_more_than_a_while() {
    let (oracle, _watchdog) = begin();
    for policy in [OnStall::Continue, OnStall::End] {
        let pool = builder(1, policy).start().unwrap();
        let pid = worker_of(&pool);
        stop(pid);
        let again = worker_of(&pool);
        assert_eq!(again == pid, policy == OnStall::Continue, "{policy:?}");
        let report = end(pool);
        assert_eq!((report.done, report.lost), (2, 0), "{report}");
        assert_eq!(report.stalls[0].pid, pid.as_raw() as u32);
        oracle.nothing_left();
    }
}

/// Whoever waits without a thread does so as long as the pools' own threads sleep, which nothing wakes.
fn stopped(wait: impl Fn(Vec<Task<u32>>) -> u32, pools: u32) {
    let (oracle, _watchdog) = begin();
    let pools: Vec<_> =
        (0..pools).map(|_| builder(1, OnStall::Continue).start().unwrap()).collect();
    // The second time they may still be about to wake for the first.
    for round in 1..=2 {
        pools.iter().for_each(|pool| stop(worker_of(pool)));
        let tasks: Vec<_> = (5..).zip(&pools).map(|(n, pool)| pool.submit(n, |n| n)).collect();
        let tasks = tasks.into_iter().map(Result::unwrap).collect();
        assert_eq!(wait(tasks), (5..).zip(&pools).map(|(n, _)| n).sum::<u32>());
        let found = [(StallKind::Stopped, Reaction::Continued)].repeat(round);
        pools.iter().for_each(|pool| assert_eq!(kinds(&pool.stalls()), found));
    }
    pools.into_iter().for_each(|pool| assert_eq!(end(pool).done, 4));
    oracle.nothing_left();
}

#[test]
fn a_task_that_is_awaited_waits_in_a_stopped_worker_for_no_more_than_a_while() {
    stopped(|tasks| tasks.into_iter().map(|task| block_on(task).unwrap()).sum(), 1);
}

#[test]
fn who_joins_again_and_again_for_no_time_waits_for_a_stopped_worker_for_no_more_than_a_while() {
    let joined = |mut task: Task<u32>| loop {
        if let Some(value) = task.join_timeout(Duration::ZERO).unwrap() {
            return value;
        }
        std::thread::yield_now();
    };
    stopped(|tasks| tasks.into_iter().map(joined).sum(), 1);
}

#[test]
fn a_callback_waits_for_a_stopped_worker_for_no_more_than_a_while() {
    let called_back = |tasks: Vec<Task<u32>>| {
        let (sender, outcomes) = mpsc::channel();
        for task in tasks {
            let sender = sender.clone();
            task.on_done(move |outcome| sender.send(outcome.unwrap()).unwrap());
        }
        drop(sender);
        outcomes.into_iter().sum()
    };
    stopped(called_back, 1);
}

#[test]
fn tasks_of_several_pools_wait_in_stopped_workers_for_no_more_than_a_while() {
    stopped(|tasks| epilogue::pool::as_completed(tasks).map(|(_, n)| n.unwrap()).sum(), 2);
}

#[test]
fn a_pool_that_is_closed_waits_for_no_stopped_worker() {
    let (oracle, _watchdog) = begin();
    let pool = builder(1, OnStall::Continue).start().unwrap();
    stop(worker_of(&pool));
    let task = pool.submit(5, |n| n).unwrap();
    let report = end(pool);
    assert_eq!(kinds(&report.stalls), [(StallKind::Stopped, Reaction::Continued)], "{report}");
    assert_eq!(task.join().unwrap(), 5);
    oracle.nothing_left();
}

#[test]
fn a_worker_that_stops_again_and_again_is_ended_and_only_its_task_is_lost() {
    let (oracle, _watchdog) = begin();
    let pool = builder(1, OnStall::Continue).start().unwrap();
    let stubborn = pool.submit((), |()| -> u32 {
        loop {
            kill(getpid(), Signal::SIGSTOP).unwrap();
        }
    });
    let behind: Vec<_> = (0..9u32).map(|n| pool.submit(n, |n| n).unwrap()).collect();
    match stubborn.unwrap().join() {
        Err(TaskError::WorkerLost(lost)) => {
            let detail = lost.detail.unwrap();
            assert!(lost.begun && detail.contains("is stopped"), "{detail}");
        }
        other => panic!("{other:?}"),
    }
    for (n, task) in (0..).zip(behind) {
        assert_eq!(task.join().unwrap(), n);
    }
    let report = end(pool);
    let expected =
        [(StallKind::Stopped, Reaction::Continued), (StallKind::Stopped, Reaction::Ended)];
    assert_eq!(kinds(&report.stalls), expected, "{report}");
    assert_eq!((report.done, report.lost), (9, 1), "{report}");
    oracle.nothing_left();
}

#[test]
fn a_task_of_a_stalled_worker_that_is_ended_is_begun_again_if_it_may_be() {
    let (oracle, _watchdog) = begin();
    let marks = Marks::new();
    let pool = builder(2, OnStall::End).retries(1).start().unwrap();
    let items = (0..20).map(|n| (marks.path(), n));
    let values = pool.map(items, |(marks, n): (PathBuf, u32)| {
        let (marks, name) = (Marks::at(&marks), format!("task-{n}"));
        marks.leave(&name);
        if n == 7 && marks.count(&name) == 1 {
            kill(getpid(), Signal::SIGSTOP).unwrap();
            park_for_ever()
        }
        n
    });
    assert_eq!(values.unwrap(), (0..20).collect::<Vec<_>>());
    for n in 0..20 {
        assert_eq!(marks.count(&format!("task-{n}")), 1 + usize::from(n == 7), "{n}");
    }
    let report = end(pool);
    assert_eq!(kinds(&report.stalls), [(StallKind::Stopped, Reaction::Ended)], "{report}");
    assert_eq!((report.done, report.lost, report.retried), (20, 0, 1), "{report}");
    oracle.nothing_left();
}

#[test]
fn a_stopped_worker_that_is_left_alone_keeps_nothing_from_the_others() {
    let (oracle, _watchdog) = begin();
    let mut gate = Gate::new();
    let pool = builder(2, OnStall::Leave).start().unwrap();
    let pair = [1, 2].map(|n| pool.submit((gate.path(), n), through).unwrap());
    let pids = gate.wait_for(2);
    gate.open_once();
    assert_eq!(pair.map(|task| task.join().unwrap()), [1, 2]);
    stop(pids[0]);
    for n in 0..4u32 {
        let (value, pid) = pool.submit(n, |n| (n, process::id())).unwrap().join().unwrap();
        assert_eq!((value, pid), (n, pids[1].as_raw() as u32));
    }
    kill(pids[0], Signal::SIGCONT).unwrap();
    drop(gate);
    let report = end(pool);
    assert_eq!((report.done, report.workers.len()), (6, 2), "{report}");
    assert!(report.stalls.iter().all(|stall| stall.reaction == Reaction::Left), "{report}");
    oracle.nothing_left();
}

#[test]
fn a_task_that_sleeps_is_told_of_and_left_alone_and_one_that_computes_is_not() {
    let (oracle, _watchdog) = begin();
    let mut gate = Gate::new();
    let pool = builder(2, OnStall::Continue).start().unwrap();
    let computes = pool.submit(gate.path(), |gate| {
        while gate.exists() {
            std::hint::spin_loop();
        }
        process::id()
    });
    let mut sleeps = pool.submit((gate.path(), 6), through).unwrap();
    let pid = gate.wait();
    let stall = wait_for_a_stall(&pool, &mut sleeps);
    assert_eq!((stall.kind, stall.reaction), (StallKind::Silent, Reaction::Left), "{stall}");
    assert_eq!((stall.pid, stall.state), (pid.as_raw() as u32, 'S'), "{stall}");
    drop(gate);
    assert_eq!(sleeps.join().unwrap(), 6);
    let other = computes.unwrap().join().unwrap();
    let report = end(pool);
    assert!(report.stalls.iter().all(|stall| stall.pid != other), "{report}");
    assert!(report.is_clean() && report.workers.len() == 2, "{report}");
    oracle.nothing_left();
}

#[test]
fn by_policy_a_task_that_sleeps_is_ended_and_what_waits_behind_it_is_done() {
    let (oracle, _watchdog) = begin();
    let pool = builder(1, OnStall::End).start().unwrap();
    let hung = pool.submit((), |()| -> u32 { park_for_ever() }).unwrap();
    let behind = pool.submit(4, |n| n).unwrap();
    assert_eq!(behind.join().unwrap(), 4);
    let outcome = hung.join();
    assert!(matches!(outcome, Err(TaskError::WorkerLost(_))), "{outcome:?}");
    let report = end(pool);
    assert_eq!(kinds(&report.stalls), [(StallKind::Silent, Reaction::Ended)], "{report}");
    oracle.nothing_left();
}

/// What a worker cannot drop: it hangs outside of any task.
#[derive(Serialize, Deserialize)]
struct Undroppable(u32);

impl Drop for Undroppable {
    fn drop(&mut self) {
        if self.0 != process::id() {
            park_for_ever();
        }
    }
}

#[test]
fn a_worker_that_hangs_outside_of_its_tasks_is_ended_and_no_task_is_lost() {
    let (oracle, _watchdog) = begin();
    let pool = builder(1, OnStall::Continue).start().unwrap();
    let state = Undroppable(process::id());
    assert_eq!(pool.map_with(&state, [1u32, 2], |_, n| n).unwrap(), [1, 2]);
    // The worker drops its copy of the state now.
    let values = (0..9u32).map(|n| pool.submit(n, |n| n).unwrap().join().unwrap());
    assert_eq!(values.collect::<Vec<_>>(), (0..9).collect::<Vec<_>>());
    let report = end(pool);
    assert_eq!(kinds(&report.stalls), [(StallKind::Deaf, Reaction::Ended)], "{report}");
    assert_eq!((report.done, report.lost, report.workers.len()), (11, 0, 2), "{report}");
    oracle.nothing_left();
}

#[test]
fn workers_that_get_on_are_never_told_of_however_long_one_waits() {
    let (oracle, _watchdog) = begin();
    // Whoever waits has waited for many times as long as counts as stalled.
    let pool = builder(2, OnStall::End).stall_after(SOON / 10).start().unwrap();
    let tasks = (0..3).map(|n| {
        pool.submit(n, |n| {
            let begin = cpu_ticks();
            while cpu_ticks() < begin + 30 {
                std::hint::spin_loop();
            }
            n
        })
    });
    let tasks: Vec<_> = tasks.map(Result::unwrap).collect();
    for (n, task) in (0..).zip(tasks) {
        assert_eq!(task.join().unwrap(), n);
    }
    let report = end(pool);
    assert!(report.stalls.is_empty() && report.is_clean(), "{report}");
    oracle.nothing_left();
}

/// The CPU time that this process has used, in hundredths of a second.
fn cpu_ticks() -> u64 {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID).unwrap();
    time.tv_sec() as u64 * 100 + time.tv_nsec() as u64 / 10_000_000
}
