//! The life-cycle table: a fault at every step of a worker's life, of every kind, in a pool, a
//! process and a scope.
//!
//! The faults are injected by what a program may do anyway, so no build has hooks for them: a
//! constructor that runs before the library's, an initializer, the (de)serialization of an argument
//! and a result, a callback, a finalizer, an `atexit` handler, a thread that hits the answer. Each
//! is done once in a case, by the first process to come to that step.

use std::env;
use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use epilogue::process::Builder;
use epilogue::{BuildError, JoinError, Pool, Process, TaskError, embed, scope};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{getpid, gettid};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use support::{Oracle, park_for_ever, procfs, sys};

use super::Scenario;
use crate::case::Case;
use crate::figures::{Figures, say_worst};
use crate::seed::Seed;

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "life",
    story: "every step of a life x KILL, STOP, TERM, exit x pool, process, scope",
    cases: |_| cells().count() as u64,
    patience: |_| Duration::from_secs(30),
    case,
    subject,
};

/// Where a worker is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Before the library's own first instruction.
    First,
    /// Prepared, and about to say hello. A pool has no such step of its user's.
    Initializing,
    Decoding,
    Running,
    Encoding,
    /// In the middle of an answer that is too long for any buffer.
    Answering,
    /// With nothing to do.
    Idle,
    /// Asked to stop in the middle of a task.
    Stopping,
    Finalizing,
    /// After the finalizers.
    Exiting,
    /// As a replacement for one that was killed.
    Recovering,
}

use Step::{
    Answering, Decoding, Encoding, Exiting, Finalizing, First, Idle, Initializing, Recovering,
    Running, Stopping,
};

const STEPS: [Step; 11] = [
    First,
    Initializing,
    Decoding,
    Running,
    Encoding,
    Answering,
    Idle,
    Stopping,
    Finalizing,
    Exiting,
    Recovering,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Kill,
    Stop,
    Term,
    Exit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Pool,
    Process,
    Scope,
}

#[derive(Debug, Clone, Copy)]
struct Cell(Step, Fault, Owner);

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(step, fault, owner) = self;
        write!(f, "{step:?} {fault:?} {owner:?}")
    }
}

fn cells() -> impl Iterator<Item = Cell> {
    let faults = [Fault::Kill, Fault::Stop, Fault::Term, Fault::Exit];
    let owners = [Owner::Pool, Owner::Process, Owner::Scope];
    let all = STEPS.iter().flat_map(move |&step| {
        faults.into_iter().flat_map(move |fault| owners.map(|owner| Cell(step, fault, owner)))
    });
    all.filter(|Cell(step, _, owner)| match step {
        Initializing => *owner != Owner::Pool,
        // A process is done when its function is.
        Idle | Recovering => *owner == Owner::Pool,
        _ => true,
    })
}

const GRACE: Duration = Duration::from_millis(400);
/// From the last request to the end, and to spare for a busy machine.
const SPARE: Duration = Duration::from_millis(500);

const STEP: &str = "CHAOS_STEP";
const FIRED: &str = "CHAOS_FIRED";

fn case(case: &mut Case) -> Figures {
    let Some(cell) = cells().nth(case.seed.case as usize) else { panic!("no such cell") };
    let directory = tempfile::tempdir().unwrap();
    let fired = directory.path().join("fired");
    let mut command = case.command(&[]);
    command.env(STEP, format!("{cell}")).env(FIRED, &fired);
    let mut figures = case.ends_well(&mut command, SPARE);
    assert!(fired.exists(), "{cell}: the fault never happened");
    figures.count("cells", 1);
    figures
}

/// The cell of this process, if it is of this scenario.
fn cell() -> Option<Cell> {
    let wanted = env::var(STEP).ok()?;
    cells().find(|cell| cell.to_string() == wanted)
}

fn fired() -> PathBuf {
    env::var_os(FIRED).map(PathBuf::from).unwrap_or_default()
}

/// Whether this process is a child. The library removes the variable later.
fn is_child() -> bool {
    env::vars_os().any(|(name, _)| name.to_string_lossy().starts_with("EPILOGUE_CHILD"))
}

