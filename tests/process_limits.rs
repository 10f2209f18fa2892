//! What the kernel shall hold a process to, it holds it to, and what it refuses fails the start by
//! name.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::{self};

use epilogue::process::{Builder, Refusal};
use epilogue::{JoinError, Process, SendError, SharedSlice, StartError, Stdio, channel};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Pid, Uid, getpgrp, setuid};
use support::{begin, cpus, nice, nicer, not_tried, refused_step};

const MIB: usize = 1 << 20;

fn new() -> Builder {
    Process::builder()
}

/// Calls `f` in a process of its own, since it changes what a process cannot change back.
#[track_caller]
fn apart(f: fn(())) {
    if let Err(error) = Process::start((), f).unwrap().join() {
        panic!("{error}");
    }
}

/// Gives this process the rights of nobody.
fn give_up_rights() {
    if Uid::effective().is_root() {
        setuid(Uid::from_raw(65534)).unwrap();
    }
}

#[test]
fn an_allocation_beyond_the_limit_of_memory_fails() {
    let (oracle, _watchdog) = begin();
    let limit = 1 << 30;
    let reserve = |bytes: usize| Vec::<u8>::new().try_reserve_exact(bytes).is_ok();
    let limited = |bytes| new().limit_memory(limit).start(bytes, reserve).unwrap().join().unwrap();
    assert_eq!((limited(16 * MIB), limited(2 << 30)), (true, false));
    assert!(reserve(2 << 30), "this process has no such limit");
    let abort = |bytes: usize| Vec::<u8>::with_capacity(bytes).len();
    let builder = new().limit_memory(limit).limit_core(0).stderr(Stdio::Null);
    let lost = builder.start(2 << 30, abort).unwrap().join();
    assert!(matches!(lost, Err(JoinError::Signaled { signal: 6, core_dumped: false })), "{lost:?}");
    oracle.nothing_left();
}

#[test]
fn a_process_that_has_used_up_its_cpu_time_is_killed() {
    let (oracle, _watchdog) = begin();
    let spin = |()| -> u8 {
        loop {
            std::hint::spin_loop();
        }
    };
    let lost = new().limit_cpu(1).start((), spin).unwrap().join();
    assert!(matches!(lost, Err(JoinError::Signaled { signal: 9, .. })), "{lost:?}");
    oracle.nothing_left();
}

#[test]
fn descriptors_run_out_at_their_limit() {
    let (oracle, _watchdog) = begin();
    let open = |()| {
        let mut files = Vec::new();
        loop {
            match File::open("/dev/null") {
                Ok(file) => files.push(file),
                Err(error) => {
                    let highest = files.iter().map(AsRawFd::as_raw_fd).max().unwrap();
                    return (error.raw_os_error().unwrap(), highest);
                }
            }
        }
    };
    let found = new().limit_descriptors(64).start((), open).unwrap().join().unwrap();
    assert_eq!(found, (nix::libc::EMFILE, 63));
    oracle.nothing_left();
}

#[test]
fn with_fewer_descriptors_than_its_own_a_process_is_not_started() {
    let (oracle, _watchdog) = begin();
    let mut started = Vec::new();
    for limit in 0..24 {
        match new().limit_descriptors(limit).start(limit, |limit| limit) {
            Ok(process) => {
                assert_eq!(process.join().unwrap(), limit);
                started.push(limit);
            }
            Err(StartError::Refused(Refusal::Step { step, .. })) => {
                assert_eq!(step, "limiting descriptors");
            }
            Err(other) => panic!("limit {limit}: {other:?}"),
        }
    }
    assert_eq!(started, (4..24).collect::<Vec<_>>());
    oracle.nothing_left();
}

