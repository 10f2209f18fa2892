//! The comparison: every workload on every peer, in turn, in rounds. Each run is a process and a
//! session of its own, this program again; what differs between rounds is the machine's mood.

mod endings;
mod goals;
pub(crate) mod machine;
mod noise;
mod report;
mod results;
pub(crate) mod session;

use std::time::{Duration, Instant};

use self::noise::Noise;
use self::results::Results;
use crate::peers::{OURS, RAYON, THREADS, python};
use crate::settings::{Place, Scale};
use crate::workloads::{IDLE, NAMES, peers_of};

/// What is to be compared.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Only this workload, or all.
    pub(crate) only: Option<String>,
    pub(crate) rounds: usize,
    pub(crate) scale: Scale,
}

/// For one run: far more than any takes.
const PATIENCE: Duration = Duration::from_secs(120);
/// While the comparison is younger than this, a run that others disturbed is done again.
const AGAIN_BEFORE: Duration = Duration::from_secs(3 * 60);

/// What mostly waits, and comes out the same each time: three rounds of it are enough.
const SLOW: [&str; 2] = ["W8", IDLE];
const SLOW_ROUNDS: usize = 3;

/// One run.
#[derive(Debug, Clone, Copy)]
struct Cell {
    workload: &'static str,
    peer: &'static str,
    place: Place,
}

/// Runs the plan, prints the tables, and writes the file of results where all of it was run.
pub(crate) fn run(plan: &Plan) -> Result<(), String> {
    nix::sys::prctl::set_child_subreaper(true).map_err(|error| format!("subreaper: {error}"))?;
    let start = Instant::now();
    let wanted = |name: &str| plan.only.as_deref().is_none_or(|only| only == name);
    let has_python = python::is_there();
    if !has_python {
        eprintln!("there is no python3 here: its pools are NOT measured");
    }
    let mut results = Results::new(plan.rounds);
    for round in 0..plan.rounds {
        let due = |name: &str| wanted(name) && (round < SLOW_ROUNDS || !SLOW.contains(&name));
        for workload in NAMES.into_iter().filter(|name| due(name)) {
            let is_possible = |cell: &Cell| has_python || !python::is_python(cell.peer);
            for cell in cells(workload, round).into_iter().filter(is_possible) {
                let again = start.elapsed() < AGAIN_BEFORE && plan.scale != Scale::Quick;
                measure(cell, round, plan.scale, again, &mut results);
            }
        }
        if due("W8") {
            for peer in in_turn(peers_of("W8"), round) {
                // Peers that leave processes behind make no better smoke test of ours.
                if plan.scale != Scale::Quick || peer.starts_with(OURS) {
                    results.endings.extend(endings::run(peer));
                }
            }
        }
        eprintln!("round {} of {}: {:.0?}", round + 1, plan.rounds, start.elapsed());
    }
    let report = report::write(plan, &results, start.elapsed());
    println!("{report}");
    if plan.only.is_none() && plan.scale != Scale::Quick {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/RESULTS.md");
        std::fs::write(file, report).map_err(|error| format!("{file}: {error}"))?;
    }
    match results.failures() {
        0 => Ok(()),
        n => Err(format!("{n} runs failed")),
    }
}

/// The runs of a workload. Who comes first changes from round to round.
fn cells(workload: &'static str, round: usize) -> Vec<Cell> {
    let places: &[Place] = match workload {
        "W2" => &[Place::Free, Place::Together, Place::Apart],
        _ => &[Place::Free],
    };
    let with_places = |peer| places.iter().map(move |place| Cell { workload, peer, place: *place });
    let cells = in_turn(peers_of(workload), round).flat_map(with_places);
    // The threads of a pool of threads are where their process is.
    let possible =
        |cell: &Cell| cell.place != Place::Apart || ![THREADS, RAYON].contains(&cell.peer);
    cells.filter(possible).collect()
}

fn in_turn(peers: &'static [&'static str], round: usize) -> impl Iterator<Item = &'static str> {
    let from = round % peers.len();
    peers[from..].iter().chain(&peers[..from]).copied()
}

fn measure(cell: Cell, round: usize, scale: Scale, again: bool, results: &mut Results) {
    let mut best = once(cell, scale);
    if again && best.noise > Noise::LIMIT {
        let second = once(cell, scale);
        if second.noise < best.noise && second.failure.is_none() {
            best = second;
        }
    }
    if let Some(failure) = &best.failure {
        eprintln!("{failure}");
    }
    results.add(round, cell.place, best);
}

fn once(cell: Cell, scale: Scale) -> session::Finished {
    let place = format!("--place={}", cell.place.word());
    let scale_word = format!("--scale={}", scale.word());
    if scale != Scale::Quick {
        Noise::wait_for_quiet();
    }
    session::run(&[cell.workload, cell.peer, &place, &scale_word], PATIENCE)
}