/// What runs before the library.
pub(crate) fn first_instruction() {
    if env::var_os(STEP).is_none() || !is_child() {
        return;
    }
    reach(First);
    // It is there once the first worker has been killed.
    if fired().with_extension("killed").exists() {
        reach(Recovering);
    }
}

/// This process has come to that step: the fault happens, if it is the one and did not happen yet.
fn reach(step: Step) {
    let Some(Cell(wanted, fault, _)) = cell() else { return };
    if step == wanted && File::create_new(fired()).is_ok() {
        // In the middle of an exit there is no other exit.
        let is_leaving = matches!(step, First | Recovering | Finalizing | Exiting);
        match fault {
            Fault::Kill => kill(getpid(), Signal::SIGKILL).unwrap(),
            Fault::Stop => kill(getpid(), Signal::SIGSTOP).unwrap(),
            Fault::Term => kill(getpid(), Signal::SIGTERM).unwrap(),
            Fault::Exit if is_leaving => sys::exit_now(3),
            Fault::Exit => std::process::exit(3),
        }
    }
}

/// What a task takes: a number that is hard to read in the cell that wants it so.
#[derive(Debug)]
struct Argument(u64);

impl Serialize for Argument {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Argument {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        reach(Decoding);
        u64::deserialize(deserializer).map(Self)
    }
}

/// What it gives, which is hard to write.
#[derive(Debug)]
struct Answer(u64, Vec<u8>);

impl Serialize for Answer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        reach(Encoding);
        (self.0, &self.1).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Answer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Deserialize::deserialize(deserializer).map(|(number, bytes)| Self(number, bytes))
    }
}

extern "C" fn at_exit() {
    reach(Exiting);
}

fn work(Argument(number): Argument) -> Answer {
    let Some(Cell(step, ..)) = cell() else { panic!("no cell") };
    match step {
        Running => reach(Running),
        Finalizing => drop(embed::finalizer("faulty", || reach(Finalizing))),
        Exiting => sys::at_exit(at_exit),
        Stopping => {
            embed::on_stop(|_| reach(Stopping));
            fs::write(fired().with_extension(format!("begun-{number}")), "").unwrap();
            park_for_ever();
        }
        Recovering if File::create_new(fired().with_extension("killed")).is_ok() => {
            kill(getpid(), Signal::SIGKILL).unwrap();
        }
        Answering => {
            let (main, answer) = (gettid(), Answer(number, vec![7; 8 << 20]));
            thread::spawn(move || {
                let sleeps = || {
                    procfs::threads_of(getpid()).iter().any(|it| it.pid == main && it.state == 'S')
                };
                await_until(sleeps);
                reach(Answering);
            });
            return answer;
        }
        Idle => drop(thread::spawn(|| {
            await_until(|| fired().with_extension("answered").exists());
            reach(Idle);
        })),
        First | Initializing | Decoding | Encoding | Recovering => {}
    }
    Answer(number, vec![7; 9])
}

/// A look now and then: what is awaited is in other processes, which may be gone.
fn await_until(is_so: impl Fn() -> bool) {
    while !is_so() {
        thread::sleep(Duration::from_millis(1));
    }
}

fn subject(_: Seed, _: &[String]) {
    let oracle = Oracle::begin();
    let cell = cell().unwrap();
    let took = match cell.2 {
        Owner::Pool => pool(cell),
        Owner::Process => process(cell),
        Owner::Scope => scope(|processes| {
            let start = |n| processes.start_with(builder(), n, |n: u64| n);
            let others = [1, 2].map(start);
            let took = process(cell);
            for (n, other) in (1..).zip(others) {
                match other {
                    Ok(other) => assert_eq!(other.join().unwrap(), n),
                    Err(error) => assert_eq!(cell.0, First, "{error}"),
                }
            }
            took
        }),
    };
    oracle.nothing_left();
    assert!(took <= GRACE + SPARE, "{cell}: {took:?}");
    say_worst("ended", took);
}

/// Whether the one that is hit has to be stopped: it would go on for ever.
fn needs_stop(Cell(step, fault, _): Cell) -> bool {
    step == Stopping || (fault == Fault::Stop && !matches!(step, Finalizing | Exiting))
}

