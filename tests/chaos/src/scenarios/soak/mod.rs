//! A mixed load with kills, for long: memory, descriptors and processes stay what they are.

mod samples;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use epilogue::{Pool, Process, TaskError, channel, scope};
use nix::unistd::{Pid, getpid};
use support::{Oracle, children_of, end_child};

use self::samples::{Samples, settled};
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
    let (begun, mut rounds, mut lost, mut longest) = (Instant::now(), 0, 0, Duration::ZERO);
    let killed = thread::scope(|threads| {
        let killer = threads.spawn(|| kill(seed, &pids, &progress, &over, &truce));
        let _over = OnDrop(|| over.store(true, Ordering::Relaxed));
        while begun.elapsed() < length {
            let round = Instant::now();
            lost += load(&pool, &progress);
            calm_load(&spared);
            longest = longest.max(round.elapsed());
            rounds += 1;
            if begun.elapsed() >= length * samples.len() as u32 / SAMPLES {
                let _truce = truce.lock().unwrap();
                settled(&pool, KILLED, KILLED + SPARED);
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
    let done = report.done + of_spared.done;
    drop((pool, report, spared, of_spared));
    oracle.nothing_left();
    say_count("deaths", killed);
    say_count("tasks done", done);
    say_count("calls that a death cost", lost);
    say_count("rounds", rounds);
    say_worst("a round", longest);
}

/// What a worker does that nobody kills: nothing of it is lost.
fn calm_load(pool: &Pool) {
    let values = pool.map(0..500u64, |n| n * 7).unwrap();
    assert!((0..).zip(values).all(|(n, value)| value == n * 7));
    let bytes = pool.submit(300_000usize, |length| vec![1u8; length]).unwrap().join().unwrap();
    assert_eq!(bytes.len(), 300_000);
}

/// A round of everything; how many calls a death has cost.
fn load(pool: &Pool, progress: &AtomicU64) -> u64 {
    let mut lost = 0;
    let numbers = (0..2000u64).inspect(|_| _ = progress.fetch_add(1, Ordering::Relaxed));
    for (n, outcome) in (0..).zip(pool.map_outcomes(numbers, |n| n * 7).unwrap()) {
        match outcome {
            Ok(value) => assert_eq!(value, n * 7),
            Err(TaskError::WorkerLost(_)) => lost += 1,
            Err(error) => panic!("{error}"),
        }
    }
    let task = pool.submit(300_000usize, |length| vec![1u8; length]).unwrap();
    lost += u64::from(task.join().is_err());
    if let Ok(process) = Process::start(3u64, |n| n + 1) {
        lost += u64::from(process.join().map(|value| assert_eq!(value, 4)).is_err());
    }
    lost += scope(|processes| {
        let started = [1u64, 2].map(|n| processes.start(n, |n| n));
        started.into_iter().flatten().filter_map(|process| process.join().err()).count() as u64
    });
    let (sender, receiver) = channel::<u64>().unwrap();
    let send = |sender: epilogue::Sender<u64>| (0..100).for_each(|n| sender.send(n).unwrap());
    if let Ok(process) = Process::start(sender, send) {
        let received = receiver.iter().flatten().count();
        assert!(process.join().is_err() || received == 100, "{received} of 100");
    }
    lost
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
