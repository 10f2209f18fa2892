//! What is large arrives whole, through memory that is used again, and however anybody dies only
//! the guilty task is lost.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsRawFd, RawFd};
use std::path::PathBuf;
use std::time::Duration;

use epilogue::{Limits, Pool, Process, SharedBuf, StartMethod, TaskError};
use nix::fcntl::{FallocateFlags, FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::getpid;
use serde::{Deserialize, Serialize};
use support::{Gate, Oracle, Watchdog, procfs, raw};

const PATIENCE: Duration = Duration::from_secs(300);

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// Bytes of which no two pages are the same, and that differ by `seed`.
fn pattern(seed: usize, len: usize) -> Vec<u8> {
    let page: Vec<u8> = (0..4096usize).map(|i| (i * 31 + i / 256 + seed) as u8).collect();
    let mut bytes = page.repeat(len.div_ceil(page.len()));
    for (number, page) in bytes.chunks_mut(page.len()).enumerate() {
        page[..8].copy_from_slice(&(number ^ (seed << 32)).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mix = |sum: u64, word: u64| sum.rotate_left(5).wrapping_add(word);
    let sum = words.iter().map(|word| u64::from_le_bytes(*word)).fold(bytes.len() as u64, mix);
    rest.iter().map(|byte| u64::from(*byte)).fold(sum, mix)
}

/// Lengths around every border: of a ring, of a segment, of a page, of a word.
fn lengths() -> Vec<usize> {
    let borders = [64 * KIB, 256 * KIB, MIB];
    let mut lengths: Vec<_> =
        borders.iter().flat_map(|border| [border - 9, border - 1, *border, border + 1]).collect();
    lengths.extend([0, 1, 5 * MIB + 3, 70 * KIB + 5, 4 * MIB]);
    lengths
}

/// What the kernel shows as the name of such memory.
const NAME: &str = "epilogue-shared";

/// The descriptors of this process for memory that it shares.
fn memory_files() -> usize {
    let files = fs::read_dir("/proc/self/fd").unwrap().flatten();
    let targets = files.filter_map(|file| fs::read_link(file.path()).ok());
    targets.filter(|target| target.to_string_lossy().contains(NAME)).count()
}

/// How much memory of that kind this process has mapped, in bytes.
fn memory_mapped() -> usize {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let ours = maps.lines().filter(|line| line.contains(NAME));
    let sizes = ours.map(|line| {
        let (from, rest) = line.split_once('-').unwrap();
        let to = rest.split(' ').next().unwrap();
        usize::from_str_radix(to, 16).unwrap() - usize::from_str_radix(from, 16).unwrap()
    });
    sizes.sum()
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Picture {
    name: String,
    pixels: Vec<u8>,
    rows: BTreeMap<u32, Vec<f64>>,
}

impl Picture {
    fn new(seed: usize) -> Self {
        let rows = (0..50).map(|row| (row, vec![f64::from(row) + seed as f64; 400])).collect();
        Self { name: format!("picture {seed}"), pixels: pattern(seed, 90 * KIB), rows }
    }
}

#[test]
fn values_of_every_length_come_back_as_they_were() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    for method in [StartMethod::Spawn, StartMethod::Server] {
        let pool = Pool::builder().workers(2).start_method(method).start().unwrap();
        for _ in 0..2 {
            let sent: Vec<_> = lengths().iter().map(|&len| pattern(len, len)).collect();
            assert!(pool.map(sent.clone(), |bytes| bytes).unwrap() == sent);
            let sums: Vec<_> = sent.iter().map(|bytes| sum(bytes)).collect();
            assert_eq!(pool.map(sent, |bytes: Vec<u8>| sum(&bytes)).unwrap(), sums);
            let made = pool.map(lengths(), |len| pattern(len, len)).unwrap();
            assert_eq!(made.iter().map(|bytes| sum(bytes)).collect::<Vec<_>>(), sums);
        }
        let floats: Vec<f64> = (0..300_000).map(|i| f64::from(i) / 3.0).collect();
        let doubled = pool.submit(floats.clone(), |floats: Vec<f64>| {
            floats.iter().map(|x| x * 2.0).collect::<Vec<f64>>()
        });
        let doubled = doubled.unwrap().join().unwrap();
        assert!(doubled.iter().zip(&floats).all(|(two, one)| *two == one * 2.0));
        let pictures: Vec<_> = (0..20).map(Picture::new).collect();
        assert!(pool.map(pictures.clone(), |picture| picture).unwrap() == pictures);
        assert!(pool.close().unwrap().is_clean());
    }
    epilogue::end_servers();
    oracle.nothing_left();
}

#[test]
fn a_process_takes_and_gives_what_is_large() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    for len in lengths() {
        let sent = pattern(len, len);
        let back = Process::start(sent.clone(), |bytes| bytes).unwrap().join().unwrap();
        assert!(back == sent, "{len}");
    }
    let picture = Picture::new(7);
    let back = Process::start(picture.clone(), |picture| picture).unwrap().join().unwrap();
    assert_eq!(back, picture);
    assert_eq!((memory_files(), memory_mapped()), (0, 0));
    oracle.nothing_left();
}

#[test]
fn a_large_state_is_borrowed_by_the_tasks_of_its_map_and_by_no_other() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let pool = Pool::new(3).unwrap();
    for seed in 0..6 {
        let state = pattern(seed, 300 * KIB + seed);
        let sums = pool.map_with(&state, 0..50u64, |state: &Vec<u8>, n| sum(state) ^ n).unwrap();
        assert!(sums.iter().zip(0..).all(|(seen, n)| *seen == sum(&state) ^ n));
        let picture = Picture::new(seed);
        let names = pool.map_with(&picture, 0..9u8, |picture: &Picture, _| picture.clone());
        assert!(names.unwrap().iter().all(|seen| *seen == picture));
    }
    assert!(pool.close().unwrap().is_clean());
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn memory_and_descriptors_are_bounded_while_a_pool_runs_and_gone_once_it_has_ended() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let pool = Pool::new(2).unwrap();
    let mut most = (0, 0);
    // Each longer than all before: none of them fits where another one was.
    let growing = (1..=20).map(|round| round * 2 * MIB);
    let mixed = (0..30).map(|round| 65 * KIB + (round * 7919 * KIB) % (9 * MIB));
    for (round, len) in growing.chain(mixed).enumerate() {
        let back = pool.submit(pattern(round, len), |bytes| bytes).unwrap().join().unwrap();
        assert!(back == pattern(round, len));
        most = (memory_files().max(most.0), memory_mapped().max(most.1));
    }
    // What the pool keeps, and what both workers keep.
    assert!(most.0 <= 32 && most.1 <= (128 + 2 * 64) * MIB, "{most:?}");
    // Many that nobody has asked for yet.
    let tasks: Vec<_> =
        (0..100).map(|seed| pool.submit(pattern(seed, 70 * KIB), |bytes| bytes).unwrap()).collect();
    assert!(memory_files() <= 64);
    for (seed, task) in tasks.into_iter().enumerate() {
        assert!(task.join().unwrap() == pattern(seed, 70 * KIB), "{seed}");
    }
    let unread = pool.submit(pattern(1, MIB), |bytes| bytes).unwrap();
    assert!(pool.close().unwrap().is_clean());
    assert_eq!(memory_files(), 0);
    assert!(unread.join().unwrap() == pattern(1, MIB));
    assert_eq!(memory_mapped(), 0);
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn what_is_over_the_limit_is_refused_and_nothing_else() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let mut limits = Limits::default();
    limits.max_bytes = MIB;
    let pool = Pool::builder().workers(1).limits(limits).start().unwrap();
    assert!(pool.submit(vec![0u8; MIB + 1], |bytes| bytes.len()).is_err());
    let error = pool.submit(MIB + 1, |len| vec![0u8; len]).unwrap().join().unwrap_err();
    assert!(error.to_string().contains("1048576"), "{error}");
    let pictures = vec![Picture::new(0); 20];
    assert!(pool.submit(pictures, |_| ()).is_err());
    assert_eq!(pool.submit(vec![7u8; MIB], |bytes| bytes).unwrap().join().unwrap(), [7; MIB]);
    assert!(pool.close().unwrap().is_clean());
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn large_calls_that_a_dead_worker_never_began_go_to_another_one() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let mut gate = Gate::new();
    let pool = Pool::new(1).unwrap();
    let guilty =
        pool.submit((gate.path(), pattern(0, 200 * KIB)), |(gate, _): (PathBuf, Vec<u8>)| {
            Gate::pass(&gate);
        });
    let guilty = guilty.unwrap();
    let worker = gate.wait();
    let queued: Vec<_> = (1..12)
        .map(|seed| pool.submit(pattern(seed, 300 * KIB), |bytes| (sum(&bytes), bytes)).unwrap())
        .collect();
    kill(worker, Signal::SIGKILL).unwrap();
    assert!(matches!(guilty.join(), Err(TaskError::WorkerLost(_))));
    for (task, seed) in queued.into_iter().zip(1..) {
        let (seen, bytes) = task.join().unwrap();
        assert!(bytes == pattern(seed, 300 * KIB) && seen == sum(&bytes));
    }
    let report = pool.close().unwrap();
    assert_eq!((report.done, report.lost), (11, 1));
    drop((pool, gate));
    oracle.nothing_left();
}

#[test]
fn a_worker_killed_at_any_instant_of_a_large_answer_loses_its_own_task_only() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let pool = Pool::new(2).unwrap();
    let mut lost = 0;
    for round in 0..30u64 {
        let items = (0..8usize).map(move |seed| (seed, round));
        let outcomes = pool.map_outcomes(items, |(seed, round): (usize, u64)| {
            if seed == 3 {
                // Some time later: before the answer, in the middle of it, or after it.
                let (worker, wait) = (getpid(), Duration::from_micros(round * 100));
                let killer = std::thread::spawn(move || {
                    std::thread::sleep(wait);
                    kill(worker, Signal::SIGKILL).unwrap();
                });
                if round == 0 {
                    // At least one, however busy the machine is.
                    killer.join().unwrap();
                }
            }
            pattern(seed, 2 * MIB)
        });
        for (seed, outcome) in outcomes.unwrap().into_iter().enumerate() {
            match outcome {
                Ok(bytes) => assert!(bytes == pattern(seed, 2 * MIB)),
                Err(TaskError::WorkerLost(_)) => lost += 1,
                Err(error) => panic!("{error}"),
            }
        }
    }
    let report = pool.close().unwrap();
    assert_eq!(report.lost, lost);
    // One a kill: that which ran as it came.
    assert!((1..=30).contains(&lost), "{lost}");
    drop(pool);
    assert_eq!((memory_files(), memory_mapped()), (0, 0));
    oracle.nothing_left();
}

