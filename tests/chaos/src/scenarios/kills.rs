//! Workers killed at random instants under load: every task has one outcome, none is done twice, and
//! the pool goes on.

use std::hint::spin_loop;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use epilogue::{Pool, StartMethod, TaskError};
use support::{Oracle, Random, kill_a_child};

use super::ledger::Ledger;
use super::{OnDrop, Scenario};
use crate::figures::say_count;
use crate::seed::Seed;

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "kills",
    story: "SIGKILL to random workers under load, a hundred deaths a case",
    cases: |extent| extent.either(20, 1000),
    patience: |_| Duration::from_secs(120),
    least: None,
    case: |case| case.ends_well(&mut case.command(&[]), Duration::from_secs(1)),
    subject,
};

/// How many deaths a case has.
const DEATHS: u64 = 100;
/// How many tasks a round has: many more than are on their way at a time.
const TASKS: usize = 1000;

/// What a task does: how long, in microseconds, and with how long an answer, in bytes.
type Work = (PathBuf, u64, u64, usize);

fn work((ledger, task, micros, length): Work) -> (u64, Vec<u8>) {
    Ledger::begin(&ledger, task);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_micros(micros) {
        spin_loop();
    }
    (task, vec![task as u8; length])
}

#[derive(Debug, Default)]
struct Tally {
    done: u64,
    lost: u64,
}

impl Tally {
    fn note(&mut self, task: u64, begun: u64, outcome: Result<(u64, Vec<u8>), TaskError>) {
        match outcome {
            Ok((number, bytes)) => {
                assert_eq!((number, begun), (task, 1), "task {task} of that value began so often");
                assert!(bytes.iter().all(|&byte| byte == task as u8), "task {task}: another's");
                self.done += 1;
            }
            Err(TaskError::WorkerLost(worker)) => {
                assert_eq!(worker.status.signal(), Some(9), "{worker:?}");
                assert!(begun <= 1, "task {task} began {begun} times");
                self.lost += 1;
            }
            Err(error) => panic!("task {task}: {error:?}"),
        }
    }
}

/// A map, with single tasks beside it, all in one ledger.
fn round(pool: &Pool, random: &mut Random, progress: &AtomicU64) -> Tally {
    let ledger = Ledger::new();
    let longest = random.one_of(&[0, 20, 200]);
    // Some in the ring, some over the socket.
    let lengths = random.one_of(&[[0, 8], [8, 3000], [8, 100_000]]);
    let mut work_of = |task: usize| -> Work {
        let length = random.one_of(&lengths);
        (ledger.path(), task as u64, random.below(longest + 1), length)
    };
    let works: Vec<Work> = (0..TASKS).map(&mut work_of).collect();
    let (mapped, single) = works.split_at(TASKS * 3 / 4);
    let moves = |work: &Work| {
        progress.fetch_add(1, Ordering::Relaxed);
        work.clone()
    };
    let outcomes = thread::scope(|threads| {
        let singles = threads.spawn(|| {
            let submit = |work| pool.submit(moves(work), self::work).unwrap();
            let tasks: Vec<_> = single.iter().map(submit).collect();
            tasks.into_iter().map(|task| task.join()).collect::<Vec<_>>()
        });
        let mut outcomes = pool.map_outcomes(mapped.iter().map(moves), self::work).unwrap();
        outcomes.extend(singles.join().unwrap());
        outcomes
    });
    assert_eq!(outcomes.len(), TASKS);
    let (mut tally, beginnings) = (Tally::default(), ledger.beginnings(TASKS));
    for (task, outcome) in outcomes.into_iter().enumerate() {
        tally.note(task as u64, beginnings[task].len() as u64, outcome);
    }
    tally
}

fn subject(seed: Seed, _: &[String]) {
    let oracle = Oracle::begin();
    let mut random = seed.random(1);
    let workers = 2 + random.below(4) as usize;
    let method = random.one_of(&[StartMethod::Spawn, StartMethod::Spawn, StartMethod::Server]);
    let chunk = random.one_of(&[0, 0, 1, 64]);
    let builder = Pool::builder().workers(workers).start_method(method).chunk_size(chunk);
    let pool = builder.start().unwrap();
    let (progress, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let (mut all, mut rounds) = (Tally::default(), 0);
    thread::scope(|threads| {
        let killer = threads.spawn(|| kill(seed.random(2), &progress, &over));
        // A failure must not wait for deaths that nobody is left to die.
        let _over = OnDrop(|| over.store(true, Ordering::Relaxed));
        while !killer.is_finished() {
            let Tally { done, lost } = round(&pool, &mut random, &progress);
            (all.done, all.lost, rounds) = (all.done + done, all.lost + lost, rounds + 1);
        }
    });
    assert_eq!(pool.map(0..100u64, |x| x + 1).unwrap()[99], 100);
    let report = pool.close().unwrap();
    assert!(all.lost <= DEATHS, "{} tasks lost by {DEATHS} deaths", all.lost);
    assert_eq!((report.done, report.lost), (all.done + 100, all.lost));
    drop(pool);
    epilogue::end_servers();
    oracle.nothing_left();
    say_count("deaths", DEATHS);
    say_count("tasks with one outcome", rounds * TASKS as u64);
    say_count("of them lost with their worker", all.lost);
}

fn kill(mut random: Random, progress: &AtomicU64, over: &AtomicBool) {
    let (mut killed, mut seen) = (0, 0);
    while killed < DEATHS && !over.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_micros(random.below(3000)));
        // On a slow machine workers die faster than they start, and a pool rightly gives up if
        // none of them ever does anything: one death for each few tasks.
        if progress.load(Ordering::Relaxed) >= seen + 4 {
            seen = progress.load(Ordering::Relaxed);
            killed += u64::from(kill_a_child(&mut random));
        }
    }
}
