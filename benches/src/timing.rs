//! Clocks and middles.

use std::time::{Duration, Instant};

/// Seconds that `f` takes, and what it gives.
pub(crate) fn seconds<T>(f: impl FnOnce() -> T) -> (f64, T) {
    let start = Instant::now();
    let value = f();
    (start.elapsed().as_secs_f64(), value)
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Median seconds of `runs` runs after one that is not counted; where that one takes long, it is
/// the figure.
pub(crate) fn typical(runs: usize, mut f: impl FnMut()) -> f64 {
    const LONG: f64 = 1.5;
    let first = seconds(&mut f).0;
    if first > LONG {
        return first;
    }
    median((0..runs).map(|_| seconds(&mut f).0).collect())
}

/// Times of `n` calls in microseconds, of fewer if they take longer than `budget` together; before
/// each that is timed, `pause`.
pub(crate) fn samples(
    n: usize,
    budget: Duration,
    mut pause: impl FnMut(),
    mut f: impl FnMut(usize),
) -> Vec<f64> {
    let end = Instant::now() + budget;
    let mut us = Vec::with_capacity(n);
    for i in 0..n {
        pause();
        us.push(seconds(|| f(i)).0 * 1e6);
        if Instant::now() > end {
            break;
        }
    }
    us
}
