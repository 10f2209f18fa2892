//! Too little memory for those who run in a cgroup that limits it.
//!
//! The program itself stays outside: the kernel may choose any that is inside. So do the pages that
//! it has taken: whoever touches one first pays for it.

use std::fs;
use std::hint::black_box;
use std::path::Path;

use epilogue::{Pool, Process, SharedBuf, SharedSlice};
use support::forbid_swap;

use super::{Told, place, typed};
use crate::group::Limit;
use crate::scenarios::workload::Refused;

/// What takes the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taker {
    /// A task, for itself.
    Task,
    /// The initializer of a pool that starts.
    Start,
    /// An answer, which travels in a segment: there is room for it, and none for its copy.
    LargeAnswer,
    SharedBuf,
    SharedSlice,
}

/// The file that holds the limit, in the older version of cgroups and in the newer.
const FILES: [&str; 2] = ["memory.limit_in_bytes", "memory.max"];

pub(super) fn limit(bytes: u64) -> Result<Limit, String> {
    let is_first = Path::new("/sys/fs/cgroup/memory").exists();
    let limit = Limit::make("memory", FILES[usize::from(!is_first)], bytes)?;
    match forbid_swap(limit.path(), bytes) {
        true => Ok(limit),
        false => Err("no cgroup can be made that limits swap, too".to_owned()),
    }
}

fn lift_limit() {
    let [first, second] = FILES.map(|file| place().join(file));
    // In the older version that of both together may not be the lower one; in the newer swap stays forbidden.
    let both = place().join("memory.memsw.limit_in_bytes");
    if both.exists() {
        fs::write(both, "-1").unwrap();
    }
    match first.exists() {
        true => fs::write(first, "-1").unwrap(),
        false => fs::write(second, "max").unwrap(),
    }
}

/// As a worker, which the kernel ends before the program that may be in there, too.
fn enter() {
    fs::write("/proc/self/oom_score_adj", "1000").unwrap();
    Limit::enter(&place());
}

/// From how many MiB on there is room for the program itself beside who takes them, in MiB.
const ROOM: u64 = 16;

/// Does this in the cgroup, where there is room, so that the kernel's count of whom it ended there is this
/// program's: whoever is killed has to be told as what it is, then.
///
/// Not where several take memory at once, or where only shared memory is taken: while the kernel gets
/// back what it has, it may end the program as well.
fn counted(mib: u64, try_it: impl FnOnce() -> Vec<Refused>) -> Vec<Refused> {
    if mib < ROOM {
        return try_it();
    }
    Limit::enter(&place());
    let files = ["memory.oom_control", "memory.events"].map(|file| place().join(file));
    let mut texts = files.iter().filter_map(|file| fs::read_to_string(file).ok());
    let is_counted = texts.any(|text| text.lines().any(|line| line.starts_with("oom_kill ")));
    let told = try_it();
    let is_told = !is_counted || told.iter().all(typed::says_that_memory_ran_out);
    assert!(is_told, "nobody says that memory had run out: {told:?}");
    told
}

/// What is told where there are so many MiB. Once there are more, the same goes well in there.
pub(super) fn too_little(taker: Taker, mib: u64) -> Told {
    let told = match taker {
        Taker::Task => tasks(mib),
        Taker::Start => vec![start().expect_err("more than the memory that there is")],
        Taker::LargeAnswer => counted(mib, || large_answers(mib)),
        Taker::SharedBuf => vec![alone(mib, fill_a_buffer).expect_err("twice what there is")],
        Taker::SharedSlice => {
            reads_what_is_paid_for(mib);
            let copy = || vec![alone(mib, copy_to_a_slice).expect_err("more than there is")];
            counted(mib, copy)
        }
    };
    assert!(!told.is_empty(), "there was enough");
    lift_limit();
    match taker {
        Taker::Task => assert_eq!(alone(mib, be_greedy).unwrap(), 2 * mib),
        Taker::Start => start().unwrap(),
        Taker::LargeAnswer => assert!(large_answers(mib).is_empty()),
        Taker::SharedBuf => assert_eq!(alone(mib, fill_a_buffer).unwrap(), 2 * mib),
        Taker::SharedSlice => assert_eq!(alone(mib, copy_to_a_slice).unwrap(), 2 * mib),
    }
    Told::Errors(told)
}

