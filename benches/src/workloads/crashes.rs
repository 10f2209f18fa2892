//! W7: 1,000 tasks, of which each tenth aborts its worker.

use std::time::{Duration, Instant};

use crate::figure::Printer;
use crate::peers;
use crate::settings::Settings;

/// For all outcomes together.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn run(print: Printer<'_>, settings: Settings) {
    let n = settings.pick(1_000, 1_000, 50);
    let pool = peers::start(print.peer, 2);
    let start = Instant::now();
    let Some(outcomes) = pool.fragile(n) else { return };
    let (mut good, mut told, mut wrong) = (0, 0, 0);
    while let Ok((x, outcome)) = outcomes.recv_timeout(PATIENCE.saturating_sub(start.elapsed())) {
        match outcome {
            Ok(value) if x % 10 != 9 && value == x * x => good += 1,
            Err(_) if x % 10 == 9 => told += 1,
            _ => wrong += 1,
        }
        if good + told + wrong == n {
            break;
        }
    }
    const CASE: &str = "crash every 10th";
    print.emit(CASE, "s", start.elapsed().as_secs_f64());
    print.emit(CASE, "good_results", good as f64);
    print.emit(CASE, "crashes_reported", told as f64);
    print.emit(CASE, "never_resolved", (n - good - told - wrong) as f64);
}
