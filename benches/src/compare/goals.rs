//! What was promised to be reached, and what was.

use super::endings::Ending;
use super::results::{Results, Series, Value};
use crate::peers::python::{EXECUTOR, MP_POOL};
use crate::peers::{IPC_CHANNEL, LIMIT, OURS, OURS_ZYGOTE, PROCSPAWN, RAYON, THREADS};

/// One goal.
pub(super) struct Goal {
    pub(super) workload: &'static str,
    pub(super) what: String,
    pub(super) bound: Bound,
    /// What is held against the bound.
    pub(super) reached: Series,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

use Bound::{AtLeast, AtMost};

impl Bound {
    pub(super) fn is_met(self, value: f64) -> bool {
        match self {
            AtMost(bound) => value <= bound,
            AtLeast(bound) => value >= bound,
        }
    }
}

/// Collects the goals of one workload.
struct List<'a> {
    results: &'a Results,
    workload: &'static str,
    goals: Vec<Goal>,
}

impl List<'_> {
    fn of(&self, peer: &str, case: &str, metric: &str) -> Series {
        self.results.series(self.workload, peer, case, metric)
    }

    fn add(&mut self, what: impl Into<String>, bound: Bound, reached: Series) {
        self.goals.push(Goal { workload: self.workload, what: what.into(), bound, reached });
    }
}

pub(super) fn all(results: &Results) -> Vec<Goal> {
    let mut list = List { results, workload: "W1", goals: Vec::new() };
    many_tasks(&mut list);
    list.workload = "W2";
    one_task(&mut list);
    list.workload = "W3";
    lives(&mut list);
    list.workload = "W4";
    bulk(&mut list);
    list.workload = "W5";
    for case in ["auto", "chunk=1"] {
        let efficiency = |peer| list.of(peer, case, "efficiency");
        let (ours, rayon) = (efficiency(OURS), efficiency(RAYON));
        list.add(format!("{case}: efficiency"), AtLeast(0.98), ours.clone());
        list.add(format!("{case}: efficiency over rayon's"), AtLeast(0.99), ours.over(&rayon));
    }
    list.workload = "W6";
    for case in ["shuffled auto", "shuffled chunk=1", "ascending auto", "ascending chunk=1"] {
        let reached = list.of(OURS, case, "time_over_ideal");
        list.add(format!("{case}: time over ideal"), AtMost(1.03), reached);
    }
    list.workload = "W7";
    crashes(&mut list);
    list.workload = "W8";
    endings(&mut list);
    list.workload = "idle";
    for case in ["pool n=2", "pool n=16"] {
        let parent = list.of(OURS, case, "parent_wakeups_per_s");
        let workers = list.of(OURS, case, "worker_wakeups_per_s");
        let what = format!("{case}: wake-ups a second, of all threads");
        list.add(what, AtMost(0.0), parent.with(&workers, |a, b| a + b));
    }
    list.goals
}

fn many_tasks(list: &mut List<'_>) {
    const RATE: &str = "items_per_s";
    const CHUNKS: [&str; 4] = ["auto", "chunk=1000", "chunk=10000", "chunk=50000"];
    let single = |peer| list.of(peer, "chunk=1", RATE);
    let (ours, ipc, procspawn, threads) =
        (single(OURS), single(IPC_CHANNEL), single(PROCSPAWN), single(THREADS));
    let (mp_pool, executor) = (single(MP_POOL), single(EXECUTOR));
    let rings = list.of(LIMIT, "shm rings w=64 b=1, yield", RATE);
    list.add("chunk 1: items/s", AtLeast(3e6), ours.clone());
    list.add("chunk 1 over ipc-channel", AtLeast(8.0), ours.over(&ipc));
    list.add("chunk 1 over procspawn", AtLeast(100.0), ours.over(&procspawn));
    list.add("chunk 1 over mp.Pool", AtLeast(40.0), ours.over(&mp_pool));
    list.add("chunk 1 over ProcessPoolExecutor", AtLeast(250.0), ours.over(&executor));
    list.add("chunk 1 over crossbeam threads", AtLeast(0.5), ours.over(&threads));
    list.add("chunk 1 over shm rings w=64 b=1", AtLeast(0.2), ours.over(&rings));
    let auto = |peer| list.of(peer, "auto", RATE);
    let best = |peer| Series::largest(CHUNKS.map(|case| list.of(peer, case, RATE)));
    let process_auto = Series::largest([auto(IPC_CHANNEL), auto(PROCSPAWN)]);
    let process_best = Series::largest([best(IPC_CHANNEL), best(PROCSPAWN)]);
    let reached = [
        ("auto over the best process peer's auto", 2.0, auto(OURS).over(&process_auto)),
        ("best chunk over the best process peer's", 2.0, best(OURS).over(&process_best)),
        ("auto over crossbeam threads' auto", 0.8, auto(OURS).over(&auto(THREADS))),
        ("auto over mp.Pool's auto", 20.0, auto(OURS).over(&auto(MP_POOL))),
    ];
    for (what, bound, series) in reached {
        list.add(what, AtLeast(bound), series);
    }
}