/// A process in the cgroup.
fn alone(mib: u64, task: fn(u64) -> u64) -> Result<u64, Refused> {
    Ok(Process::builder().initializer(enter).start(mib, task)?.join()?)
}

fn be_greedy(mib: u64) -> u64 {
    let take = |_| black_box(vec![1u8; 1 << 20]);
    (0..2 * mib).map(take).collect::<Vec<_>>().len() as u64
}

fn tasks(mib: u64) -> Vec<Refused> {
    let pool = Pool::new(2).unwrap();
    let outcomes = pool.map_outcomes((0..4).map(|_| mib), |mib: u64| {
        enter();
        be_greedy(mib)
    });
    let lost = outcomes.unwrap().into_iter().filter_map(Result::err);
    let mut told: Vec<_> = lost.map(Refused::from).collect();
    assert!(!told.is_empty(), "twice the memory that there is");
    drop(pool);
    let greedy = |_| alone(mib, be_greedy).expect_err("twice the memory that there is");
    told.extend(counted(mib, || (0..3).map(greedy).collect()));
    told
}

/// Starts a pool whose workers take more than any limit here before they are up.
fn start() -> Result<(), Refused> {
    let initializer = || {
        enter();
        be_greedy(32);
    };
    let pool = Pool::builder().workers(2).initializer(initializer).start()?;
    assert_eq!(pool.map(0..50u64, |n| n + 1).unwrap()[49], 50);
    drop(pool.close()?);
    Ok(())
}

/// Of so many MiB, in bytes: there is room for so much, and not twice.
fn three_quarters(mib: u64) -> usize {
    (mib as usize * 3) << 18
}

/// Of a process and of a pool, whose workers go on afterwards, also with answers for which there is
/// memory enough.
fn large_answers(mib: u64) -> Vec<Refused> {
    let answer = |bytes: usize| vec![1u8; bytes];
    let bytes = three_quarters(mib);
    let alone = Process::builder().initializer(enter).start(bytes, answer);
    let alone = alone.map_err(Refused::from).and_then(|process| Ok(process.join()?));
    let pool = Pool::builder().workers(2).initializer(enter).start().unwrap();
    let of_pool = pool.submit(bytes, answer).unwrap().join().map_err(Refused::from);
    for _ in 0..4 {
        assert_eq!(pool.submit(200_000, answer).unwrap().join().unwrap(), vec![1; 200_000]);
    }
    drop(pool.close().unwrap());
    let results = [alone, of_pool];
    let is_right = |answer: &Vec<u8>| answer.len() == bytes && answer.iter().all(|&byte| byte == 1);
    assert!(results.iter().flatten().all(is_right));
    let refused = results.iter().filter(|result| result.is_err()).count();
    assert!(refused != 1, "of a process and a pool one was refused");
    results.into_iter().filter_map(Result::err).collect()
}

fn fill_a_buffer(mib: u64) -> u64 {
    let mut buffer = SharedBuf::<u8>::with_len((mib as usize) << 21).unwrap();
    buffer.fill(1);
    buffer.freeze().unwrap().iter().map(|&byte| u64::from(byte)).sum::<u64>() >> 20
}

/// Each alone there is room for.
fn copy_to_a_slice(mib: u64) -> u64 {
    let bytes = vec![1u8; three_quarters(mib)];
    let slice = SharedSlice::copy_from(&bytes).unwrap();
    let sum = |bytes: &[u8]| bytes.iter().map(|&byte| u64::from(byte)).sum::<u64>();
    // Of both together, in MiB, as if each had been as much as there is.
    ((sum(&bytes) + sum(&slice)) * 4 / 3) >> 20
}

/// What this process has made costs who reads it in the cgroup nothing, however much it is.
fn reads_what_is_paid_for(mib: u64) {
    let slice = SharedSlice::copy_from(&vec![1u8; (mib as usize) << 21]).unwrap();
    let sum = |slice: SharedSlice<u8>| slice.iter().map(|&byte| u64::from(byte)).sum::<u64>();
    let process = Process::builder().initializer(enter).start(slice, sum).unwrap();
    assert_eq!(process.join().unwrap(), mib << 21);
}
