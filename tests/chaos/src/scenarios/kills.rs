//! Workers killed at random instants under load: every task has one outcome, none is done twice, the
//! pool goes on, and its parent has no more open than before. The pool's own report says who died.

use std::hint::spin_loop;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use epilogue::{Pool, Report, StartMethod, TaskError};
use nix::unistd::{Pid, getpid};
use support::{Oracle, Random, kill_a_child, procfs};

use super::ledger::Ledger;
use super::settled::{PATIENCE, settled};
use super::{OnDrop, Scenario};
use crate::figures::{say_count, say_most};
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
    let (progress, over, truce) = (AtomicU64::new(0), AtomicBool::new(false), Mutex::new(()));
    let (mut all, mut rounds) = (Tally::default(), 0);
    let open = open_in_calm(&pool, workers);
    let killed = thread::scope(|threads| {
        let killer = threads.spawn(|| kill(seed.random(2), &pool, &progress, &over, &truce));
        // A failure must not wait for deaths that nobody is left to die.
        let _over = OnDrop(|| over.store(true, Ordering::Relaxed));
        while !killer.is_finished() {
            let Tally { done, lost } = round(&pool, &mut random, &progress);
            (all.done, all.lost, rounds) = (all.done + done, all.lost + lost, rounds + 1);
            let no_kills = truce.lock().unwrap();
            let more = more_soon_gone(&pool, workers, open);
            drop(no_kills);
            assert!(more.is_none(), "after round {rounds}, not {open}: {more:#?}");
        }
        killer.join().unwrap()
    });
    assert_eq!(pool.map(0..100u64, |x| x + 1).unwrap()[99], 100);
    let most = killed.open.saturating_sub(open);
    assert!(most <= more(workers), "{most} descriptors more than the {open} that it has in calm");
    let report = pool.close().unwrap();
    let died = count_deaths(&report, &killed.victims, method);
    assert!(all.lost <= died, "{} tasks lost by {died} deaths", all.lost);
    assert_eq!((report.done, report.lost), (all.done + 100, all.lost));
    drop(pool);
    epilogue::end_servers();
    oracle.nothing_left();
    say_count("deaths", died);
    say_count("servers and spare children killed", killed.victims.len() as u64 - died);
    say_count("tasks with one outcome", rounds * TASKS as u64);
    say_count("of them lost with their worker", all.lost);
    say_most("descriptors of a parent, the same after each round,", open as u64);
    say_most("descriptors more as workers were being replaced", most as u64);
}

/// What this process has open when nobody is being replaced. A server keeps some, more or fewer by what
/// it is at, and whatever a dead one had is open until there is another one: none is there then.
fn open_in_calm(pool: &Pool, workers: usize) -> usize {
    settled(pool, workers, workers, epilogue::end_servers);
    procfs::descriptors_of(getpid())
}

/// How many descriptors more there may be at any moment, while all workers are being replaced: what each
/// has once more, and what is open for a start, a server and a ledger.
fn more(workers: usize) -> usize {
    4 * workers + 16
}

/// What is open, if it stays that it is not as much as it was. Who was just replaced may be about to be
/// dropped: that its pool has counted its end comes first.
fn more_soon_gone(pool: &Pool, workers: usize, before: usize) -> Option<Vec<String>> {
    let begun = Instant::now();
    while open_in_calm(pool, workers) != before {
        if begun.elapsed() > PATIENCE {
            return Some(procfs::open_by(getpid()));
        }
        thread::yield_now();
    }
    None
}

/// How many workers died, as the pool says: of each victim once, and of nobody else. A victim that it does
/// not know was no worker.
fn count_deaths(report: &Report, victims: &[Pid], method: StartMethod) -> u64 {
    let mut others = victims.to_vec();
    let died: Vec<_> =
        report.workers.iter().filter(|it| it.end.status.signal() == Some(9)).collect();
    for worker in &died {
        let victim = others.iter().position(|victim| victim.as_raw() as u32 == worker.pid);
        others.swap_remove(victim.unwrap_or_else(|| panic!("nobody killed this one: {worker}")));
    }
    assert_eq!((report.failed, report.omitted), (died.len() as u64, 0), "{report}");
    assert!(others.is_empty() || method == StartMethod::Server, "not in the report: {others:?}");
    died.len() as u64
}

/// What the killer did and saw.
#[derive(Debug, Default)]
struct Killed {
    /// Each is dead, and lived when it was hit.
    victims: Vec<Pid>,
    /// How many descriptors this process had at most, right after a death.
    open: usize,
}

/// Kills at random, but nobody during a truce, until the pool says that enough workers are dead.
fn kill(
    mut random: Random,
    pool: &Pool,
    progress: &AtomicU64,
    over: &AtomicBool,
    truce: &Mutex<()>,
) -> Killed {
    let (mut killed, mut seen) = (Killed::default(), 0);
    while pool.stats().workers.ended < DEATHS && !over.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_micros(random.below(3000)));
        let _no_truce = truce.lock().unwrap();
        // On a slow machine workers die faster than they start, and a pool rightly gives up if
        // none of them ever does anything: one death for each few tasks.
        if progress.load(Ordering::Relaxed) >= seen + 4 {
            seen = progress.load(Ordering::Relaxed);
            killed.victims.extend(kill_a_child(&mut random));
            killed.open = killed.open.max(procfs::descriptors_of(getpid()));
        }
    }
    killed
}
