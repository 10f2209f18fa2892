//! W5 and W6: tasks that compute, all of the same length, or a few of them very long.

use crate::figure::Printer;
use crate::peers::{self, Pool, SERIAL};
use crate::settings::Settings;
use crate::tasks::{self, SPIN_1MS, Task};
use crate::timing::{median, seconds};

const WORKERS: usize = 2;
const WAYS: [(&str, Option<usize>); 2] = [("auto", None), ("chunk=1", Some(1))];

/// W5.
pub(super) fn even(print: Printer<'_>, settings: Settings) {
    let xs = vec![SPIN_1MS; settings.pick(2000, 2000, 20)];
    for (case, chunk) in WAYS {
        let (serial, pool) = in_turn(print.peer, &xs, chunk, settings);
        print.emit(case, "efficiency", serial / (WORKERS as f64 * pool));
        print.emit(case, "s", pool);
        print.emit(case, "serial_s", serial);
    }
}

/// W6.
pub(super) fn skewed(print: Printer<'_>, settings: Settings) {
    let mut xs = tasks::skewed(settings.pick(2000, 2000, 50));
    let longest = xs.iter().copied().max().unwrap_or(0) as f64 / xs.iter().sum::<u64>() as f64;
    for order in ["shuffled", "ascending"] {
        for (way, chunk) in WAYS {
            let (serial, pool) = in_turn(print.peer, &xs, chunk, settings);
            // No pool is faster than its share of the work, nor than the longest task.
            let ideal = serial * longest.max(1.0 / WORKERS as f64);
            print.emit(&format!("{order} {way}"), "time_over_ideal", pool / ideal);
        }
        xs.sort_unstable();
    }
}

/// Seconds without a pool, and with one: the two in turn, and the median of each.
fn in_turn(peer: &str, xs: &[u64], chunk: Option<usize>, settings: Settings) -> (f64, f64) {
    let mut serial = peers::start(SERIAL, 1);
    let mut pool = peers::start(peer, WORKERS);
    let work = |pool: &mut Box<dyn Pool>, xs: &[u64], chunk| {
        let (time, values) = seconds(|| pool.map(Task::Spin, xs, chunk));
        (time, values)
    };
    work(&mut pool, &xs[..20.min(xs.len())], Some(1));
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..settings.pick(3, 1, 1) {
        let (time, expected) = work(&mut serial, xs, None);
        without.push(time);
        let (time, values) = work(&mut pool, xs, chunk);
        with.push(time);
        assert!(values == expected, "every value in its place");
    }
    pool.close();
    (median(without), median(with))
}
