//! What is measured: a file for each workload. The README says what each of them is.

mod bulk;
mod crashes;
mod endings;
mod idle;
mod lives;
mod many_tasks;
mod one_task;
mod uneven_tasks;

use crate::figure::Printer;
use crate::limits;
use crate::peers::{self, LIMIT, python};
use crate::settings::Settings;

pub(crate) use self::endings::{SCENARIOS, run as endings};

use self::lives::tree;
pub(crate) use self::lives::{Life, memory};

/// The workloads that print figures; the endings of W8 are looked at from outside.
pub(crate) const NAMES: [&str; 8] = ["W1", "W2", "W3", "W4", "W5", "W6", "W7", IDLE];
pub(crate) const IDLE: &str = "idle";

/// Runs one workload on one peer, in this process, and prints its figures.
pub(crate) fn run(workload: &str, peer: &str, settings: Settings) -> Result<(), String> {
    if !peers::exists(peer) && peer != LIMIT {
        return Err(format!("there is no peer {peer}"));
    }
    let print = Printer { workload, peer };
    settings.take_place();
    match (workload, peer) {
        ("W1", LIMIT) => limits::w1(print, settings),
        ("W2", LIMIT) => limits::w2(print, settings),
        ("W3", LIMIT) => limits::w3(print, settings),
        ("W4", LIMIT) => limits::w4(print, settings),
        (workload, LIMIT) => return Err(format!("{workload} has no limit to be measured")),
        ("W1", peer) if python::is_python(peer) => return Err(python::squares(peer, settings)),
        (_, peer) if python::is_python(peer) => return Err(format!("{peer} does W1 only")),
        ("W1", _) => many_tasks::run(print, settings),
        ("W2", _) => one_task::run(print, settings),
        ("W3", _) => lives::run(print, settings),
        ("W4", _) => bulk::run(print, settings),
        ("W5", _) => uneven_tasks::even(print, settings),
        ("W6", _) => uneven_tasks::skewed(print, settings),
        ("W7", _) => crashes::run(print, settings),
        (IDLE, _) => idle::run(print, settings),
        _ => return Err(format!("there is no workload {workload}")),
    }
    Ok(())
}

/// Who does a workload, in the order of the tables.
pub(crate) fn peers_of(workload: &str) -> &'static [&'static str] {
    use peers::{IPC_CHANNEL, OURS, OURS_ZYGOTE, PROCSPAWN, RAYON, THREADS};
    match workload {
        "W1" => {
            use python::{EXECUTOR, MP_POOL};
            &[OURS, LIMIT, THREADS, RAYON, IPC_CHANNEL, PROCSPAWN, MP_POOL, EXECUTOR]
        }
        "W2" => &[OURS, LIMIT, THREADS, RAYON, IPC_CHANNEL, PROCSPAWN],
        "W3" => &[OURS, OURS_ZYGOTE, LIMIT, THREADS, RAYON, IPC_CHANNEL, PROCSPAWN],
        "W4" => &[OURS, LIMIT, IPC_CHANNEL, PROCSPAWN],
        "W5" | "W6" => &[OURS, THREADS, RAYON, IPC_CHANNEL, PROCSPAWN],
        "W7" => &[OURS, OURS_ZYGOTE, PROCSPAWN],
        "W8" => &[OURS, OURS_ZYGOTE, IPC_CHANNEL, PROCSPAWN],
        _ => &[OURS, OURS_ZYGOTE, IPC_CHANNEL, PROCSPAWN],
    }
}
