//! Shared slices: read by all without a copy, changed by nobody, and gone with the last of them.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{IoSlice, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use epilogue::process::Side;
use epilogue::process::parcel::attach;
use epilogue::{
    JoinError, Limits, Pool, Process, Receiver, SharedBuf, SharedSlice, TaskError, channel,
};
use nix::fcntl::{FcntlArg, OFlag, SealFlag, SpliceFFlags, fcntl, vmsplice};
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::{Deserialize, Deserializer, Serialize, Serializer, ser};
use support::{Oracle, Watchdog, named_in_shm};

const PATIENCE: Duration = Duration::from_secs(300);

fn numbers(len: u64) -> SharedSlice<u64> {
    let mut buf = SharedBuf::with_len(len as usize).unwrap();
    buf.iter_mut().zip(0..).for_each(|(place, n)| *place = n);
    buf.freeze().unwrap()
}

/// Which file the memory at this address belongs to: its device and inode.
fn file_at(address: usize) -> Option<(String, u64)> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let parse = |text| usize::from_str_radix(text, 16).unwrap();
        let (device, inode) = (words.nth(2)?, words.next()?);
        let found = (parse(start)..parse(end)).contains(&address);
        found.then(|| (device.to_owned(), inode.parse().unwrap()))
    })
}

fn place<T: bytemuck::Pod>(slice: &SharedSlice<T>) -> Option<(String, u64)> {
    file_at(slice.as_ptr() as usize)
}

/// How much memory of its own, not of files, this process has, in KiB.
fn own_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// How many mappings of shared slices this process has.
fn mappings() -> usize {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().filter(|line| line.contains("memfd:epilogue-shared")).count()
}

#[test]
fn a_value_that_holds_many_parts_of_a_slice_maps_it_once() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let pool = Pool::new(1).unwrap();
    let (one, other) = (numbers(1000), numbers(2000));
    let parts: Vec<_> = one.parts(10).zip(other.parts(20)).collect();
    let back = pool.submit(parts, |parts: Vec<(SharedSlice<u64>, SharedSlice<u64>)>| {
        let sum: u64 = parts.iter().flat_map(|(one, other)| one.iter().chain(other)).sum();
        (mappings(), sum, parts)
    });
    let (there, sum, parts) = back.unwrap().join().unwrap();
    assert_eq!((there, sum), (2, 999 * 500 + 1999 * 1000));
    assert_eq!((parts.len(), mappings()), (100, 4));
    let whole: Vec<u64> = parts.iter().flat_map(|(one, _)| one.iter().copied()).collect();
    assert!(whole == *one);
    drop((parts, one, other));
    assert_eq!(mappings(), 0);
    assert!(pool.close().unwrap().is_clean());
    drop(pool);
    oracle.nothing_left();
}

/// On a busy machine the kernel itself has pages on a list of another core for so long. It waits for them,
/// but gives up after 150 ms.
#[test]
fn a_slice_whose_pages_the_kernel_has_hold_of_for_a_while_is_shared_all_the_same() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let mut buf = SharedBuf::with_len(4 << 12).unwrap();
    buf.fill(7u8);
    let pipe = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
    let taken = vmsplice(&pipe.1, &[IoSlice::new(&buf)], SpliceFFlags::empty()).unwrap();
    assert_eq!(taken, buf.len());
    let kernel = thread::spawn(|| {
        thread::sleep(Duration::from_millis(300));
        drop(pipe);
    });
    let slice = buf.freeze().unwrap();
    kernel.join().unwrap();
    assert!(slice.iter().all(|byte| *byte == 7));
    drop(slice);
    oracle.nothing_left();
}

