//! How much of the machine others had while something was measured.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use nix::unistd::{SysconfVar, sysconf};

/// The counts at the beginning of a measurement.
pub(super) struct Noise {
    start: Instant,
    busy: f64,
    own: f64,
}

impl Noise {
    /// The share of the machine above which a figure is not trusted.
    pub(super) const LIMIT: f64 = 0.15;

    pub(super) fn begin() -> Self {
        Self { start: Instant::now(), busy: busy_seconds(), own: own_seconds() }
    }

    /// The share of all CPUs that others had since then. To be asked when all that was started
    /// has been reaped.
    pub(super) fn end(self) -> f64 {
        let time = self.start.elapsed().as_secs_f64();
        let foreign = (busy_seconds() - self.busy) - (own_seconds() - self.own);
        (foreign / time / cpus()).max(0.0)
    }

    /// Waits until others are quiet, a short while at most.
    pub(super) fn wait_for_quiet() {
        const PATIENCE: Duration = Duration::from_secs(1);
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            let before = busy_seconds();
            thread::sleep(Duration::from_millis(100));
            if (busy_seconds() - before) / 0.1 / cpus() < Self::LIMIT {
                return;
            }
        }
    }
}

fn cpus() -> f64 {
    thread::available_parallelism().map_or(1.0, |n| n.get() as f64)
}

/// CPU time of all processes of the machine, and of others that it shares its CPUs with.
fn busy_seconds() -> f64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    let ticks: Vec<f64> = line.split_whitespace().skip(1).take(8).flat_map(str::parse).collect();
    let [_, _, _, idle, waiting, ..] = ticks[..] else { return 0.0 };
    let a_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
    (ticks.iter().sum::<f64>() - idle - waiting) / a_second as f64
}

/// CPU time of this process, and of its children that have been reaped.
fn own_seconds() -> f64 {
    let of = |who| {
        let usage = getrusage(who).expect("our own usage");
        let us = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
        us as f64 / 1e6
    };
    of(UsageWho::RUSAGE_CHILDREN) + of(UsageWho::RUSAGE_SELF)
}
