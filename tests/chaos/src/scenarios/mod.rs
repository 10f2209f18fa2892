//! The scenarios, a file each: what is done to a program, and the program.

mod hostile;
mod kills;
mod ledger;
mod life;
mod nth;
mod outcome;
mod parent;
mod resources;
mod settled;
mod soak;
mod storm;
mod syscalls;
mod workload;

use std::time::Duration;

pub(crate) use life::first_instruction;

use crate::case::Case;
use crate::cli::Extent;
use crate::figures::Figures;
use crate::seed::Seed;

/// One kind of fault.
#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) story: &'static str,
    /// How many cases it has.
    pub(crate) cases: fn(Extent) -> u64,
    /// How long a case may take before it hangs.
    pub(crate) patience: fn(Extent) -> Duration,
    /// What has to come of many cases.
    pub(crate) least: Option<Least>,
    /// Tries one case; panics if something is wrong.
    pub(crate) case: fn(&mut Case) -> Figures,
    /// The program of a case.
    pub(crate) subject: fn(Seed, &[String]),
}

/// Two counts, of which the first has to be half of the second at least.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Least {
    pub(crate) what: &'static str,
    pub(crate) of: &'static str,
}

pub(crate) static ALL: &[Scenario] = &[
    kills::SCENARIO,
    parent::SCENARIO,
    storm::SCENARIO,
    life::SCENARIO,
    syscalls::SCENARIO,
    nth::SCENARIO,
    resources::SCENARIO,
    hostile::SCENARIO,
    soak::SCENARIO,
];

pub(crate) fn find(name: &str) -> Option<&'static Scenario> {
    ALL.iter().find(|scenario| scenario.name == name)
}

/// Does something however a part of a program is left: a failure must not wait for what it would
/// have asked to end.
struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