/// Takes `len` bytes there and back where nothing may be opened any more, in this process.
fn without(resource: Resource, limit: u64) {
    let pool = Pool::new(1).unwrap();
    let echo = |seed| pool.submit(pattern(seed, 300 * KIB), |bytes| bytes).unwrap().join();
    let (soft, hard) = getrlimit(resource).unwrap();
    setrlimit(resource, limit, hard).unwrap();
    for seed in 0..4 {
        assert!(echo(seed).unwrap() == pattern(seed, 300 * KIB));
    }
    setrlimit(resource, soft, hard).unwrap();
    assert!(echo(9).unwrap() == pattern(9, 300 * KIB));
    assert!(pool.close().unwrap().is_clean());
}

#[test]
fn where_no_memory_file_can_be_made_what_is_large_travels_all_the_same() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    // In a process of its own, whose limits are nobody else's.
    Process::start((), |()| without(Resource::RLIMIT_FSIZE, 4096)).unwrap().join().unwrap();
    // And in a worker.
    let pool = Pool::new(1).unwrap();
    for resource in [0, 1] {
        let task = pool.submit(resource, |resource| {
            let resource = [Resource::RLIMIT_FSIZE, Resource::RLIMIT_NOFILE][resource];
            let (_, hard) = getrlimit(resource).unwrap();
            setrlimit(resource, 0, hard).unwrap();
        });
        task.unwrap().join().unwrap();
        let made = pool.submit(3, |seed| pattern(seed, MIB)).unwrap().join();
        assert!(made.unwrap() == pattern(3, MIB));
    }
    assert!(pool.close().unwrap().is_clean());
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn a_descriptor_that_cannot_be_received_costs_one_value_and_no_worker() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let told = Process::start((), |()| {
        let pool = Pool::new(1).unwrap();
        let pid = pool.submit((), |()| std::process::id()).unwrap().join().unwrap();
        let make = || pool.submit(5, |seed| pattern(seed, MIB)).unwrap().join();
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, 0, hard).unwrap();
        let refused = make().map(drop);
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
        assert!((0..3).all(|_| make().unwrap() == pattern(5, MIB)));

        // A worker that can receive none.
        let limit = |most: u64| {
            let limit = |most| {
                let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
                setrlimit(Resource::RLIMIT_NOFILE, most, hard).unwrap();
            };
            pool.submit(most, limit).unwrap().join().unwrap();
        };
        let take = || pool.submit(pattern(6, MIB), |bytes: Vec<u8>| sum(&bytes)).unwrap().join();
        limit(0);
        let missed = take().map(drop);
        limit(soft);
        assert!((0..3).all(|_| take().unwrap() == sum(&pattern(6, MIB))));
        let same = pool.submit((), |()| std::process::id()).unwrap().join().unwrap();
        assert_eq!(pid, same);
        [refused, missed].map(|refused| refused.unwrap_err().to_string())
    });
    for why in told.unwrap().join().unwrap() {
        assert!(why.contains("descriptor"), "{why}");
    }
    oracle.nothing_left();
}