fn one_task(list: &mut List<'_>) {
    const P50: &str = "p50_us";
    let of = |peer, case: &str| list.of(peer, case, P50);
    let parked_over = |ours: &str, limit: &str| of(OURS, ours).over(&of(LIMIT, limit));
    let allowed = of(LIMIT, "futex parked, back to back, one CPU");
    let allowed = allowed.with(&allowed, |parked, _| 1.3 * parked + 1.0);
    let together = of(OURS, "back to back, one CPU");
    let reached = [
        (
            "back to back, free: over the yield-polling futex on two CPUs",
            4.0,
            parked_over("back to back, free", "futex yield, back to back, two CPUs"),
        ),
        ("back to back, free: µs, ever", 2.5, of(OURS, "back to back, free").highest()),
        ("back to back, two CPUs: µs, ever", 2.5, of(OURS, "back to back, two CPUs").highest()),
        ("back to back, one CPU: µs, ever", 2.5, together.clone().highest()),
        ("back to back, one CPU: over (1.3 × parked futex + 1 µs)", 1.0, together.over(&allowed)),
        (
            "after 1 ms idle, free: over the parked futex back to back on two CPUs",
            0.8,
            parked_over("after 1 ms idle, free", "futex parked, back to back, two CPUs"),
        ),
        (
            "after 1 ms idle, one CPU: over the parked futex after 1 ms idle",
            2.0,
            parked_over("after 1 ms idle, one CPU", "futex parked, after 1 ms idle, one CPU"),
        ),
    ];
    for (what, bound, series) in reached {
        list.add(what, AtMost(bound), series);
    }
}

fn lives(list: &mut List<'_>) {
    let of = |peer, case: &str, metric: &str| list.of(peer, case, metric);
    let spawn_ms = |parent: &str| {
        let us = of(LIMIT, &format!("posix_spawn of self, {parent}"), "p50_us");
        us.with(&us, |us, _| us / 1e3)
    };
    let zygote_ms = |parent: &str| {
        let us = of(LIMIT, &format!("zygote fork, {parent}"), "p50_us");
        us.with(&us, |us, _| us / 1e3)
    };
    const SMALL: &str = "small parent";
    const LARGE: &str = "parent+1024MiB";
    let ready = |peer, case| of(peer, case, "ready_ms");
    let close = |peer, case| of(peer, case, "close_ms");
    let process = |peer, parent: &str| of(peer, &format!("process start+join{parent}"), "p50_ms");
    let (two, many) = ("pool n=2", "pool n=16");
    let reached = [
        (
            "2 workers up, re-exec: over one posix_spawn of self",
            1.5,
            ready(OURS, two).over(&spawn_ms(SMALL)),
        ),
        (
            "16 workers up, re-exec: over ipc-channel",
            0.8,
            ready(OURS, many).over(&ready(IPC_CHANNEL, many)),
        ),
        ("2 workers up, zygote: ms", 1.0, ready(OURS_ZYGOTE, two)),
        ("16 workers up, zygote: ms", 3.0, ready(OURS_ZYGOTE, many)),
        ("close 2, re-exec: ms", 0.5, close(OURS, two)),
        ("close 16, re-exec: ms", 2.0, close(OURS, many)),
        ("close 2, zygote: ms", 0.5, close(OURS_ZYGOTE, two)),
        ("close 16, zygote: ms", 2.0, close(OURS_ZYGOTE, many)),
        ("PSS a worker of 2, re-exec: MiB", 0.35, of(OURS, two, "pss_per_worker_MiB")),
        ("PSS a worker of 16, re-exec: MiB", 0.35, of(OURS, many, "pss_per_worker_MiB")),
        ("PSS a worker of 2, zygote: MiB", 0.35, of(OURS_ZYGOTE, two, "pss_per_worker_MiB")),
        ("PSS a worker of 16, zygote: MiB", 0.35, of(OURS_ZYGOTE, many, "pss_per_worker_MiB")),
        (
            "process start + join, re-exec: over posix_spawn of self",
            1.2,
            process(OURS, "").over(&spawn_ms(SMALL)),
        ),
        (
            "process start + join, zygote: over zygote fork",
            1.5,
            process(OURS_ZYGOTE, "").over(&zygote_ms(SMALL)),
        ),
        (
            "the same with a parent of 1 GiB",
            1.5,
            process(OURS_ZYGOTE, ", parent+1024MiB").over(&zygote_ms(LARGE)),
        ),
    ];
    for (what, bound, series) in reached {
        list.add(what, AtMost(bound), series);
    }
}

