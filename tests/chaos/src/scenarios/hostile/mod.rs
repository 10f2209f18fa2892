//! A worker that does what none of ours does: it hurts its own tasks, and nobody else.
//!
//! It is a real worker of a real parent: a task writes to the wire that its process has, and, through
//! `/proc/self/mem`, to the memory that it shares with its parent.

mod bell;
mod deeds;
mod measure;
mod ring;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use epilogue::{JoinError, Pool, Process, StartError, TaskError};
use serde::{Deserialize, Serialize};
use support::{Oracle, Program, sys};

use self::deeds::{DEEDS, Deed, Verdict};
use self::measure::Measure;
use super::Scenario;
use super::ledger::Ledger;
use crate::case::{Case, panicked};
use crate::figures::{Figures, say_count, say_not_tried, say_worst};
use crate::group::Limit;
use crate::seed::Seed;

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "hostile",
    story: "a worker that lies, floods, forks or is deaf, in a pool and as a process",
    cases: |_| 2 * DEEDS.len() as u64,
    patience: |_| Duration::from_secs(30),
    least: None,
    case,
    subject,
};

const GRACE: Duration = Duration::from_millis(500);
/// From the last request to the end, and to spare for a busy machine.
const SPARE: Duration = Duration::from_millis(500);

/// How long a parent looks on before it asks for an end: longer than the grace period of those that
/// are to be found out.
fn patience(deed: Deed) -> Duration {
    Duration::from_millis(if deed.is_seen() { 3000 } else { 300 })
}

/// How many processes there may be in all, of one that forks without end.
const PROCESSES: u64 = 64;

fn deed(seed: Seed) -> (Deed, bool) {
    (DEEDS[seed.case as usize / 2], seed.case.is_multiple_of(2))
}

fn case(case: &mut Case) -> Figures {
    let (deed, _) = deed(case.seed);
    let mut command = case.command(&[]);
    // Nothing else ends who forks without end, and it would take all that there is.
    let limit = (deed == Deed::ForkWithoutEnd).then(|| Limit::make("pids", "pids.max", PROCESSES));
    let limit = match limit.transpose() {
        Ok(limit) => limit,
        Err(why) => return Figures::not_tried(&why),
    };
    command.args(limit.as_ref().map(Limit::path));
    let mut program = Program::start(&mut command);
    program.reap();
    if deed == Deed::ForkWithoutEnd {
        // What it forked is the task's own, and outlives it. It holds the program's output open.
        case.group.kill();
    }
    let ending = program.finish();
    assert!(ending.status.success(), "{deed:?}: {ending}");
    case.gone_within(Duration::from_secs(1));
    panicked(&ending, 0);
    let mut figures = Figures::said(&ending.stdout);
    figures.count("parents alive", 1);
    figures
}

const TASKS: u64 = 40;
const GUILTY: u64 = 11;

/// What is told to a task, of which one may be guilty.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Work {
    ledger: PathBuf,
    number: u64,
    deed: Option<Deed>,
}

fn work(Work { ledger, number, deed }: Work) -> u64 {
    Ledger::begin(&ledger, number);
    if let Some(deed) = deed {
        deed.happen();
    }
    number * 3
}

fn subject(seed: Seed, arguments: &[String]) {
    let (deed, in_pool) = deed(seed);
    // Workers have to see in which calls their parent waits, also those of who is not root.
    sys::let_all_trace();
    if deed == Deed::BellStolen && !Process::start((), bell::sees_parent).unwrap().join().unwrap() {
        return say_not_tried("a worker cannot see whether its parent waits");
    }
    arguments.first().map(Path::new).into_iter().for_each(Limit::enter);
    // It would end those that go on to fork, one by one; the kernel ends them all.
    let oracle = (deed != Deed::ForkWithoutEnd).then(Oracle::begin);
    let took = match in_pool {
        true => pool(deed),
        false => process(deed),
    };
    assert!(took <= GRACE + SPARE, "{deed:?}: {took:?}");
    say_worst("ended", took);
    if let Some(oracle) = oracle {
        oracle.nothing_left();
    }
}

