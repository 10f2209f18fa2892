//! W3: the life of a pool, from its start to its end, and of a process that does nothing.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use crate::figure::Printer;
use crate::meeting::Meeting;
use crate::peers::{self, OURS, OURS_ZYGOTE, PROCSPAWN, Zygote};
use crate::settings::Settings;
use crate::tasks::Task;
use crate::timing::{median, samples};

pub(super) fn run(print: Printer<'_>, settings: Settings) {
    let mut meeting = Meeting::new();
    for workers in [2, 16] {
        let case = format!("pool n={workers}");
        // The first, which reads code from disk and starts the server, is not counted.
        let lives: Vec<Life> = (0..=settings.pick(10, 5, 1))
            .map(|_| Life::new(print.peer, workers, &mut meeting, || {}))
            .skip(1)
            .collect();
        let middle = |part: fn(&Life) -> f64| median(lives.iter().map(part).collect());
        print.emit(&case, "ready_ms", middle(|life| life.ready));
        print.emit(&case, "close_ms", middle(|life| life.close));
        print.emit(&case, "total_ms", middle(|life| life.total));
        memory(print, &case, workers, &mut meeting);
    }
    match print.peer {
        OURS => process(print, settings, &|| peers::start_and_join_ours(Zygote::No)),
        OURS_ZYGOTE => process(print, settings, &|| peers::start_and_join_ours(Zygote::Yes)),
        PROCSPAWN => process(print, settings, &peers::start_and_join_procspawn),
        _ => {}
    }
}

/// Milliseconds until all workers ran a task at the same time, from their last answer until the
/// pool had ended, and in all.
pub(crate) struct Life {
    pub(crate) ready: f64,
    pub(crate) close: f64,
    total: f64,
}

impl Life {
    pub(crate) fn new(
        peer: &str,
        workers: usize,
        meeting: &mut Meeting,
        at_ready: impl FnOnce() + Send,
    ) -> Self {
        let start = Instant::now();
        let ms = || start.elapsed().as_secs_f64() * 1e3;
        let mut pool = peers::start(peer, workers);
        let mut ready = 0.0;
        thread::scope(|scope| {
            let all = scope.spawn(|| {
                meeting.hold(workers, || {
                    ready = ms();
                    at_ready();
                });
            });
            pool.map(Task::Meet, &vec![0; workers], Some(1));
            all.join().expect("all workers came");
        });
        let done = ms();
        pool.close();
        let total = ms();
        Self { ready, close: total - done, total }
    }
}

/// What the processes of a pool that is up take together, as their shares of what they share.
pub(crate) fn memory(print: Printer<'_>, case: &str, workers: usize, meeting: &mut Meeting) {
    const MIB: f64 = 1024.0;
    let alone: f64 = tree().into_iter().map(pss).sum();
    let (mut all, mut count) = (0.0, 0);
    Life::new(print.peer, workers, meeting, || {
        let tree = tree();
        count = tree.len() - 1;
        all = tree.into_iter().map(pss).sum();
    });
    print.emit(case, "pss_total_MiB", all / MIB);
    print.emit(case, "pss_per_worker_MiB", (all - alone) / MIB / workers as f64);
    print.emit(case, "descendants", count as f64);
}

/// In KiB; nothing for a process that has ended.
fn pss(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok()).unwrap_or(0.0)
}

/// This process, and all that descend from it.
pub(super) fn tree() -> Vec<u32> {
    let mut all = vec![std::process::id()];
    let mut at = 0;
    while let Some(pid) = all.get(at) {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        for thread in threads {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            all.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
        at += 1;
    }
    all
}

fn process(print: Printer<'_>, settings: Settings, start_and_join: &dyn Fn()) {
    const BUDGET: Duration = Duration::from_secs(5);
    let mut ballast = Vec::new();
    let large = settings.pick(1024, 1024, 64);
    for (mib, n) in [(0, settings.pick(200, 100, 5)), (large, settings.pick(100, 30, 3))] {
        ballast.resize(mib << 20, 1u8);
        start_and_join();
        let us = samples(n, BUDGET, || {}, |_| start_and_join());
        let parent = if mib == 0 { String::new() } else { format!(", parent+{mib}MiB") };
        print.emit(&format!("process start+join{parent}"), "p50_ms", median(us) / 1e3);
    }
}
