//! A machine that has too little: every refusal is an error that says so, and once there is enough
//! again everything works.

mod memory;
mod typed;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use epilogue::{ExitStatus, Pool, embed};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use support::Oracle;

use self::memory::Taker;
use super::Scenario;
use super::workload::{Refused, everything};
use crate::case::Case;
use crate::figures::{Figures, say_count, say_not_tried};
use crate::group::Limit;
use crate::seed::Seed;

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "resources",
    story: "3..64 descriptors, 1..16 processes, little memory, a full disk, a full /dev/shm",
    cases: |_| all().count() as u64,
    patience: |_| Duration::from_secs(60),
    least: None,
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
    /// How much a worker and its siblings may take, in MiB, and what they want it for.
    Memory(Taker, u64),
    /// A disk of 64 KiB, for what finalizers write.
    Disk,
    /// A full `/dev/shm`.
    Shm,
}

fn all() -> impl Iterator<Item = Little> {
    let tasks = [1, 2, 4, 8, 16, 32].map(|mib| Little::Memory(Taker::Task, mib));
    let processes = (1..=16).map(Little::Processes);
    let rest = tasks.into_iter().chain([Little::Disk, Little::Shm]);
    // Below 4 MiB a worker has hardly what it needs to come that far.
    let takers = [Taker::Start, Taker::LargeAnswer, Taker::SharedBuf, Taker::SharedSlice];
    let memory = takers.into_iter().flat_map(|taker| [4, 8, 16, 32].map(|mib| (taker, mib)));
    let memory = memory.map(|(taker, mib)| Little::Memory(taker, mib));
    (3..=64).map(Little::Descriptors).chain(processes).chain(rest).chain(memory)
}

fn little(seed: Seed) -> Little {
    let Some(little) = all().nth(seed.case as usize) else { panic!("no such case") };
    little
}

impl Little {
    /// Whether it is less than a run of everything can do with. How much more of it is enough,
    /// differs from machine to machine.
    fn is_too_little(self) -> bool {
        match self {
            Self::Descriptors(count) => count == 3,
            Self::Processes(count) => count == 1,
            Self::Memory(..) | Self::Disk => true,
            // Nothing of ours is there.
            Self::Shm => false,
        }
    }
}

/// What became of a program that had too little.
enum Told {
    /// There was enough.
    Nothing,
    Errors(Vec<Refused>),
    /// The end of a worker says which of its finalizers failed.
    Finalizer,
}

/// Of what nothing was asked, this machine does not let us try it: why.
type Tried = Result<Told, &'static str>;

const UNLIMITED: &str = "max";

fn case(case: &mut Case) -> Figures {
    let mut command = case.command(&[]);
    let limit = match little(case.seed) {
        Little::Processes(_) => Limit::make("pids", "pids.max", 1000).map(Some),
        Little::Memory(_, mib) => memory::limit(mib << 20).map(Some),
        Little::Descriptors(_) | Little::Disk | Little::Shm => Ok(None),
    };
    let limit = match limit {
        Ok(limit) => limit,
        Err(why) => return Figures::not_tried(&why),
    };
    let directory = tempfile::tempdir().unwrap();
    let place = limit.as_ref().map_or(directory.path(), Limit::path);
    // The finalizer for which there is no room says so.
    let panics = usize::from(matches!(little(case.seed), Little::Disk));
    let command = command.env(PLACE, place);
    let mut figures = case.ends_well_after(panics, command, Duration::from_secs(1));
    if figures.is_tried() {
        figures.count("recovered", 1);
    }
    figures
}

/// The variable that says where the limit is, or the disk.
const PLACE: &str = "CHAOS_PLACE";

fn place() -> PathBuf {
    env::var_os(PLACE).map(PathBuf::from).unwrap_or_default()
}

fn subject(seed: Seed, _: &[String]) {
    let oracle = Oracle::begin();
    let little = little(seed);
    let tried = match little {
        Little::Descriptors(count) => Ok(descriptors(count)),
        Little::Processes(count) => Ok(processes(count)),
        Little::Memory(taker, mib) => Ok(memory::too_little(taker, mib)),
        Little::Disk => disk(),
        Little::Shm => shm(),
    };
    match tried {
        Ok(Told::Nothing) => {
            assert!(!little.is_too_little(), "{little:?}: nothing was refused");
            say_count("without effect", 1);
        }
        Ok(Told::Errors(errors)) => {
            for error in &errors {
                assert!(typed::is_about(error, little), "{little:?}: {error:?}");
            }
            say_count("typed errors", 1);
        }
        Ok(Told::Finalizer) => say_count("failures of a finalizer told", 1),
        Err(why) => return say_not_tried(why),
    }
    if let Err(error) = everything() {
        panic!("{little:?}: no recovery: {error:?}");
    }
    oracle.nothing_left();
}

/// A run of everything.
fn a_run() -> Told {
    everything().map_or_else(Told::Errors, |()| Told::Nothing)
}

fn descriptors(count: u64) -> Told {
    let (soft, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, count, most).unwrap();
    let told = a_run();
    setrlimit(Resource::RLIMIT_NOFILE, soft, most).unwrap();
    told
}

fn processes(count: u64) -> Told {
    Limit::enter(&place());
    let set = |value: String| fs::write(place().join("pids.max"), value).unwrap();
    let own = fs::read_to_string(place().join("pids.current")).unwrap();
    set((own.trim().parse::<u64>().unwrap() + count).to_string());
    let told = a_run();
    set(UNLIMITED.to_owned());
    told
}

/// Mounts a file system of 64 KiB at `path`, which this process alone sees.
fn mount_small_disk(path: &Path) -> Result<(), &'static str> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(|_| "this user may mount nothing")?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    mount(Some("chaos"), path, Some("tmpfs"), MsFlags::empty(), Some("size=64k")).unwrap();
    Ok(())
}

fn disk() -> Tried {
    mount_small_disk(&place())?;
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
    Ok(Told::Finalizer)
}

fn shm() -> Tried {
    let shm = Path::new("/dev/shm");
    if !shm.exists() {
        return Err("this machine has no /dev/shm");
    }
    mount_small_disk(shm)?;
    // As much as there is room for.
    assert!(fs::write(shm.join("full"), vec![7; 1 << 20]).is_err());
    Ok(a_run())
}
