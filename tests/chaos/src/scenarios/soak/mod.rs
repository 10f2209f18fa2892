//! A mixed load with kills, for long: memory, descriptors and processes stay what they are.

mod samples;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use epilogue::{Pool, Process, StartError, TaskError, channel, scope};
use nix::unistd::{Pid, getpid};
use support::{Oracle, children_of, end_child};

use self::samples::Samples;
use super::settled::settled;
use super::{OnDrop, Scenario};
use crate::cli::Extent;
use crate::figures::{say_count, say_worst};
use crate::seed::Seed;

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "soak",
    story: "a mixed load with kills for three minutes, or as long as --seconds says",
    cases: |_| 1,
    patience: |extent| length(extent) + Duration::from_secs(120),
    least: None,
    case: |case| {
        let seconds = length(case.extent).as_secs().to_string();
        case.ends_well(&mut case.command(&[&seconds]), Duration::from_secs(1))
    },
    subject,
};

fn length(extent: Extent) -> Duration {
    Duration::from_secs(extent.seconds.unwrap_or(180))
}

/// How often it is looked, in all.
const SAMPLES: u32 = 500;

/// Workers that are killed again and again, and those that nobody kills.
const KILLED: usize = 3;
const SPARED: usize = 2;

fn subject(seed: Seed, arguments: &[String]) {
    let oracle = Oracle::begin();
    let length = Duration::from_secs(arguments[0].parse().unwrap());
    let spared = Pool::new(SPARED).unwrap();
    while spared.stats().workers.up < SPARED {
        thread::yield_now();
    }
    let pids = children_of(getpid());
    let pool = Pool::new(KILLED).unwrap();
    let (progress, over, truce) = (AtomicU64::new(0), AtomicBool::new(false), Mutex::new(()));
    let mut samples = Samples::of(getpid(), &pids, SAMPLES as usize);
    let (begun, mut rounds, mut longest) = (Instant::now(), 0, Duration::ZERO);
    let mut cost = Cost::default();
    let killed = thread::scope(|threads| {
        let killer = threads.spawn(|| kill(seed, &pids, &progress, &over, &truce));
        let _over = OnDrop(|| over.store(true, Ordering::Relaxed));
        while begun.elapsed() < length {
            let round = Instant::now();
            load(&pool, &progress, &mut cost);
            calm_load(&spared);
            longest = longest.max(round.elapsed());
            rounds += 1;
            if begun.elapsed() >= length * samples.len() as u32 / SAMPLES {
                let _truce = truce.lock().unwrap();
                settled(&pool, KILLED, KILLED + SPARED, || ());
                samples.take(begun.elapsed(), pool.stats().workers.ended);
            }
        }
        over.store(true, Ordering::Relaxed);
        killer.join().unwrap()
    });
    samples.judge();
    let of_spared = spared.close().unwrap();
    let ended: Vec<_> = of_spared.workers.iter().map(|worker| (worker.pid, worker.lost)).collect();
    assert!(ended.len() == SPARED && of_spared.failed == 0, "nobody killed these: {ended:?}");
    let report = pool.close().unwrap();
    assert!(report.lost <= killed, "{} tasks lost by {killed} deaths", report.lost);
    // A death costs one call at most, whose task or process it is. Otherwise a library that starts nothing any
    // more would pass.
    let Cost { lost, refused } = cost;
    let calls = lost + refused;
    assert!(calls <= killed, "{lost} calls lost and {refused} starts refused by {killed} deaths");
    let done = report.done + of_spared.done;
    drop((pool, report, spared, of_spared));
    oracle.nothing_left();
    say_count("deaths", killed);
    say_count("tasks done", done);
    say_count("calls that a death cost", lost);
    say_count("starts that a death cost", refused);
    say_count("rounds", rounds);
    say_worst("a round", longest);
}

/// What a worker does that nobody kills: nothing of it is lost.
fn calm_load(pool: &Pool) {
    let values = pool.map(0..500u64, |n| n * 7).unwrap();
    assert!((0..).zip(values).all(|(n, value)| value == n * 7));
    assert_eq!(pool.submit(LENGTH, long_answer).unwrap().join().unwrap(), long_answer(LENGTH));
}

/// Of an answer that travels in a segment.
const LENGTH: usize = 300_000;

fn long_answer(length: usize) -> Vec<u8> {
    vec![1; length]
}

/// What deaths cost the calls of those who were not hit.
#[derive(Debug, Default)]
struct Cost {
    /// Tasks and processes whose value is not there.
    lost: u64,
    /// Processes that were killed before they were up.
    refused: u64,
}

impl Cost {
    /// The value, if no death cost it.
    fn of<T, E>(&mut self, outcome: Result<T, E>) -> Option<T> {
        self.lost += u64::from(outcome.is_err());
        outcome.ok()
    }

    /// What was started, if no death prevented it.
    fn started<T>(&mut self, started: Result<T, StartError>) -> Option<T> {
        self.refused += u64::from(started.is_err());
        started.ok()
    }
}

/// A round of everything.
fn load(pool: &Pool, progress: &AtomicU64, cost: &mut Cost) {
    let numbers = (0..2000u64).inspect(|_| _ = progress.fetch_add(1, Ordering::Relaxed));
    for (n, outcome) in (0..).zip(pool.map_outcomes(numbers, |n| n * 7).unwrap()) {
        match outcome {
            Ok(value) => assert_eq!(value, n * 7),
            Err(TaskError::WorkerLost(_)) => cost.lost += 1,
            Err(error) => panic!("{error}"),
        }
    }
    if let Some(bytes) = cost.of(pool.submit(LENGTH, long_answer).unwrap().join()) {
        assert_eq!(bytes, long_answer(LENGTH));
    }
    if let Some(process) = cost.started(Process::start(3u64, |n| n + 1)) {
        let value = cost.of(process.join());
        assert!(value.is_none_or(|value| value == 4), "{value:?}");
    }
    scope(|processes| {
        let started = [1u64, 2].map(|n| (n, processes.start(n, |n| n)));
        for (n, process) in started {
            let Some(process) = cost.started(process) else { continue };
            let value = cost.of(process.join());
            assert!(value.is_none_or(|value| value == n), "{value:?}");
        }
    });
    let (sender, receiver) = channel::<u64>().unwrap();
    let send = |sender: epilogue::Sender<u64>| (0..100).for_each(|n| sender.send(n).unwrap());
    if let Some(process) = cost.started(Process::start(sender, send)) {
        let received = receiver.iter().flatten().count();
        let is_lost = cost.of(process.join()).is_none();
        assert!(is_lost || received == 100, "{received} of 100");
    }
}

/// Kills at random, but nobody of `spared`, and nobody during a truce: who was killed before it is dead.
fn kill(
    seed: Seed,
    spared: &[Pid],
    progress: &AtomicU64,
    over: &AtomicBool,
    truce: &Mutex<()>,
) -> u64 {
    let (mut random, mut killed, mut seen) = (seed.random(2), 0, 0);
    while !over.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_micros(random.below(40_000)));
        let _no_truce = truce.lock().unwrap();
        if progress.load(Ordering::Relaxed) >= seen + 4 {
            seen = progress.load(Ordering::Relaxed);
            let mut victims = children_of(getpid());
            victims.retain(|child| !spared.contains(child));
            let is_killed = !victims.is_empty() && end_child(random.one_of(&victims));
            killed += u64::from(is_killed);
        }
    }
    killed
}