#[test]
fn a_large_array_is_summed_in_another_process_without_a_copy() {
    const LEN: u64 = 8 << 20;
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let files = named_in_shm();
    let array = numbers(LEN);
    let process = Process::start(array.clone(), |array: SharedSlice<u64>| {
        let before = own_memory();
        let sum: u64 = array.iter().sum();
        (sum, place(&array), own_memory() - before)
    });
    let (sum, its_place, grown) = process.unwrap().join().unwrap();
    assert_eq!(sum, LEN * (LEN - 1) / 2);
    assert!(its_place.is_some());
    assert_eq!(its_place, place(&array));
    assert!(grown < 4096, "{grown} KiB of its own for an array of 64 MiB");
    drop(array);
    assert_eq!(named_in_shm(), files);
    oracle.nothing_left();
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Job {
    name: String,
    columns: Vec<SharedSlice<f64>>,
    mask: Option<SharedSlice<u8>>,
    by_name: HashMap<String, SharedSlice<[u16; 3]>>,
    nothing: SharedSlice<u32>,
}

#[test]
fn slices_travel_at_any_depth_and_back() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let job = Job {
        name: "bob".to_owned(),
        columns: (1..5).map(|n| SharedSlice::copy_from(&vec![0.5; n]).unwrap()).collect(),
        mask: Some(SharedSlice::copy_from(&[1, 0, 1]).unwrap()),
        by_name: [("a".to_owned(), SharedSlice::copy_from(&[[1, 2, 3]]).unwrap())].into(),
        nothing: SharedSlice::copy_from(&[]).unwrap(),
    };
    let back = Process::start(job.clone(), |job: Job| job).unwrap().join().unwrap();
    assert_eq!(back, job);
    assert_eq!(place(&back.columns[3]), place(&job.columns[3]));
    let (sender, receiver) = channel::<Job>().unwrap();
    sender.send(job.clone()).unwrap();
    assert_eq!(receiver.recv().unwrap(), job);
    drop((sender, receiver, back, job));
    oracle.nothing_left();
}

#[test]
fn a_result_is_made_in_place_and_outlives_its_maker() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let process = Process::start(100_000, |len| {
        let slice = numbers(len);
        let at = place(&slice);
        (slice, at)
    });
    let (slice, at) = process.unwrap().join().unwrap();
    assert_eq!(place(&slice), at);
    assert!(slice.iter().copied().eq(0..100_000));
    drop(slice);
    oracle.nothing_left();
}

#[test]
fn parts_and_clones_of_a_slice_share_one_descriptor() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let slice = numbers(10_000);
    // More than the descriptors that one message can carry.
    let parts: Vec<_> = slice.parts(10).collect();
    assert_eq!(parts.len(), 1000);
    let process =
        Process::start(parts, |parts: Vec<SharedSlice<u64>>| parts.iter().flatten().sum::<u64>());
    assert_eq!(process.unwrap().join().unwrap(), slice.iter().sum());
    assert_eq!(*slice.slice(3..=4), [3, 4]);
    assert!(slice.slice(5..5).is_empty() && slice.slice(10_000..).is_empty());
    drop(slice);
    oracle.nothing_left();
}

#[test]
fn more_slices_than_a_message_can_carry_are_refused() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let slices: Vec<_> = (0..254).map(|n| SharedSlice::copy_from(&[n]).unwrap()).collect();
    let error = Process::start(slices, |slices: Vec<SharedSlice<u32>>| slices.len()).unwrap_err();
    assert!(error.to_string().contains("253"), "{error}");
    oracle.nothing_left();
}

/// Tries everything to change the memory behind a slice. What succeeded?
fn vandalize(slice: SharedSlice<u64>) -> Vec<String> {
    let (_, inode) = place(&slice).unwrap();
    let mut done = Vec::new();
    for entry in fs::read_dir("/proc/self/fd").unwrap().flatten() {
        use std::os::unix::fs::MetadataExt;
        if !fs::metadata(entry.path()).is_ok_and(|metadata| metadata.ino() == inode) {
            continue;
        }
        let file = OpenOptions::new().read(true).write(true).open(entry.path());
        done.push(format!("found {}", file.is_ok()));
        let Ok(mut file) = file else { continue };
        let seals = FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_FUTURE_WRITE);
        for (what, outcome) in [
            ("wrote", file.write(b"bad").is_ok()),
            ("shrank", file.set_len(8).is_ok()),
            ("grew", file.set_len(1 << 20).is_ok()),
            ("sealed", fcntl(&file, seals).is_ok()),
        ] {
            if outcome {
                done.push(what.to_owned());
            }
        }
    }
    done
}

