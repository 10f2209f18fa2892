//! W1: squares of many numbers, in chunks of several sizes.

use crate::figure::Printer;
use crate::peers::{self, PROCSPAWN};
use crate::settings::Settings;
use crate::tasks::Task;
use crate::timing::typical;

pub(super) fn run(print: Printer<'_>, settings: Settings) {
    let xs: Vec<u64> = (0..settings.pick(1_000_000, 1_000_000, 50_000)).collect();
    let singles = match (print.peer, settings.pick(false, true, true)) {
        // It does 25,000 of them a second.
        (PROCSPAWN, true) => settings.pick(100_000, 10_000, 1_000),
        _ => settings.pick(100_000, 100_000, 5_000),
    };
    let mut pool = peers::start(print.peer, 2);
    let mut measure = |case: &str, xs: &[u64], chunk| {
        let mut checked = false;
        let time = typical(3, || {
            let ys = pool.map(Task::Square, xs, chunk);
            assert_eq!((ys.len(), ys.last().copied()), (xs.len(), xs.last().map(|x| x * x)));
            if !checked {
                assert!(ys.iter().zip(xs).all(|(y, x)| *y == x * x), "every value in its place");
                checked = true;
            }
        });
        print.emit(case, "items_per_s", xs.len() as f64 / time);
    };
    measure("auto", &xs, None);
    for chunk in [1_000, 10_000, 50_000] {
        measure(&format!("chunk={chunk}"), &xs, Some(chunk));
    }
    measure("chunk=1", &xs[..singles], Some(1));
    pool.close();
}
