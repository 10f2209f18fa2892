//! The command line, and a run from its first case to its figures.

use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use signal_hook::consts::SIGTERM;

use crate::case::Case;
use crate::figures::{Figures, Tried};
use crate::scenarios::{self, Least, Scenario};
use crate::seed::Seed;
use crate::tally::Tally;

/// The seed of a run that names none: figures are compared with those of this one.
const SEED: u64 = 0x5EED_0008;

/// How long a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    /// Before each change.
    Ci,
    /// By hand: for the figures.
    Full,
}

/// How much of a scenario.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent {
    pub(crate) length: Length,
    pub(crate) seconds: Option<u64>,
}

impl Extent {
    /// One of two, by the length.
    pub(crate) fn either<T>(self, ci: T, full: T) -> T {
        match self.length {
            Length::Ci => ci,
            Length::Full => full,
        }
    }
}

/// What the command line asks for.
pub(crate) enum Command {
    Run(Vec<Plan>),
    /// This is the program of a case.
    Subject {
        scenario: &'static Scenario,
        case: Seed,
        arguments: Vec<String>,
    },
}

/// A scenario, and how much of it.
pub(crate) struct Plan {
    scenario: &'static Scenario,
    seed: u64,
    extent: Extent,
    cases: Option<u64>,
    only: Option<u64>,
}

pub(crate) fn usage() -> String {
    let mut text =
        "usage: chaos SCENARIO [--ci] [--seed N] [--cases N] [--seconds N] [--case K]\n\n\
                    scenarios, or `all`:\n"
            .to_owned();
    for scenario in scenarios::ALL {
        text += &format!("  {:10} {}\n", scenario.name, scenario.story);
    }
    text + "\n--ci       the size of a run before each change\n\
            --seed     another run than the usual one\n\
            --cases    how many cases, from the first on\n\
            --seconds  begin no case after so many, and fail with --ci if one is left; of `soak`, how long it goes on\n\
            --case     this one alone: what a failure says to replay it\n\n\
            When it is sent SIGTERM, it begins no other case."
}

pub(crate) fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Command, String> {
    let name = arguments.next().ok_or("no scenario")?;
    if name == "subject" {
        return subject(arguments);
    }
    let scenarios: Vec<&'static Scenario> = match name.as_str() {
        "all" => scenarios::ALL.iter().collect(),
        name => vec![scenarios::find(name).ok_or(format!("no such scenario: {name}"))?],
    };
    let (mut seed, mut length) = (SEED, Length::Full);
    let (mut cases, mut seconds, mut only) = (None, None, None);
    while let Some(option) = arguments.next() {
        let mut number = || {
            let value = arguments.next().ok_or(format!("{option} needs a number"))?;
            let parsed = match value.strip_prefix("0x") {
                Some(hex) => u64::from_str_radix(hex, 16),
                None => value.parse(),
            };
            parsed.map_err(|error| format!("{option} {value}: {error}"))
        };
        match option.as_str() {
            "--ci" => length = Length::Ci,
            "--seed" => seed = number()?,
            "--cases" => cases = Some(number()?),
            "--seconds" => seconds = Some(number()?),
            "--case" => only = Some(number()?),
            other => return Err(format!("no such option: {other}")),
        }
    }
    let extent = Extent { length, seconds };
    let plan = |scenario| Plan { scenario, seed, extent, cases, only };
    Ok(Command::Run(scenarios.into_iter().map(plan).collect()))
}

fn subject(mut arguments: impl Iterator<Item = String>) -> Result<Command, String> {
    let name = arguments.next().ok_or("no scenario")?;
    let scenario = scenarios::find(&name).ok_or("no such scenario")?;
    let mut number = || arguments.next().and_then(|number| number.parse().ok());
    let (run, case) = number().zip(number()).ok_or("no case")?;
    Ok(Command::Subject { scenario, case: Seed { run, case }, arguments: arguments.collect() })
}

impl Plan {
    /// Runs it and prints its figures: whether all is well.
    pub(crate) fn run(&self) -> bool {
        let Self { scenario, seed, extent, .. } = *self;
        // A failed assertion is the verdict on a case, which is printed once.
        panic::set_hook(Box::new(|_| ()));
        let stop = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(SIGTERM, Arc::clone(&stop)).unwrap();
        let (begun, mut figures) = (Instant::now(), Figures::default());
        let mut tally = Tally::default();
        let count = self.cases.unwrap_or_else(|| (scenario.cases)(extent));
        let all = self.only.map_or(0..count, |only| only..only + 1);
        for case in all.clone() {
            let most = extent.seconds.map(Duration::from_secs);
            if most.is_some_and(|most| begun.elapsed() >= most) || stop.load(Ordering::Relaxed) {
                tally.not_begun = all.end - case;
                break;
            }
            match Case::run(scenario, Seed { run: seed, case }, extent) {
                Ok(found) => {
                    match found.tried() {
                        Tried::Yes => tally.passed += 1,
                        Tried::Refused => tally.not_tried += 1,
                        Tried::NotReached => tally.not_reached += 1,
                    }
                    figures.add(found);
                }
                Err(problem) => {
                    tally.failed += 1;
                    println!("{} failed: {problem}", scenario.name);
                    println!("{}", self.again(case));
                }
            }
        }
        drop(panic::take_hook());
        let took = begun.elapsed().as_secs_f64();
        println!("{}: seed {seed:#x}, {figures}", scenario.name);
        println!("{}: {tally} in {took:.1} s", scenario.name);
        let problem = tally.problem(extent.length).or_else(|| too_few(scenario.least, &figures));
        if let Some(problem) = &problem {
            println!("{} failed: {problem}", scenario.name);
        }
        tally.failed == 0 && problem.is_none()
    }

    /// The command line that replays a case.
    fn again(&self, case: u64) -> String {
        let Self { scenario, seed, extent, .. } = self;
        let mut line = format!("again: chaos {} --seed {seed:#x} --case {case}", scenario.name);
        if let Some(seconds) = extent.seconds {
            line += &format!(" --seconds {seconds}");
        }
        line
    }
}

/// Of how many at least a share is asked for: of fewer, chance may leave none.
const MANY: u64 = 100;

/// Whether too few of something were counted: a run in which nobody came that far shows nothing of it.
fn too_few(least: Option<Least>, figures: &Figures) -> Option<String> {
    let Least { what, of } = least?;
    let [counted, all] = [what, of].map(|what| figures.counted(what));
    (all >= MANY && counted < all / 2).then(|| format!("of {all} {of} only {counted} {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_how_to_replay_it_with_the_seconds_that_were_given() {
        let again = |seconds| {
            let extent = Extent { length: Length::Full, seconds };
            let scenario = scenarios::find("soak").unwrap();
            Plan { scenario, seed: 0x2a, extent, cases: None, only: None }.again(3)
        };
        assert_eq!(again(None), "again: chaos soak --seed 0x2a --case 3");
        assert_eq!(again(Some(60)), "again: chaos soak --seed 0x2a --case 3 --seconds 60");
    }

    #[test]
    fn of_many_parents_half_as_many_processes_have_to_have_finalized() {
        let least = Some(Least { what: "finalized", of: "parents" });
        let of = |parents, finalized| {
            let mut figures = Figures::default();
            figures.count("parents", parents);
            figures.count("finalized", finalized);
            too_few(least, &figures)
        };
        assert_eq!((of(500, 250), of(99, 0)), (None, None));
        assert_eq!(of(500, 249).unwrap(), "of 500 parents only 249 finalized");
        assert_eq!(too_few(None, &Figures::default()), None);
    }
}