#[test]
fn a_fork_writes_into_no_memory_of_the_original() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let told = Process::start((), |()| {
        let pool = Pool::new(1).unwrap();
        let echo = |seed| pool.submit(pattern(seed, MIB), |bytes| bytes).unwrap();
        assert!(echo(1).join().unwrap() == pattern(1, MIB));
        let unread = echo(2);
        while !unread.is_finished() {
            std::thread::yield_now();
        }
        let Some(copy) = raw::fork() else {
            // All of these lie where the original's do.
            drop(unread);
            let bytes = pattern(3, MIB);
            for _ in 0..300 {
                assert!(pool.map_with(&bytes, 0..1, |_: &Vec<u8>, n| n).is_err());
            }
            assert!(pool.submit(bytes, |bytes| bytes).is_err());
            support::sys::exit_now(0);
        };
        let is_running = || {
            let flags = Some(nix::sys::wait::WaitPidFlag::WNOHANG);
            nix::sys::wait::waitpid(copy, flags).unwrap() == nix::sys::wait::WaitStatus::StillAlive
        };
        while is_running() {
            assert!(echo(1).join().unwrap() == pattern(1, MIB));
        }
        let later: Vec<_> = (4..8).map(echo).collect();
        assert!(unread.join().unwrap() == pattern(2, MIB));
        for (task, seed) in later.into_iter().zip(4..) {
            assert!(task.join().unwrap() == pattern(seed, MIB));
        }
        pool.close().unwrap().is_clean()
    });
    assert!(told.unwrap().join().unwrap());
    oracle.nothing_left();
}

