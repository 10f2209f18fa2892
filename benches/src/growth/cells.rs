//! One row of a table, in a process of its own, so that its peak of memory is its own.

use std::fs;
use std::time::Instant;

use super::NAME;
use crate::figure::Printer;
use crate::meeting::Meeting;
use crate::payload::Kind;
use crate::peers::{OURS, Pool, lazy_squares, start};
use crate::tasks::Task;
use crate::timing::{median, seconds};
use crate::workloads::{Life, memory};

const MIB: f64 = (1 << 20) as f64;

pub(crate) fn run(kind: &str, size: &str, way: &str) -> Result<(), String> {
    let size: usize = size.parse().map_err(|_| format!("{size} is no size"))?;
    let print = Printer { workload: NAME, peer: OURS };
    match (kind, way) {
        ("tasks", "auto") => tasks(print, size, None),
        ("tasks", "1") => tasks(print, size, Some(1)),
        ("workers", "spawn") => workers(print, size),
        ("payload", "bytes") => payload(print, size, Kind::Bytes),
        ("payload", "view") => payload(print, size, Kind::View),
        _ => return Err(format!("{kind} by {way} does not grow")),
    }
    Ok(())
}

fn tasks(print: Printer<'_>, n: usize, chunk: Option<usize>) {
    let mut squares = lazy_squares(2, chunk);
    squares(1_000);
    let before = resident("VmRSS:");
    let (time, ys) = seconds(|| squares(n as u64));
    let peak = resident("VmHWM:");
    assert!(ys.iter().copied().eq((0..n as u64).map(|x| x * x)), "every value in its place");
    let values = (n * size_of::<u64>()) as f64 / MIB;
    print.emit("tasks", "s", time);
    print.emit("tasks", "ns_per_task", time * 1e9 / n as f64);
    print.emit("tasks", "values_MiB", values);
    print.emit("tasks", "overhead_MiB", (peak - before - values).max(0.0));
}

fn workers(print: Printer<'_>, n: usize) {
    const CASE: &str = "workers";
    let mut meeting = Meeting::new();
    let all = Instant::now();
    let life = Life::new(OURS, n, &mut meeting, || {});
    print.emit(CASE, "ready_ms", life.ready);
    print.emit(CASE, "ready_ms_per_worker", life.ready / n as f64);
    print.emit(CASE, "close_ms", life.close);
    memory(print, CASE, n, &mut meeting);
    let mut pool = start(OURS, n);
    let xs: Vec<u64> = (0..20_000).collect();
    let run = |pool: &mut Box<dyn Pool>| seconds(|| pool.map(Task::Square, &xs, Some(1)));
    run(&mut pool);
    let (time, ys) = run(&mut pool);
    assert!(ys.iter().zip(&xs).all(|(y, x)| *y == x * x), "every value in its place");
    pool.close();
    print.emit(CASE, "ns_per_task", time * 1e9 / xs.len() as f64);
    // The next row has twice as many workers, not ten times as many.
    print.emit(CASE, "s", all.elapsed().as_secs_f64() / 5.0);
}

fn payload(print: Printer<'_>, len: usize, kind: Kind) {
    // About a second of them.
    let times = (64 << 20) / len.max(32 << 10);
    let mut pool = start(OURS, 2);
    assert_eq!(pool.one(Task::Square, 3), 9);
    let before = resident("VmRSS:");
    let payload = pool.payload(kind, len).expect("we have it");
    let sum = payload.sum();
    let mut payload = Some(payload);
    let mut echo = || payload = payload.take().map(|payload| pool.echo(payload));
    // The first is counted where it is the only one.
    let first = seconds(&mut echo).0;
    let more = (0..times).map(|_| seconds(&mut echo).0).collect::<Vec<_>>();
    let time = if more.is_empty() { first } else { median(more) };
    let peak = resident("VmHWM:");
    assert_eq!(payload.map(|payload| payload.sum()), Some(sum), "it came back");
    pool.close();
    print.emit("payload", "us", time * 1e6);
    print.emit("payload", "s", time);
    print.emit("payload", "GB_per_s", 2.0 * len as f64 / time / 1e9);
    // Below a megabyte what the process itself needs hides it.
    if len >= 1 << 20 {
        print.emit("payload", "overhead_payloads", (peak - before) * MIB / len as f64);
    }
}

/// What of this process is in memory, or was at most, in MiB.
fn resident(line: &str) -> f64 {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let found = text.lines().find_map(|text| text.strip_prefix(line));
    let kib = found.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1024.0
}