#[test]
fn a_file_that_grows_beyond_its_limit_ends_the_process_by_its_signal() {
    let (oracle, _watchdog) = begin();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    let write = |(path, length): (PathBuf, usize)| fs::write(path, vec![7; length]).unwrap();
    let limited = |length| {
        let builder = new().limit_file_size(4096).limit_core(0);
        builder.start((path.clone(), length), write).unwrap().join()
    };
    limited(4096).unwrap();
    let lost = limited(4097);
    assert!(matches!(lost, Err(JoinError::Signaled { signal: 25, .. })), "{lost:?}");
    assert_eq!(fs::metadata(&path).unwrap().len(), 4096);
    drop(directory);
    oracle.nothing_left();
}

#[test]
fn memory_that_counts_as_a_file_beyond_the_limit_is_an_error_and_no_signal() {
    let (oracle, _watchdog) = begin();
    let process = new().limit_file_size(10_000).start((), |()| {
        let (sender, receiver) = channel::<Vec<u8>>().unwrap();
        let sent = sender.send(vec![7; MIB]);
        let shared = SharedSlice::copy_from(&vec![7u8; MIB]).map(drop);
        let captured = new().stdout(Stdio::CaptureAtMost(20_000)).start((), |()| ()).map(drop);
        // Within it they go on.
        sender.send(vec![7; 5000]).unwrap();
        let whole = receiver.recv().unwrap() == vec![7; 5000];
        let sent = matches!(sent, Err(SendError::System(_, error)) if is_too_large(&error));
        let shared = shared.is_err_and(|error| is_too_large(&error));
        let captured = matches!(
            captured, Err(StartError::System { source, .. }) if is_too_large(&source)
        );
        (sent, shared, captured, whole)
    });
    assert_eq!(process.unwrap().join().unwrap(), (true, true, true, true));
    oracle.nothing_left();
}

fn is_too_large(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(nix::libc::EFBIG)
}

