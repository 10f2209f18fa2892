//! The life-cycle table: a fault at every step of a worker's life at which a program may run code of its
//! own, of every kind, in a pool, a process and a scope, which ends it through its handle or by itself.
//! What there is for the steps between is in `FIGURES.md`, among what is not held.
//!
//! The faults are injected by what a program may do anyway, so no build has hooks for them: a
//! constructor that runs before the library's, an initializer, the (de)serialization of an argument
//! and a result, a callback, a finalizer, an `atexit` handler, a thread that hits the answer. Each
//! is done once in a case, by the first process to come to that step. The mark that says so also says
//! when: from then on, or from the request to end if that came first, the time to the end is measured.

mod owners;
mod worker;

use std::env;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use epilogue::StartMethod;
use support::Oracle;

use super::Scenario;
use crate::case::Case;
use crate::figures::Figures;
use crate::seed::Seed;
use worker::reach;

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "life",
    story: "eleven steps of a life x KILL, STOP, TERM, exit, hang x pool, process, scope",
    cases: |_| cells().count() as u64,
    patience: |_| Duration::from_secs(30),
    least: None,
    case,
    subject,
};

/// Where a worker is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Before the library's own first instruction. A server's, where there is one: what it forks has none.
    First,
    /// Prepared, and about to say hello.
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
    /// Never comes back, of a finalizer, and uses a CPU.
    Spin,
    /// Never comes back, of a finalizer, and waits for itself.
    Deadlock,
}

impl Fault {
    /// Whether whoever is hit is there until somebody ends it.
    fn stays(self) -> bool {
        match self {
            Self::Stop | Self::Spin | Self::Deadlock => true,
            Self::Kill | Self::Term | Self::Exit => false,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Pool,
    Process,
    /// Through the handle of a process that was started in it.
    Scope,
    /// By itself, as it returns or panics, with that handle leaked.
    ScopeEnd,
}

#[derive(Debug, Clone, Copy)]
struct Cell(Step, Fault, Owner, StartMethod);

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(step, fault, owner, method) = self;
        write!(f, "{step:?} {fault:?} {owner:?} {method:?}")
    }
}

fn cells() -> impl Iterator<Item = Cell> {
    let faults = [Fault::Kill, Fault::Stop, Fault::Term, Fault::Exit, Fault::Spin, Fault::Deadlock];
    let owners = [Owner::Pool, Owner::Process, Owner::Scope, Owner::ScopeEnd];
    // New ones come last: a case has its number.
    let all = [StartMethod::Spawn, StartMethod::Server].into_iter().flat_map(move |method| {
        STEPS.iter().flat_map(move |&step| {
            let of = move |fault| owners.map(|owner| Cell(step, fault, owner, method));
            faults.into_iter().flat_map(of)
        })
    });
    // What a task may do for ever is its user's business; a finalizer has its time.
    let all = all.filter(|Cell(step, fault, ..)| {
        *step == Finalizing || !matches!(fault, Fault::Spin | Fault::Deadlock)
    });
    all.filter(|Cell(step, _, owner, _)| match step {
        // A process is done when its function is.
        Idle | Recovering => *owner == Owner::Pool,
        _ => true,
    })
}

/// From the fault, or the request to end if that came first, to the end of all.
const GRACE: Duration = Duration::from_millis(400);
/// From the call that starts a process to its error, where the process is stopped before its hello.
const START: Duration = Duration::from_millis(400);
/// What either may take longer, on a busy machine.
const SPARE: Duration = Duration::from_millis(500);

const STEP: &str = "CHAOS_STEP";
const FIRED: &str = "CHAOS_FIRED";

fn case(case: &mut Case) -> Figures {
    let Some(cell) = cells().nth(case.seed.case as usize) else { panic!("no such cell") };
    let directory = tempfile::tempdir().unwrap();
    let fired = directory.path().join("fired");
    let mut command = case.command(&[]);
    command.env(STEP, format!("{cell}")).env(FIRED, &fired);
    let mut figures = case.ends_well(&mut command, Duration::ZERO);
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
    initialize_again();
}

/// What a worker comes to that is one's replacement, as early as it may.
fn initialize_again() {
    // It is there once the first worker has been killed.
    if fired().with_extension("killed").exists() {
        reach(Recovering);
    }
}

/// What runs in a process before its function. One that was forked has no earlier moment.
fn initialize() {
    reach(Initializing);
    initialize_again();
}

fn subject(_: Seed, _: &[String]) {
    let oracle = Oracle::begin();
    let cell = cell().unwrap();
    match cell.2 {
        Owner::Pool => owners::pool(cell),
        Owner::Process => owners::process(cell),
        Owner::Scope => owners::scoped(cell),
        Owner::ScopeEnd => owners::left_to_its_scope(cell),
    }
    epilogue::end_servers();
    oracle.nothing_left();
}
