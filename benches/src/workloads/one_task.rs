//! W2: one task, from its submission to its value.

use std::thread;
use std::time::Duration;

use crate::figure::Printer;
use crate::meeting::Meeting;
use crate::peers;
use crate::settings::{Place, Settings};
use crate::tasks::Task;
use crate::timing::samples;

const WORKERS: usize = 2;
const BUDGET: Duration = Duration::from_secs(5);

pub(super) fn run(print: Printer<'_>, settings: Settings) {
    let mut meeting = Meeting::new();
    let mut pool = peers::start(print.peer, WORKERS);
    if settings.place == Place::Apart {
        // Each of the two takes one: they wait for each other.
        thread::scope(|scope| {
            scope.spawn(|| meeting.hold(WORKERS, || {}));
            pool.map(Task::Pin, &[1; WORKERS], Some(1));
        });
    }
    let mut one = |x: usize| {
        let x = x as u64;
        assert_eq!(pool.one(Task::Square, x), x * x);
    };
    (0..settings.pick(200, 200, 20)).for_each(&mut one);
    let us = samples(settings.pick(10_000, 3_000, 200), BUDGET, || {}, &mut one);
    print.emit_latency("back to back", us);
    let sleep = || thread::sleep(Duration::from_millis(1));
    let us = samples(settings.pick(1_000, 300, 20), BUDGET, sleep, &mut one);
    print.emit_latency("after 1 ms idle", us);
    pool.close();
}
