//! What epilogue costs, measured beside the limits of the machine and its peers. The README says
//! how to run it, and what each workload is.

mod compare;
mod counted;
mod figure;
mod growth;
mod limits;
mod meeting;
mod payload;
mod peers;
mod settings;
mod sys;
mod tasks;
mod timing;
mod workloads;

use std::process::ExitCode;

use compare::Plan;
use settings::{Scale, Settings};

fn main() -> ExitCode {
    procspawn::init();
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = Settings::take(&mut arguments).and_then(|settings| {
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        dispatch(&words, settings)
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("benches: {message}");
            ExitCode::from(2)
        }
    }
}

fn dispatch(words: &[&str], settings: Settings) -> Result<(), String> {
    let (flags, words): (Vec<&str>, Vec<&str>) = words.iter().partition(|w| w.starts_with("--"));
    let compares = words.is_empty() || matches!(words[..], [one] if is_workload(one));
    if let (false, [flag, ..]) = (compares, &flags[..]) {
        return Err(format!("{flag} is not known here: --scale=.., --place=.."));
    }
    match words[..] {
        [limits::NOTHING] => Ok(()),
        [peers::IPC_WORKER, server, number] => {
            peers::ipc_worker(server, number.parse().map_err(|_| "a worker without a number")?);
            Ok(())
        }
        [growth::NAME, kind, size, way] => growth::cell(kind, size, way),
        ["count", path, times] => counted::run(path, times),
        [growth::NAME] => growth::run(),
        ["W8", peer, scenario] => workloads::endings(peer, scenario),
        [workload, peer] => workloads::run(workload, peer, settings),
        [] => compare::run(&plan(None, &flags)?),
        [workload] if compares => compare::run(&plan(Some(workload), &flags)?),
        _ => Err("what to run is said in its README".into()),
    }
}

fn is_workload(name: &str) -> bool {
    name == "W8" || workloads::NAMES.contains(&name)
}

fn plan(only: Option<&str>, flags: &[&str]) -> Result<Plan, String> {
    let mut plan = Plan { only: only.map(str::to_owned), rounds: 5, scale: Scale::Round };
    for flag in flags {
        if *flag == "--quick" {
            (plan.rounds, plan.scale) = (1, Scale::Quick);
        } else if let Some(rounds) = flag.strip_prefix("--rounds=") {
            let rounds = rounds.parse().ok().filter(|rounds| *rounds > 0);
            plan.rounds = rounds.ok_or(format!("{flag}: not a number of rounds"))?;
        } else {
            return Err(format!("{flag} is not known: --quick, --rounds=N"));
        }
    }
    Ok(plan)
}