/// How long it took from the last request to the end.
fn pool(cell: Cell) -> Duration {
    let Cell(step, fault, _) = cell;
    let builder = Pool::builder().workers(2).grace_period(GRACE);
    let pool = match builder.clone().start() {
        Err(error) if step == First => {
            assert!(matches!(error, BuildError::Worker(_)), "{error}");
            builder.start().unwrap()
        }
        started => started.unwrap(),
    };
    let submit = |number| pool.submit(Argument(number), work).unwrap();
    let tasks: Vec<_> = (0..6).map(submit).collect();
    if step == Stopping {
        await_until(|| (0..6).filter(|n| begun(&fired(), *n)).count() == 2);
    } else if step == Recovering || (fault == Fault::Stop && needs_stop(cell) && step != Idle) {
        await_until(|| fired().exists());
    }
    let begun = Instant::now();
    let outcomes = if needs_stop(cell) && step != Idle {
        let report = pool.terminate().unwrap();
        assert!(report.workers.len() >= 2, "{report}");
        tasks.into_iter().map(|task| task.join()).collect::<Vec<_>>()
    } else {
        // Nobody reads an answer until then.
        if step == Answering {
            await_until(|| fired().exists());
        }
        tasks.into_iter().map(|task| task.join()).collect()
    };
    let (mut lost, mut cancelled) = (0, 0);
    for (number, outcome) in outcomes.into_iter().enumerate() {
        match outcome {
            Ok(Answer(value, bytes)) => {
                assert!(value == number as u64 && bytes.iter().all(|&byte| byte == 7));
            }
            Err(TaskError::WorkerLost(_)) => lost += 1,
            Err(TaskError::Cancelled { .. }) => cancelled += 1,
            Err(error) => panic!("{cell}, task {number}: {error}"),
        }
    }
    assert!(cancelled == 0 || needs_stop(cell), "{cell}: {cancelled} cancelled");
    let guilty = u64::from(step == Recovering) + 1;
    assert!(lost <= guilty, "{cell}: {lost} lost");
    if step == Idle {
        fs::write(fired().with_extension("answered"), "").unwrap();
        await_until(|| fired().exists());
        if fault != Fault::Stop {
            assert_eq!(pool.map(0..4u64, |x| x).unwrap(), [0, 1, 2, 3], "{cell}: afterwards");
        }
    }
    let (begun, report) = match needs_stop(cell) {
        true if step == Idle => (Instant::now(), pool.terminate().unwrap()),
        true => (begun, pool.close().unwrap()),
        false => (Instant::now(), pool.close().unwrap()),
    };
    assert_eq!(report.lost, lost, "{report}");
    begun.elapsed()
}

fn begun(fired: &Path, number: u64) -> bool {
    fired.with_extension(format!("begun-{number}")).exists()
}

fn builder() -> Builder {
    Process::builder().grace_period(GRACE).start_deadline(GRACE)
}

fn process(cell: Cell) -> Duration {
    let Cell(step, fault, _) = cell;
    let begun_at = Instant::now();
    let started = builder().initializer(|| reach(Initializing)).start(Argument(3), work);
    let process = match started {
        Ok(process) => process,
        Err(error) => {
            assert!(matches!(step, First | Initializing | Decoding), "{cell}: {error}");
            return begun_at.elapsed().saturating_sub(GRACE);
        }
    };
    match step {
        Stopping => await_until(|| begun(&fired(), 3)),
        // Nobody reads an answer until then.
        Answering => await_until(|| fired().exists()),
        _ if needs_stop(cell) => await_until(|| fired().exists()),
        _ => {}
    }
    let begun = Instant::now();
    if needs_stop(cell) {
        let _ = process.terminate().unwrap();
    } else {
        match process.join() {
            Ok(Answer(value, bytes)) => assert!(value == 3 && bytes.iter().all(|&byte| byte == 7)),
            Err(JoinError::Signaled { .. } | JoinError::Exited(_)) if fault != Fault::Stop => {}
            Err(error) => assert!(fault == Fault::Stop, "{cell}: {error}"),
        }
    }
    begun.elapsed()
}
