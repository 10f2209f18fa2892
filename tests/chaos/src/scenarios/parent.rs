//! A parent killed at a random instant: a second later nothing of it is left, and every finalizer
//! that was registered ran once.

use std::fs;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use epilogue::{Pool, Process, StartMethod, scope};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{Marks, Random, hooks, park_for_ever, procfs, sys};

use super::{Least, Scenario};
use crate::case::{Case, died_by, status_field};
use crate::figures::Figures;
use crate::seed::Seed;

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "parent",
    story: "SIGKILL to a parent at a random instant, start-up included, nested, some stopped",
    cases: |extent| extent.either(500, 10_000),
    patience: |_| Duration::from_secs(60),
    least: Some(Least { what: "finalized", of: "parents" }),
    case,
    subject,
};

/// When everything must be gone, from the kill on; whoever had to be woken, from then on.
const BOUND: Duration = Duration::from_secs(1);

/// What the parent is in the middle of, and within how long, in microseconds, it is killed.
const STORIES: [(&str, u64); 7] = [
    ("starting", 30_000),
    ("starting-server", 30_000),
    ("scope", 30_000),
    ("nested-1", 30_000),
    ("nested-2", 60_000),
    ("nested-3", 120_000),
    ("grandchildren", 60_000),
];

fn case(case: &mut Case) -> Figures {
    let mut figures = Figures::default();
    case.may_leave_cgroups = true;
    let (story, within) = case.random.one_of(&STORIES);
    let (marks, stops) = (Marks::new(), case.random.below(3) == 0);
    let delay = Duration::from_micros(case.random.below(within));
    let (name, directory) = marks.variable();
    let mut program = case.start(case.command(&[story]).env(name, directory));
    thread::sleep(delay);
    if stops {
        figures.count("stopped", stop_some(program.pid(), &mut case.random));
    }
    program.signal(Signal::SIGKILL);
    let killed = Instant::now();
    program.reap();
    match wake_unborn(killed) {
        None => {
            case.gone_within(BOUND.saturating_sub(killed.elapsed()));
            figures.worst("all gone", killed.elapsed());
        }
        Some(woken) => {
            case.gone_within(BOUND.saturating_sub(woken.last.elapsed()));
            figures.worst("the woken gone, counted from that,", woken.last.elapsed());
            figures.count("woken, stopped before they could ask to be", woken.pids.len() as u64);
        }
    }
    died_by(&program.finish(), Signal::SIGKILL);
    figures.count("parents", 1);
    figures.count("finalized", hooks::all_that_told_ran_once(&marks) as u64);
    figures
}

/// Stops processes below `parent` at random, and the parent itself now and then.
fn stop_some(parent: Pid, random: &mut Random) -> u64 {
    let mut stopped = 0;
    for process in procfs::descendants_of(parent) {
        let Ok(pidfd) = sys::pidfd_open(process.pid) else { continue };
        // Everybody is a descendant of ours until the parent has been reaped, and more so then.
        if random.below(2) == 0 && procfs::descendants_of(parent).contains(&process) {
            stopped += u64::from(sys::pidfd_signal(pidfd.as_fd(), Signal::SIGSTOP).is_ok());
        }
    }
    if random.below(4) == 0 {
        let _ = kill(parent, Signal::SIGSTOP);
    }
    stopped
}

/// Who was stopped before its first instructions, and had to be woken.
struct Woken {
    pids: Vec<Pid>,
    last: Instant,
}

