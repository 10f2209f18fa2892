//! A mixed load with kills, for long: memory, descriptors and processes stay what they are.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use epilogue::{Pool, Process, TaskError, channel, scope};
use nix::unistd::getpid;
use support::{Oracle, kill_a_child, procfs};

use super::{OnDrop, Scenario};
use crate::case::status_field;
use crate::cli::Extent;
use crate::figures::{say_count, say_worst};
use crate::seed::Seed;

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "soak",
    story: "a mixed load with kills for a minute (--ci), three, or as long as --seconds says",
    cases: |_| 1,
    patience: |extent| length(extent) + Duration::from_secs(120),
    case: |case| {
        let seconds = length(case.extent).as_secs().to_string();
        case.ends_well(&mut case.command(&[&seconds]), Duration::from_secs(1))
    },
    subject,
};

fn length(extent: Extent) -> Duration {
    Duration::from_secs(extent.seconds.unwrap_or(extent.either(60, 180)))
}

/// How much the memory may grow from the second quarter to the last, in KiB: what the allocator
/// keeps differs by so much from moment to moment.
const NOISE: u64 = 2048;

/// How often it is looked, in all.
const SAMPLES: u32 = 1000;

/// What there is at one moment.
#[derive(Debug, Clone, Copy)]
struct Sample {
    memory: u64,
    descriptors: usize,
    children: usize,
}

fn sample() -> Sample {
    let memory = status_field(getpid(), "VmRSS").unwrap();
    Sample {
        memory: memory.split(' ').next().unwrap().parse().unwrap(),
        descriptors: procfs::descriptors_of(getpid()),
        children: support::children_of(getpid()).len(),
    }
}

fn subject(seed: Seed, arguments: &[String]) {
    let oracle = Oracle::begin();
    let length = Duration::from_secs(arguments[0].parse().unwrap());
    let pool = Pool::new(3).unwrap();
    let (progress, over) = (AtomicU64::new(0), AtomicBool::new(false));
    // So many that they take no memory to speak of, however long it goes on.
    let mut samples = Vec::with_capacity(SAMPLES as usize + 1);
    let (begun, mut rounds, mut lost, mut longest) = (Instant::now(), 0, 0, Duration::ZERO);
    let killed = thread::scope(|threads| {
        let killer = threads.spawn(|| kill(seed, &progress, &over));
        let _over = OnDrop(|| over.store(true, Ordering::Relaxed));
        while begun.elapsed() < length {
            let round = Instant::now();
            lost += load(&pool, &progress);
            longest = longest.max(round.elapsed());
            rounds += 1;
            if begun.elapsed() >= length * samples.len() as u32 / SAMPLES {
                samples.push(sample());
            }
        }
        over.store(true, Ordering::Relaxed);
        killer.join().unwrap()
    });
    judge(&samples);
    let report = pool.close().unwrap();
    assert!(report.lost <= killed, "{} tasks lost by {killed} deaths", report.lost);
    let done = report.done;
    drop((pool, report));
    oracle.nothing_left();
    say_count("deaths", killed);
    say_count("tasks done", done);
    say_count("calls that a death cost", lost);
    say_count("rounds", rounds);
    say_worst("a round", longest);
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

fn kill(seed: Seed, progress: &AtomicU64, over: &AtomicBool) -> u64 {
    let (mut random, mut killed, mut seen) = (seed.random(2), 0, 0);
    while !over.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_micros(random.below(100_000)));
        if progress.load(Ordering::Relaxed) >= seen + 4 {
            seen = progress.load(Ordering::Relaxed);
            killed += u64::from(kill_a_child(&mut random));
        }
    }
    killed
}

/// From the second quarter on, when all is warm, nothing grows.
fn judge(samples: &[Sample]) {
    let quarter = samples.len() / 4;
    assert!(quarter > 0, "only {} samples", samples.len());
    let (early, late) = (&samples[quarter..2 * quarter], &samples[3 * quarter..]);
    let memory = |part: &[Sample]| {
        let mut all: Vec<_> = part.iter().map(|sample| sample.memory).collect();
        all.sort();
        all[all.len() / 2]
    };
    let growth = memory(late).saturating_sub(memory(early));
    say_count("KiB of growth", growth);
    let most = |part: &[Sample]| {
        let descriptors = part.iter().map(|sample| sample.descriptors).max();
        (descriptors, part.iter().map(|sample| sample.children).max())
    };
    let ((before, _), (after, children)) = (most(early), most(late));
    say_count("descriptors at most", after.unwrap_or_default() as u64);
    assert!(growth <= NOISE, "{growth} KiB more, from {} KiB", memory(early));
    // A worker that is being replaced has some, and so has its successor.
    assert!(after <= before.map(|before| before + 12), "{before:?}, then {after:?} descriptors");
    assert!(children <= Some(9), "{children:?} children at a time");
}