/// The worker's end of its wire.
const WIRE: RawFd = 3;

/// Answers the call with this number by a segment that is not one.
fn forge(call: u64, file: &impl AsRawFd, len: u64) {
    let mut frame = vec![0u8; 24];
    frame[0..2].copy_from_slice(&0xE91Eu16.to_le_bytes());
    frame[2..4].copy_from_slice(&[134, 1]);
    frame[8..16].copy_from_slice(&call.to_le_bytes());
    frame[16..24].copy_from_slice(&16u64.to_le_bytes());
    frame.extend_from_slice(&[0, 0, 0, 0, 1, 0, 0, 0]);
    frame.extend_from_slice(&len.to_le_bytes());
    let (data, fds) = ([std::io::IoSlice::new(&frame)], [file.as_raw_fd()]);
    let control = [nix::sys::socket::ControlMessage::ScmRights(&fds)];
    let flags = nix::sys::socket::MsgFlags::MSG_NOSIGNAL;
    nix::sys::socket::sendmsg::<()>(WIRE, &data, &control, flags, None).unwrap();
}

#[test]
fn an_answer_in_memory_that_is_not_what_it_says_ends_its_worker_and_nothing_else() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    for kind in 0..5u8 {
        let process = Process::start(kind, |kind: u8| {
            let file = memfd_create(c"forged", MFdFlags::MFD_ALLOW_SEALING).unwrap();
            let all = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW;
            let all = all | SealFlag::F_SEAL_FUTURE_WRITE;
            let filled = if kind == 4 { 0 } else { MIB };
            nix::sys::uio::pwrite(&file, &vec![1; filled], 0).unwrap();
            nix::unistd::ftruncate(&file, MIB as i64).unwrap();
            let (seals, len) = match kind {
                0 => (SealFlag::empty(), MIB),
                1 => (all.difference(SealFlag::F_SEAL_SHRINK), MIB),
                2 => (all.difference(SealFlag::F_SEAL_FUTURE_WRITE), MIB),
                3 => (all, MIB + 1),
                // Holes, which the parent would have to fill.
                _ => (all, MIB),
            };
            fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).unwrap();
            forge(0, &file, len as u64);
            // If it was taken for what it is not, reading it ends the reader.
            let _ = nix::unistd::ftruncate(&file, 1);
            loop {
                std::thread::park();
            }
        });
        let process: Process<Vec<u8>> = process.unwrap();
        let error = process.join().unwrap_err();
        assert!(error.to_string().contains("memory"), "{kind}: {error}");
    }
    assert_eq!(memory_mapped(), 0);
    oracle.nothing_left();
}

