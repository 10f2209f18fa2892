//! When a pool whose workers are killed has replaced them all.

use std::thread;
use std::time::{Duration, Instant};

use epilogue::Pool;
use nix::unistd::getpid;
use support::{children_of, procfs};

/// How long a pool may take to replace those who were killed.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until the pool's workers are all there, and of children so many, each of which lives. `prepare`
/// is called before a look at which the workers are up.
///
/// Of a worker that is dead the pool may not know yet, and counts it among those that are up; so it is looked
/// who lives, and only then who is counted. Otherwise a sample shows the replacement half made.
pub(super) fn settled(pool: &Pool, workers: usize, children: usize, prepare: impl Fn()) {
    let begun = Instant::now();
    loop {
        if pool.stats().workers.up == workers {
            prepare();
        }
        let there = children_of(getpid());
        let living = there.iter().filter(|child| procfs::lives(**child)).count();
        let counts = pool.stats().workers;
        if counts.up == workers && living == children && there.len() == children {
            return;
        }
        assert!(
            begun.elapsed() < PATIENCE,
            "of {there:?} {living} live, not {children}: {counts:?}"
        );
        thread::yield_now();
    }
}