#[test]
fn a_core_file_is_written_up_to_its_limit_and_the_status_tells() {
    let (oracle, _watchdog) = begin();
    let (_, most) = getrlimit(Resource::RLIMIT_CORE).unwrap();
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    let abort = |()| -> u8 { process::abort() };
    let directory = tempfile::tempdir().unwrap();
    let crash = |limit| {
        let builder = new().limit_core(limit).current_dir(directory.path());
        builder.start((), abort).unwrap().join().unwrap_err()
    };
    let none = crash(0);
    assert!(matches!(none, JoinError::Signaled { signal: 6, core_dumped: false }), "{none:?}");
    if most == 0 || pattern.starts_with(['|', '/']) {
        not_tried("this machine writes no core files into the current directory");
    } else {
        let dumped = crash(most);
        assert!(
            matches!(dumped, JoinError::Signaled { signal: 6, core_dumped: true }),
            "{dumped:?}"
        );
        assert!(dumped.to_string().contains("core dumped"), "{dumped}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
    drop(directory);
    oracle.nothing_left();
}

#[test]
fn a_limit_that_nobody_may_set_fails_the_start_by_name() {
    let (oracle, _watchdog) = begin();
    // Beyond what the kernel allows for anybody.
    let most: u64 = fs::read_to_string("/proc/sys/fs/nr_open").unwrap().trim().parse().unwrap();
    assert_eq!(refused_step(new().limit_descriptors(most + 1)), "limiting descriptors");
    oracle.nothing_left();
}

#[test]
fn a_limit_above_the_hard_one_of_an_unprivileged_user_fails_the_start_by_name() {
    let (oracle, _watchdog) = begin();
    apart(|()| {
        for resource in [Resource::RLIMIT_AS, Resource::RLIMIT_FSIZE] {
            setrlimit(resource, 1 << 40, 1 << 40).unwrap();
        }
        setrlimit(Resource::RLIMIT_CPU, 1000, 1000).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, 100, 100).unwrap();
        // Whoever started the tests may have lowered it already.
        let core = getrlimit(Resource::RLIMIT_CORE).unwrap().1.min(4096);
        setrlimit(Resource::RLIMIT_CORE, core, core).unwrap();
        give_up_rights();
        let high = 1 << 41;
        for (builder, step) in [
            (new().limit_memory(high), "limiting memory"),
            (new().limit_cpu(1001), "limiting CPU time"),
            (new().limit_descriptors(101), "limiting descriptors"),
            (new().limit_file_size(high), "limiting the size of files"),
            (new().limit_core(core + 1), "limiting core files"),
            (new().nice(-20), "setting the nice value"),
        ] {
            let error = builder.start((), |()| ()).expect_err(step);
            let StartError::Refused(Refusal::Step { step: found, .. }) = error else {
                panic!("{error:?}");
            };
            assert_eq!(found, step);
        }
        // What is not above is set.
        let builder =
            new().limit_memory(1 << 39).limit_cpu(999).limit_descriptors(99).nice(nicer());
        assert_eq!(builder.start(7, |x: u8| x).unwrap().join().unwrap(), 7);
    });
    oracle.nothing_left();
}

#[test]
fn the_nice_value_and_the_cpus_are_as_set() {
    let (oracle, _watchdog) = begin();
    let allowed = cpus();
    let facts = |()| (nice(), cpus());
    assert_eq!(new().start((), facts).unwrap().join().unwrap(), (nice(), allowed.clone()));
    let builder = new().nice(nicer()).cpu_affinity(allowed.last().copied());
    let expected = (nicer(), allowed[allowed.len() - 1..].to_vec());
    assert_eq!(builder.start((), facts).unwrap().join().unwrap(), expected);
    oracle.nothing_left();
}

#[test]
fn a_cpu_that_is_not_there_fails_the_start_by_name() {
    let (oracle, _watchdog) = begin();
    for cpus in [vec![CpuSet::count() - 1], vec![usize::MAX], vec![]] {
        assert_eq!(refused_step(new().cpu_affinity(cpus)), "setting the CPU affinity");
    }
    // One that is there, but not for us.
    apart(|()| {
        let mut only = CpuSet::new();
        let first = cpus()[0];
        only.set(first).unwrap();
        sched_setaffinity(Pid::from_raw(0), &only).unwrap();
        let builder = new().cpu_affinity([first]);
        assert_eq!(builder.start(1, |x: u8| x).unwrap().join().unwrap(), 1);
    });
    oracle.nothing_left();
}

#[test]
fn a_process_is_in_our_process_group_unless_it_gets_its_own() {
    let (oracle, _watchdog) = begin();
    let group = |()| getpgrp().as_raw();
    assert_eq!(new().start((), group).unwrap().join().unwrap(), getpgrp().as_raw());
    let own = new().own_process_group().start((), group).unwrap();
    let pid = own.id() as i32;
    assert_eq!(own.join().unwrap(), pid);
    oracle.nothing_left();
}

#[test]
fn a_process_has_its_name_as_far_as_the_kernel_takes_it() {
    let (oracle, _watchdog) = begin();
    let names = |()| {
        let comm = fs::read_to_string("/proc/self/comm").unwrap();
        let command = String::from_utf8(fs::read("/proc/self/cmdline").unwrap()).unwrap();
        (comm.trim_end_matches('\n').to_owned(), command.trim_end_matches('\0').to_owned())
    };
    for name in ["", "short", "a name that is longer than the kernel's", "fünfzehn bytes ü"] {
        let process = new().name(name).start((), names).unwrap();
        assert_eq!(process.name(), name);
        let (comm, command) = process.join().unwrap();
        assert_eq!(comm, name[..name.floor_char_boundary(15)]);
        assert!(command.ends_with(&format!(": {name}")), "{command}");
    }
    let (comm, command) = new().name("nu\0l").start((), names).unwrap().join().unwrap();
    assert!(comm == "nul" && command.ends_with(": nul"), "{comm}, {command}");
    oracle.nothing_left();
}