#[test]
fn a_peer_that_tries_to_write_or_truncate_gets_nowhere() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let slice = numbers(1000);
    let done = Process::start(slice.clone(), vandalize).unwrap().join().unwrap();
    assert_eq!(done, ["found true"]);
    assert!(slice.iter().copied().eq(0..1000));
    drop(slice);
    oracle.nothing_left();
}

/// What a hostile process sends in place of a slice of 1024 numbers.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum Forgery {
    Unsealed,
    Writable,
    TooShort,
    Holes,
    NoMemory,
    Misaligned,
    Endless,
    NoDescriptor,
    OtherNumber,
}

/// Written as a forged slice, read as a slice.
#[derive(Debug)]
struct Lie {
    forgery: Option<Forgery>,
    slice: Option<SharedSlice<u64>>,
}

const LEN: u64 = 1024;

fn forge(forgery: Forgery) -> OwnedFd {
    if let Forgery::NoMemory = forgery {
        return File::open("/proc/self/exe").unwrap().into();
    }
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let file = File::from(memfd_create(c"forged", flags).unwrap());
    let len = if let Forgery::TooShort = forgery { LEN * 8 - 1 } else { LEN * 8 };
    match forgery {
        Forgery::Holes => file.set_len(len).unwrap(),
        _ => (&file).write_all(&vec![1; len as usize]).unwrap(),
    }
    let mut seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW;
    match forgery {
        Forgery::Unsealed => return file.into(),
        Forgery::Writable => seals |= SealFlag::F_SEAL_FUTURE_WRITE,
        _ => seals |= SealFlag::F_SEAL_WRITE,
    }
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).unwrap();
    file.into()
}

impl Serialize for Lie {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Place {
            file: Option<u32>,
            start: u64,
            len: u64,
        }
        let forgery = self.forgery.ok_or_else(|| ser::Error::custom("nothing to forge"))?;
        let index = match forgery {
            Forgery::NoDescriptor => None,
            Forgery::OtherNumber => Some(7),
            _ => Some(attach(&Arc::new(forge(forgery))).map_err(ser::Error::custom)?),
        };
        let (start, len) = match forgery {
            Forgery::Misaligned => (4, LEN - 1),
            Forgery::Endless => (8, u64::MAX / 8),
            _ => (0, LEN),
        };
        Place { file: index, start, len }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Lie {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let slice = Some(SharedSlice::deserialize(deserializer)?);
        Ok(Self { forgery: None, slice })
    }
}

#[test]
fn memory_that_a_hostile_process_forged_is_a_typed_error() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    for (forgery, why) in [
        (Forgery::Unsealed, "sealed"),
        (Forgery::Writable, "sealed"),
        (Forgery::TooShort, "shorter"),
        (Forgery::Holes, "not all there"),
        (Forgery::NoMemory, "sealed"),
        (Forgery::Misaligned, "aligned"),
        (Forgery::Endless, "impossible size"),
        (Forgery::NoDescriptor, "impossible size"),
        (Forgery::OtherNumber, "number 7"),
    ] {
        let lie = |forgery| Lie { forgery: Some(forgery), slice: None };
        let process: Process<Lie> = Process::start(forgery, lie).unwrap();
        let error = process.join().expect_err("a forged slice");
        assert!(matches!(error, JoinError::Decode { side: Side::Result, .. }), "{error}");
        assert!(error.to_string().contains(why), "{forgery:?}: {error}");
    }
    oracle.nothing_left();
}