/// How long the end took.
fn pool(deed: Deed) -> Duration {
    let ledger = Ledger::new();
    let pool = Pool::builder().workers(2).grace_period(GRACE).chunk_size(1).start().unwrap();
    let work_of = |number| {
        let deed = (number == GUILTY).then_some(deed);
        Work { ledger: ledger.path(), number, deed }
    };
    let works: Vec<_> = (0..TASKS).map(work_of).collect();
    // Both are up, and whoever waits has done so before.
    assert_eq!(pool.map(0..100u64, |x| x + 1).unwrap()[99], 100);
    let measure = Measure::begin();
    let (outcomes, is_over) = thread::scope(|threads| {
        let (done, over) = mpsc::channel::<()>();
        let map = threads.spawn(|| {
            let outcomes = pool.map_outcomes(works, work).unwrap();
            drop(done);
            outcomes
        });
        // Nothing is ever sent: the channel ends when the map does.
        let is_over =
            over.recv_timeout(patience(deed)) == Err(mpsc::RecvTimeoutError::Disconnected);
        let begun = Instant::now();
        if !is_over {
            drop(pool.terminate().unwrap());
        }
        let took = begun.elapsed();
        (map.join().unwrap(), is_over.then_some(()).ok_or(took))
    });
    measure.end(deed);
    judge(deed, outcomes, &ledger.beginnings(TASKS as usize), is_over.is_err());
    match is_over {
        Ok(()) => {
            assert_eq!(pool.map(0..100u64, |x| x + 1).unwrap()[99], 100, "{deed:?}: afterwards");
            let begun = Instant::now();
            drop(pool.close().unwrap());
            begun.elapsed()
        }
        Err(took) => took,
    }
}

/// The tasks of others are right, whatever became of those that the hostile one had begun, by the ledger:
/// each has begun once, and nothing else is lost.
fn judge(
    deed: Deed,
    outcomes: Vec<Result<u64, TaskError>>,
    beginnings: &[Vec<u32>],
    stopped: bool,
) {
    let hostile = &beginnings[GUILTY as usize];
    let (mut its_own, mut unnoted) = (0, 0);
    for ((number, began), outcome) in (0..).zip(beginnings).zip(outcomes) {
        let is_denied = number == GUILTY && deed.denies_its_beginning();
        assert!(began.len() <= 1 || is_denied, "{deed:?}, task {number} began in {began:?}");
        match outcome {
            Ok(value) => {
                assert!(!began.is_empty(), "{deed:?}, task {number} has a value, and never began");
                assert_eq!(value, number * 3, "{deed:?}, task {number}");
                continue;
            }
            Err(TaskError::WorkerLost(lost)) if hostile.contains(&lost.pid) => {
                let is_told = deed.verdict() != Verdict::Breach || lost.detail.is_some();
                assert!(is_told, "{deed:?}: nobody says that it broke the protocol: {lost:?}");
                let is_right = lost.begun && (began.is_empty() || began.contains(&lost.pid));
                assert!(is_right, "{deed:?}, task {number} began in {began:?}: {lost:?}");
            }
            // Only what the hostile one had begun can still be there when the pool is stopped.
            Err(TaskError::Cancelled { begun: true }) if stopped => {
                let is_right = began.iter().all(|pid| hostile.contains(pid));
                assert!(is_right, "{deed:?}, task {number} began in {began:?}, and was cancelled");
            }
            Err(TaskError::Decode { .. }) if number == GUILTY => {}
            Err(error) => panic!("{deed:?}, task {number}: {error:?}"),
        }
        its_own += 1;
        unnoted += usize::from(began.is_empty());
    }
    // Each that goes on may be ended between its claim and the note of that.
    let most = if deed.is_ended_later() { hostile.len() } else { 0 };
    assert!(unnoted <= most, "{deed:?}: {unnoted} lost that nobody had begun");
    assert!(!deed.is_seen() || (its_own >= 1 && !stopped), "{deed:?}: nobody saw it");
    say_count("typed errors", its_own);
}

/// How long the end took.
fn process(deed: Deed) -> Duration {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("deed");
    drop(File::create(&path).unwrap());
    let work = Work { ledger: path, number: 5, deed: Some(deed) };
    let builder = Process::builder().grace_period(GRACE);
    // The first process of a program opens what stays open for good.
    assert_eq!(Process::start(20u64, |n| n + 1).unwrap().join().unwrap(), 21);
    let measure = Measure::begin();
    let started = builder.start(work, self::work);
    let mut process = match started {
        // It was found out before its hello was read.
        Err(StartError::Protocol(_)) if deed.is_seen() => {
            measure.end(deed);
            say_count("typed errors", 1);
            return Duration::ZERO;
        }
        started => started.unwrap(),
    };
    let told = process.join_timeout(patience(deed));
    measure.end(deed);
    let begun = Instant::now();
    match told {
        Ok(Some(value)) => assert!(value == 15 && !deed.is_seen(), "{deed:?}: {value}"),
        Ok(None) => {
            assert!(!deed.is_seen(), "{deed:?}: nobody saw it");
            drop(process.terminate().unwrap());
        }
        Err(JoinError::AlreadyJoined) => panic!("{deed:?}: joined twice"),
        Err(error) => {
            let is_told =
                deed.verdict() != Verdict::Breach || matches!(error, JoinError::Protocol(_));
            assert!(is_told, "{deed:?}: nobody says that it broke the protocol: {error:?}");
            say_count("typed errors", 1);
        }
    }
    begun.elapsed()
}
