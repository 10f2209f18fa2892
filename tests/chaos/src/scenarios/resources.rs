//! A machine that has too little: every refusal is an error that says so, and once there is enough
//! again everything works.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use epilogue::{ExitStatus, Pool, Process, embed};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::time::Duration;
use support::{Oracle, not_tried};

use super::Scenario;
use super::workload::everything;
use crate::case::Case;
use crate::figures::{Figures, say_count};
use crate::group::Limit;
use crate::seed::Seed;

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "resources",
    story: "3..64 descriptors, 1..16 processes, little memory, a full disk, a full /dev/shm",
    cases: |_| all().count() as u64,
    patience: |_| Duration::from_secs(60),
    case,
    subject,
};

/// What there is too little of.
#[derive(Debug, Clone, Copy)]
enum Little {
    /// How many there may be.
    Descriptors(u64),
    /// How many there may be besides the program.
    Processes(u64),
    /// How much a worker and its siblings may take, in MiB.
    Memory(u64),
    /// A disk of 64 KiB, for what finalizers write.
    Disk,
    /// A full `/dev/shm`.
    Shm,
}

fn all() -> impl Iterator<Item = Little> {
    let memory = [1, 2, 4, 8, 16, 32].map(Little::Memory);
    let processes = (1..=16).map(Little::Processes);
    let rest = memory.into_iter().chain([Little::Disk, Little::Shm]);
    (3..=64).map(Little::Descriptors).chain(processes).chain(rest)
}

fn little(seed: Seed) -> Little {
    let Some(little) = all().nth(seed.case as usize) else { panic!("no such case") };
    little
}

const UNLIMITED: &str = "max";

fn case(case: &mut Case) -> Figures {
    let mut command = case.command(&[]);
    let limit = match little(case.seed) {
        Little::Processes(_) => Some(Limit::make("pids", "pids.max", 1000)),
        Little::Memory(mib) => Some(limit_of_memory(mib << 20)),
        Little::Descriptors(_) | Little::Disk | Little::Shm => None,
    };
    let directory = tempfile::tempdir().unwrap();
    let place = limit.as_ref().map_or(directory.path(), Limit::path);
    let mut figures = case.ends_well(command.env(PLACE, place), Duration::from_secs(1));
    figures.count("recovered", 1);
    figures
}

fn limit_of_memory(bytes: u64) -> Limit {
    let is_first = Path::new("/sys/fs/cgroup/memory").exists();
    let file = if is_first { "memory.limit_in_bytes" } else { "memory.max" };
    Limit::make("memory", file, bytes)
}

/// The variable that says where the limit is, or the disk.
const PLACE: &str = "CHAOS_PLACE";

fn place() -> PathBuf {
    env::var_os(PLACE).map(PathBuf::from).unwrap_or_default()
}

fn subject(seed: Seed, _: &[String]) {
    let oracle = Oracle::begin();
    let little = little(seed);
    let told = match little {
        Little::Descriptors(count) => descriptors(count),
        Little::Processes(count) => processes(count),
        Little::Memory(mib) => memory(mib),
        Little::Disk => disk(),
        Little::Shm => shm(),
    };
    match told {
        Ok(()) => say_count("without effect", 1),
        Err(error) => {
            eprintln!("{little:?}: {error}");
            say_count("typed errors", 1);
        }
    }
    if let Err(error) = everything() {
        panic!("{little:?}: no recovery: {error}");
    }
    oracle.nothing_left();
}

fn descriptors(count: u64) -> Result<(), String> {
    let (soft, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, count, most).unwrap();
    let told = everything();
    setrlimit(Resource::RLIMIT_NOFILE, soft, most).unwrap();
    told
}

fn processes(count: u64) -> Result<(), String> {
    Limit::enter(&place());
    let set = |value: String| fs::write(place().join("pids.max"), value).unwrap();
    let own = fs::read_to_string(place().join("pids.current")).unwrap();
    set((own.trim().parse::<u64>().unwrap() + count).to_string());
    let told = everything();
    set(UNLIMITED.to_owned());
    told
}

/// Processes that enter the cgroup before they begin. This one stays outside: the kernel may choose
/// any that is inside.
fn memory(mib: u64) -> Result<(), String> {
    let greedy = |mib: u64| {
        let mut all = Vec::new();
        for _ in 0..2 * mib {
            all.push(std::hint::black_box(vec![1u8; 1 << 20]));
        }
        all.len() as u64
    };
    let start = || Process::builder().initializer(|| Limit::enter(&place())).start(mib, greedy);
    let mut told = Ok(());
    for _ in 0..3 {
        match start().map_err(|error| error.to_string()).map(Process::join) {
            Ok(Ok(_)) => panic!("twice the memory that there is"),
            Ok(Err(error)) => told = Err(error.to_string()),
            Err(error) => told = Err(error),
        }
    }
    let pool = Pool::new(2).unwrap();
    let outcomes = pool.map_outcomes((0..4).map(|_| mib), |mib: u64| {
        Limit::enter(&place());
        vec![1u8; (mib as usize) << 21].iter().map(|&byte| u64::from(byte)).sum::<u64>()
    });
    let lost = outcomes.unwrap().iter().filter(|outcome| outcome.is_err()).count();
    assert!(lost > 0, "twice the memory that there is");
    told
}

/// A file system of 64 KiB at `path`, which this process alone sees.
fn small_disk(path: &Path) -> bool {
    if unshare(CloneFlags::CLONE_NEWNS).is_err() {
        not_tried("this user may mount nothing");
        return false;
    }
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    mount(Some("chaos"), path, Some("tmpfs"), MsFlags::empty(), Some("size=64k")).unwrap();
    true
}

fn disk() -> Result<(), String> {
    if !small_disk(&place()) {
        return Ok(());
    }
    let pool = Pool::new(2).unwrap();
    let register = |()| {
        embed::finalizer("last", || {});
        embed::finalizer("writes", || fs::write(place().join("a"), vec![7; 256 << 10]).unwrap());
        embed::finalizer("first", || {});
    };
    pool.submit((), register).unwrap().join().unwrap();
    let report = pool.close().unwrap();
    let ends = report.workers.iter().flat_map(|worker| worker.end.finalizers.as_ref().unwrap());
    let ends: Vec<_> = ends.map(|end| (end.name.as_str(), end.failure.is_some())).collect();
    assert_eq!(ends, [("first", false), ("writes", true), ("last", false)]);
    assert!(report.workers.iter().all(|worker| worker.end.status == ExitStatus::Exited(0)));
    umount2(&place(), MntFlags::MNT_DETACH).unwrap();
    Err("a finalizer says that the disk is full".to_owned())
}

fn shm() -> Result<(), String> {
    let shm = Path::new("/dev/shm");
    if !shm.exists() || !small_disk(shm) {
        return Ok(());
    }
    // As much as there is room for.
    assert!(fs::write(shm.join("full"), vec![7; 1 << 20]).is_err());
    everything()
}