/// Lets those go on that were stopped before their first instructions: only a process itself can ask
/// to be woken by the end of its parent, so no library can see to that. All others must be gone in
/// time.
fn wake_unborn(killed: Instant) -> Option<Woken> {
    let mut woken: Option<Woken> = None;
    loop {
        // Before the look: what it sees was there as late as that.
        let elapsed = killed.elapsed();
        let mut left = procfs::descendants_of(Pid::this());
        left.retain(|process| process.state != 'Z');
        let is_known = |process: &procfs::Entry| {
            woken.as_ref().is_some_and(|woken| woken.pids.contains(&process.pid))
        };
        left.retain(|process| !is_known(process));
        if left.is_empty() {
            return woken;
        }
        assert!(elapsed < BOUND, "left behind after {elapsed:?}:{}", listed(&left));
        // Those who have asked are woken by then.
        if elapsed > BOUND / 4 {
            for process in left.iter().filter(|it| it.state == 'T' && is_unborn(it.pid)) {
                let _ = kill(process.pid, Signal::SIGCONT);
                let woken = woken.get_or_insert_with(|| Woken { pids: Vec::new(), last: killed });
                woken.pids.push(process.pid);
                woken.last = Instant::now();
            }
        }
        thread::sleep(Duration::from_micros(200));
    }
}

/// Whether this is a process of the library's that has not come to its first instructions, or to the
/// program. A program that one of them has started, such as `sleep`, is not.
fn is_unborn(pid: Pid) -> bool {
    let program = |whose: &str| fs::read_link(format!("/proc/{whose}/exe")).ok();
    let has = |field: &str, signal: Signal| {
        let mask = u64::from_str_radix(&status_field(pid, field)?, 16).ok()?;
        Some(mask & (1 << (signal as u64 - 1)) != 0)
    };
    // Whoever has asked goes on to handle SIGTERM. Until it executes its program it may have its
    // parent's handlers, but there all signals are blocked.
    program(&pid.to_string()) == program("self")
        && (has("SigCgt", Signal::SIGTERM) == Some(false)
            || has("SigBlk", Signal::SIGSEGV) == Some(true))
}

fn listed(processes: &[procfs::Entry]) -> String {
    processes.iter().map(|process| format!("\n  {process}")).collect()
}

fn subject(_: Seed, arguments: &[String]) {
    match arguments[0].as_str() {
        "starting" => starting(StartMethod::Spawn),
        "starting-server" => starting(StartMethod::Server),
        "scope" => scoped(),
        "nested-1" => descend(1),
        "nested-2" => descend(2),
        "nested-3" => descend(3),
        "grandchildren" => grandchildren(),
        other => panic!("no such story: {other}"),
    }
}

pub(super) fn register<T>(_: T) {
    hooks::register(Marks::from_env().variable().1);
}

/// Starts pools and processes, uses them, and ends them, for ever.
fn starting(method: StartMethod) {
    loop {
        let pool = Pool::builder().workers(2).start_method(method).start().unwrap();
        pool.map(0..8u64, register).unwrap();
        let process = Process::builder().start_method(method).start(0u64, register).unwrap();
        drop(pool);
        process.join().unwrap();
    }
}

fn scoped() {
    loop {
        scope(|processes| {
            let first = processes.start(0u64, register).unwrap();
            let _second = processes.start(0u64, register).unwrap();
            first.join().unwrap();
        });
    }
}

/// Pools in the workers of pools, `depth` deep, all busy.
pub(super) fn descend(depth: u32) {
    if depth == 0 {
        park_for_ever();
    }
    let pool = Pool::new(2).unwrap();
    let task = |depth: u32| {
        register(());
        descend(depth);
    };
    let _ = pool.map([depth - 1; 2], task);
}

/// Processes that start programs which are to end with them.
fn grandchildren() {
    loop {
        let start = |_| {
            let family = |()| -> () {
                register(());
                let mut sleep = Command::new("sleep");
                sleep.arg("1000").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                drop(sleep.spawn().unwrap());
                park_for_ever();
            };
            Process::builder().end_tree().start((), family).unwrap()
        };
        let processes: Vec<_> = (0..2u64).map(start).collect();
        // It orders nothing: the kill may come before, meanwhile, or as they are being ended.
        thread::sleep(Duration::from_millis(20));
        processes.into_iter().for_each(|process| drop(process.terminate().unwrap()));
    }
}