#[test]
fn what_is_not_forged_is_read() {
    // Else the test above would pass for a wrong reason: here the same bytes hold.
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let slice = Process::start((), |()| numbers(LEN)).unwrap().join().unwrap();
    let (sender, receiver) = channel::<SharedSlice<u64>>().unwrap();
    sender.send(slice).unwrap();
    assert_eq!(receiver.recv().unwrap().len(), LEN as usize);
    let lie = Lie { forgery: None, slice: None };
    assert!(lie.slice.is_none());
    drop((sender, receiver));
    oracle.nothing_left();
}

#[test]
fn a_slice_that_goes_nowhere_refuses_to_be_written() {
    let oracle = Oracle::begin();
    let slice = numbers(10);
    let encoded = epilogue::process::codec::encode(&slice, &mut Vec::new(), &Limits::default());
    assert!(encoded.unwrap_err().to_string().contains("another process"));
    drop(slice);
    oracle.nothing_left();
}

#[test]
fn memory_that_there_is_not_is_an_error() {
    let oracle = Oracle::begin();
    assert!(SharedBuf::<u64>::with_len(usize::MAX).is_err());
    assert!(SharedBuf::<u8>::with_len(usize::MAX).is_err());
    // As far as the address space goes, but further than the memory.
    assert!(SharedBuf::<u64>::with_len(1 << 44).is_err());
    oracle.nothing_left();
}

#[test]
fn a_pool_maps_parts_of_a_slice_and_a_dying_worker_loses_only_its_own() {
    const GUILTY: u64 = 17;
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let files = named_in_shm();
    let slice = numbers(6000);
    let pool = Pool::new(2).unwrap();
    let parts = slice.parts(100).enumerate().map(|(n, part)| (n as u64, part));
    let sums = pool.map_outcomes(parts, |(n, part): (u64, SharedSlice<u64>)| {
        if n == GUILTY {
            nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).unwrap();
        }
        part.iter().sum::<u64>()
    });
    for (n, sum) in sums.unwrap().into_iter().enumerate() {
        match n as u64 == GUILTY {
            true => assert!(matches!(sum, Err(TaskError::WorkerLost(_)))),
            // Those that were waiting in the worker that died took their memory along.
            false => assert_eq!(sum.unwrap(), slice[n * 100..][..100].iter().sum()),
        }
    }
    let doubled: Vec<SharedSlice<u64>> = pool
        .map(slice.parts(1000), |part: SharedSlice<u64>| {
            let mut buf = SharedBuf::with_len(part.len()).unwrap();
            buf.iter_mut().zip(&part).for_each(|(place, n)| *place = 2 * n);
            buf.freeze().unwrap()
        })
        .unwrap();
    assert!(doubled.iter().flatten().copied().eq((0..6000).map(|n| 2 * n)));
    let with_state = pool.map_with(&slice, 0..50usize, |slice, n| slice[n]).unwrap();
    assert!(with_state.into_iter().eq(0..50));
    drop((slice, doubled));
    let _ = pool.close().unwrap();
    drop(pool);
    assert_eq!(named_in_shm(), files);
    oracle.nothing_left();
}

#[test]
fn a_process_that_is_killed_leaves_no_memory_behind() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let files = named_in_shm();
    for _ in 0..20 {
        let (sender, receiver) = channel::<SharedSlice<u64>>().unwrap();
        let process = Process::start(receiver, |slices: Receiver<SharedSlice<u64>>| {
            let _slices: Vec<_> = slices.iter().take(3).collect();
            nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).unwrap();
        });
        let process = process.unwrap();
        while sender.send(numbers(1000)).is_ok() {}
        assert!(process.join().is_err());
    }
    assert_eq!(named_in_shm(), files);
    oracle.nothing_left();
}
