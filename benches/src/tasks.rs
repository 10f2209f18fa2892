//! What the workers do: the same for every peer.

use std::hint::black_box;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::meeting;
use crate::settings::pin;
use crate::sys::process::at_exit;

/// Steps of [`spin`] that take about a millisecond on the machine of the published figures.
pub(crate) const SPIN_1MS: u64 = 650_000;

/// Where marks are left for whoever looks at how a program ends.
pub(crate) const MARKS: &str = "PROBE_DIR";

/// A task of one number, which gives a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Task {
    Square,
    /// Arithmetic for this many steps.
    Spin,
    /// As `Square`, but each tenth aborts its process.
    Fragile,
    /// Says that it is there, and waits until it is told to go on.
    Meet,
    /// As `Meet`; also leaves marks: now, and when the process runs its exit handlers.
    Probe,
    /// Sleeps for this many milliseconds, with a value whose `Drop` leaves a mark.
    Sleep,
    /// Binds the worker to that CPU, and meets the others, so that each is bound.
    Pin,
}

impl Task {
    pub(crate) fn run(self, x: u64) -> u64 {
        match self {
            Self::Square => x.wrapping_mul(x),
            Self::Spin => spin(x),
            Self::Fragile if x % 10 == 9 => std::process::abort(),
            Self::Fragile => x.wrapping_mul(x),
            Self::Meet => meet(),
            Self::Probe => probe(),
            Self::Sleep => sleep(x),
            Self::Pin => {
                pin(x as usize);
                meet()
            }
        }
    }
}

/// `steps` steps, each of which needs the one before.
fn spin(steps: u64) -> u64 {
    let mut x = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..steps {
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
    }
    black_box(x)
}

fn meet() -> u64 {
    meeting::attend();
    std::process::id().into()
}

fn probe() -> u64 {
    extern "C" fn leave() {
        mark("atexit");
    }
    at_exit(leave);
    mark("start");
    meet()
}

fn sleep(ms: u64) -> u64 {
    struct Sleeper;
    impl Drop for Sleeper {
        fn drop(&mut self) {
            mark("finally");
        }
    }
    let _sleeper = Sleeper;
    mark("busy");
    std::thread::sleep(Duration::from_millis(ms));
    0
}

fn mark(kind: &str) {
    let Some(dir) = std::env::var_os(MARKS) else { return };
    let file = PathBuf::from(dir).join(format!("{kind}.{}", std::process::id()));
    std::fs::write(file, "").expect("a place for a mark");
}

/// Lengths of tasks in steps, a few of them very long: Pareto with alpha 1.1 from a fixed
/// generator, in units of a tenth of a millisecond, at most 200 of them.
pub(crate) fn skewed(n: usize) -> Vec<u64> {
    const UNIT: f64 = (SPIN_1MS / 10) as f64;
    let mut state = 12345u64;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let uniform = (state >> 11) as f64 / (1u64 << 53) as f64;
        ((1.0 - uniform).powf(-1.0 / 1.1).min(200.0) * UNIT) as u64
    };
    (0..n).map(|_| next()).collect()
}

#[cfg(test)]
mod tests {
    use super::{SPIN_1MS, skewed};

    #[test]
    fn skewed_lengths_are_heavy_tailed_and_bounded() {
        let lengths = skewed(2000);
        let unit = SPIN_1MS / 10;
        assert!(lengths.iter().all(|steps| (unit..=200 * unit).contains(steps)));
        assert_eq!(lengths.iter().max(), Some(&(200 * unit)));
        assert!(lengths.iter().filter(|steps| **steps < 2 * unit).count() > 1000);
    }
}
