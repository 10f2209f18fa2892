//! How much is measured, and where it runs.

use std::str::FromStr;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// What a command line may say besides what is to be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) scale: Scale,
    pub(crate) place: Place,
}

/// How often a thing is repeated before its figure is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    /// As the workload is defined: for a single run by hand, or by another harness.
    Full,
    /// Less, since there are several rounds.
    Round,
    /// As little as shows that everything works.
    Quick,
}

/// Which CPUs the two sides of a round trip have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Left to the scheduler.
    Free,
    /// Both on one.
    Together,
    /// The parent on one, the workers on another.
    Apart,
}

impl Settings {
    pub(crate) const DEFAULT: Self = Self { scale: Scale::Full, place: Place::Free };

    /// Takes `--scale=..` and `--place=..` out of the arguments.
    pub(crate) fn take(arguments: &mut Vec<String>) -> Result<Self, String> {
        let mut settings = Self::DEFAULT;
        let mut error = None;
        arguments.retain(|argument| {
            if let Some(scale) = argument.strip_prefix("--scale=") {
                scale.parse().map_or_else(|e| error = Some(e), |scale| settings.scale = scale);
            } else if let Some(place) = argument.strip_prefix("--place=") {
                place.parse().map_or_else(|e| error = Some(e), |place| settings.place = place);
            } else {
                return true;
            }
            false
        });
        error.map_or(Ok(settings), Err)
    }

    /// The one of three that suits the scale.
    pub(crate) fn pick<T>(&self, full: T, round: T, quick: T) -> T {
        match self.scale {
            Scale::Full => full,
            Scale::Round => round,
            Scale::Quick => quick,
        }
    }

    /// Binds this process to where its own side belongs; later threads and children follow.
    pub(crate) fn take_place(&self) {
        match self.place {
            Place::Free => {}
            Place::Together | Place::Apart => pin(0),
        }
    }
}

/// Binds the calling thread to one CPU. Where there is no such CPU it stays where it is.
pub(crate) fn pin(cpu: usize) {
    let mut cpus = CpuSet::new();
    cpus.set(cpu).expect("a CPU number in range");
    if let Err(error) = sched_setaffinity(Pid::from_raw(0), &cpus) {
        eprintln!("not bound to CPU {cpu}: {error}");
    }
}

impl Place {
    /// What a case is called that runs there.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Together => "one CPU",
            Self::Apart => "two CPUs",
        }
    }

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Together => "together",
            Self::Apart => "apart",
        }
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "free" => Ok(Self::Free),
            "together" => Ok(Self::Together),
            "apart" => Ok(Self::Apart),
            _ => Err(format!("--place={text}: one of free, together, apart")),
        }
    }
}

impl Scale {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Round => "round",
            Self::Quick => "quick",
        }
    }
}

impl FromStr for Scale {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "full" => Ok(Self::Full),
            "round" => Ok(Self::Round),
            "quick" => Ok(Self::Quick),
            _ => Err(format!("--scale={text}: one of full, round, quick")),
        }
    }
}