/// Answers the call with this number by memory that is all there, and far over the limit.
fn forge_too_long(call: u64) {
    const LONG: usize = 64 * MIB;
    let file = memfd_create(c"forged", MFdFlags::MFD_ALLOW_SEALING).unwrap();
    nix::fcntl::fallocate(&file, FallocateFlags::empty(), 0, LONG as i64).unwrap();
    let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_FUTURE_WRITE;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).unwrap();
    forge(call, &file, LONG as u64);
}

#[test]
fn an_answer_in_memory_that_is_over_the_limit_is_not_copied() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    // In a process whose memory no other test takes.
    let grown = Process::start((), |()| {
        let mut limits = Limits::default();
        limits.max_bytes = MIB;
        let before = procfs::peak_memory();
        let process = Process::builder().limits(limits.clone()).start((), |()| -> String {
            forge_too_long(0);
            support::sys::exit_now(0)
        });
        let error = process.unwrap().join().unwrap_err();
        assert!(error.to_string().contains("1048576"), "{error}");
        let pool = Pool::builder().workers(1).limits(limits).start().unwrap();
        let task = pool.submit((), |()| -> String {
            forge_too_long(2);
            support::park_for_ever()
        });
        let error = task.unwrap().join().unwrap_err();
        assert!(error.to_string().contains("1048576"), "{error}");
        drop(pool.terminate().unwrap());
        procfs::peak_memory() - before
    });
    let grown = grown.unwrap().join().unwrap();
    assert!(grown < 32 << 10, "{grown} KiB");
    oracle.nothing_left();
}

/// Answers the first call of a pool by memory that changes all the time, and never ends.
fn keep_changing() -> ! {
    let mut memory = SharedBuf::<u8>::with_len(MIB).unwrap();
    memory.fill(1);
    let files = fs::read_dir("/proc/self/fd").unwrap().flatten();
    let is_it = |path: &PathBuf| {
        fs::read_link(path).is_ok_and(|target| target.to_string_lossy().contains(NAME))
    };
    let path = files.map(|file| file.path()).find(is_it).unwrap();
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals | SealFlag::F_SEAL_FUTURE_WRITE)).unwrap();
    forge(2, &file, MIB as u64);
    loop {
        for byte in 0..=255 {
            memory.iter_mut().step_by(64).for_each(|place| *place = byte);
        }
    }
}

#[test]
fn an_answer_that_changes_while_it_is_read_is_some_value_or_an_error() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    for _ in 0..4 {
        let pool = Pool::new(1).unwrap();
        let bytes = pool.submit((), |()| -> Vec<u8> { keep_changing() }).unwrap();
        assert_eq!(bytes.join().unwrap().len(), MIB);
        let _ = pool.terminate().unwrap();
        let pool = Pool::new(1).unwrap();
        let words = pool.submit((), |()| -> (Vec<String>, u32) { keep_changing() }).unwrap();
        // Whatever it is, it was decoded from a copy that did not change.
        let _ = words.join();
        let _ = pool.terminate().unwrap();
    }
    assert_eq!(memory_mapped(), 0);
    oracle.nothing_left();
}

#[test]
fn gigabytes_travel_if_the_limit_is_raised() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(Duration::from_secs(900));
    let huge = std::env::var("EPILOGUE_TEST_HUGE").ok().and_then(|len| len.parse().ok());
    let len: usize = huge.unwrap_or(300 * MIB);
    let mut limits = Limits::default();
    assert!(Pool::new(1).unwrap().submit(vec![1u8; 256 * MIB + 1], |_| ()).is_err());
    limits.max_bytes = len;
    let pool = Pool::builder().workers(1).limits(limits).start().unwrap();
    let mut sent = vec![1u8; len];
    sent[len - 1] = 9;
    let back = pool.submit(sent, |mut bytes: Vec<u8>| {
        bytes[0] = 7;
        bytes
    });
    let back = back.unwrap().join().unwrap();
    assert_eq!((back.len(), back[0], back[1], back[len - 1]), (len, 7, 1, 9));
    assert!(pool.close().unwrap().is_clean());
    drop(pool);
    oracle.nothing_left();
}
