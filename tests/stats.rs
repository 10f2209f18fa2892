//! What a pool says of its own work is true: counts add up at any moment, and every task is measured.

use std::thread::sleep;
use std::time::{Duration, Instant};

use epilogue::{Pool, Stats, TaskOptions};
use nix::sys::signal::{Signal, kill};
use support::{Gate, begin, park_for_ever, through};

fn in_all(stats: &Stats) -> u64 {
    let Stats { queued, running, done, lost, cancelled, timed_out, .. } = stats;
    queued + running + done + lost + cancelled + timed_out
}

#[test]
fn tasks_are_counted_where_they_are_while_they_wait_run_and_end() {
    let (oracle, _watchdog) = begin();
    let mut gate = Gate::new();
    let pool = Pool::builder().workers(1).name("counted").start().unwrap();
    let held = pool.submit((gate.path(), 7u32), through).unwrap();
    gate.wait();
    let waiting: Vec<_> = (0..200u64).map(|n| pool.submit(n, |n| n).unwrap()).collect();
    let stats = pool.stats();
    assert_eq!((stats.running, stats.queued, stats.done), (1, 200, 0), "{stats}");
    assert_eq!((stats.workers.wanted, stats.workers.up), (1, 1));
    assert!(waiting[5].cancel());
    let stats = pool.stats();
    assert_eq!((stats.running, stats.queued, stats.cancelled), (1, 199, 1), "{stats}");
    drop(gate);
    held.join().unwrap();
    let done =
        waiting.into_iter().map(|task| task.join()).filter(|outcome| outcome.is_ok()).count();
    assert_eq!(done, 199);
    let stats = pool.stats();
    assert_eq!(
        (stats.running, stats.queued, stats.done, stats.cancelled),
        (0, 0, 200, 1),
        "{stats}"
    );
    assert!(stats.to_string().starts_with("pool counted: 0 tasks queued, 0 running, 200 done"));
    let report = pool.close().unwrap();
    let stats = pool.stats();
    assert_eq!((stats.done, stats.cancelled), (report.done, report.cancelled));
    let gone = stats.workers;
    assert_eq!((gone.up, gone.starting, gone.ending, gone.ended), (0, 0, 0, 1), "{stats}");
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn every_way_a_task_can_end_is_counted_once() {
    let (oracle, _watchdog) = begin();
    let mut gate = Gate::new();
    let pool = Pool::new(1).unwrap();
    let lost = pool.submit((gate.path(), 7u32), through).unwrap();
    kill(gate.wait(), Signal::SIGKILL).unwrap();
    lost.join().unwrap_err();
    let brief = TaskOptions::new().timeout(Duration::from_millis(20));
    let endless = |()| {
        if std::process::id() > 0 {
            park_for_ever()
        }
    };
    pool.submit_with(&brief, (), endless).unwrap().join().unwrap_err();
    pool.map(0..50u64, |x| x).unwrap();
    let stats = pool.stats();
    assert_eq!((stats.lost, stats.timed_out, stats.done), (1, 1, 50), "{stats}");
    assert_eq!((in_all(&stats), stats.workers.ended), (52, 2), "{stats}");
    drop(gate);
    assert!(pool.close().is_ok());
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn all_tasks_are_in_the_histograms_whether_they_were_measured_or_stand_for_others() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(2).unwrap();
    // Alone, one after the other; in short calls; and in long ones.
    for n in 0..2000u64 {
        pool.submit(n, |n| n).unwrap().join().unwrap();
    }
    pool.chunk_size(3).map(0..2000u64, |n| n).unwrap();
    pool.map(0..100_000u64, |n| n).unwrap();
    let stats = pool.stats();
    assert_eq!(stats.done, 104_000);
    // What came after the last that was measured is in none, yet.
    for histogram in [&stats.waited, &stats.ran] {
        let count = histogram.count();
        assert!(count <= 104_000 && count > 103_000, "{count}: {histogram}");
        assert_eq!(histogram.buckets().map(|(_, count)| count).sum::<u64>(), count);
    }
    assert!(pool.close().is_ok());
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn a_task_that_waits_behind_another_has_waited_as_long_as_that_ran() {
    let (oracle, _watchdog) = begin();
    let (mut gate, mut second) = (Gate::new(), Gate::new());
    let pool = Pool::new(1).unwrap();
    let before = Instant::now();
    let held = pool.submit((gate.path(), 7u32), through).unwrap();
    gate.wait();
    let behind = pool.submit((second.path(), 8u32), through).unwrap();
    // However long this is: the first runs for as long, and the second waits.
    let least = Duration::from_millis(60);
    sleep(least);
    drop(gate);
    second.wait();
    let most = before.elapsed();
    drop(second);
    // What lies in shared memory until somebody looks neither waits nor runs meanwhile.
    sleep(most * 2);
    held.join().unwrap();
    behind.join().unwrap();
    let stats = pool.stats();
    let (ran, waited) = (stats.ran.max().unwrap(), stats.waited.max().unwrap());
    assert!((least..=most).contains(&ran) && (least..=most).contains(&waited), "{most:?}, {stats}");
    assert_eq!((stats.ran.count(), stats.waited.count()), (2, 2), "{stats}");
    assert!(pool.close().is_ok());
    drop(pool);
    oracle.nothing_left();
}