fn bulk(list: &mut List<'_>) {
    let ms = |peer, case: &str| list.of(peer, case, "ms");
    let fresh = ms(LIMIT, "echo by reused shm, fresh target");
    let warm = ms(LIMIT, "echo by reused shm, warm target");
    let mut reached = Vec::new();
    for case in ["bytes", "f64"] {
        let ours = ms(OURS, case);
        let what = format!("{case}: over the echo of reused shm into a fresh target");
        reached.push((what, AtMost(1.3), ours.over(&fresh)));
        for peer in [IPC_CHANNEL, PROCSPAWN] {
            let what = format!("{case}: {peer}'s time over ours");
            reached.push((what, AtLeast(3.0), ms(peer, case).over(&ours)));
        }
    }
    let view = ms(OURS, "shared view").over(&warm);
    reached.push(("shared view: over the echo into a warm target".into(), AtMost(1.3), view));
    for (what, bound, series) in reached {
        list.add(what, bound, series);
    }
}

fn crashes(list: &mut List<'_>) {
    const CASE: &str = "crash every 10th";
    let procspawn = list.of(PROCSPAWN, CASE, "s");
    for (peer, bound) in [(OURS, 1.0), (OURS_ZYGOTE, 0.3)] {
        let of = |metric| list.of(peer, CASE, metric);
        let (good, told, never) =
            (of("good_results"), of("crashes_reported"), of("never_resolved"));
        let time = of("s").over(&procspawn);
        list.add(format!("{peer}: good results"), AtLeast(900.0), good);
        list.add(format!("{peer}: crashes told"), AtLeast(100.0), told);
        list.add(format!("{peer}: tasks without an outcome"), AtMost(0.0), never);
        list.add(format!("{peer}: time over procspawn's"), AtMost(bound), time);
    }
}

fn endings(list: &mut List<'_>) {
    for peer in [OURS, OURS_ZYGOTE] {
        let of = |kill: bool| {
            let wanted = move |ending: &&Ending| {
                ending.peer == peer && ending.scenario.starts_with("kill") == kill
            };
            list.results.endings.iter().filter(wanted)
        };
        let clean = |ending: &Ending| {
            ending.failure.is_none() && ending.handlers == ending.workers && ending.workers > 0
        };
        let share = share(of(false), |ending| clean(ending) && ending.left == 0);
        let gone = self::share(of(true), |ending| ending.failure.is_none() && ending.left == 0);
        list.add(
            format!("{peer}: endings with all handlers run and nothing left"),
            AtLeast(1.0),
            share,
        );
        list.add(
            format!("{peer}: KILL of the parent with nothing left after 2 s"),
            AtLeast(1.0),
            gone,
        );
    }
}

/// The share of endings that are well.
fn share<'a>(endings: impl Iterator<Item = &'a Ending>, well: impl Fn(&Ending) -> bool) -> Series {
    let all: Vec<bool> = endings.map(well).collect();
    if all.is_empty() {
        return Series::default();
    }
    let value = all.iter().filter(|well| **well).count() as f64 / all.len() as f64;
    Series(vec![Some(Value { value, noisy: false })])
}
