//! What a builder sets holds in the process, before any code of the user's runs there; what cannot
//! be set fails the start, names the step, and leaves nothing.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use epilogue::process::{Builder, Refusal};
use epilogue::{ExitStatus, JoinError, Process, Rung, StartError, StartMethod, Stdio};
use nix::libc::c_int;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal, raise};
use nix::unistd::{Pid, Uid, getpgrp, setuid};
use support::{Marks, Oracle, Watchdog, raw};

const MIB: usize = 1 << 20;

fn begin() -> (Oracle, Watchdog) {
    (Oracle::begin(), Watchdog::start(Duration::from_secs(60)))
}

fn new() -> Builder {
    Process::builder()
}

/// Why a process was not started. Its function must not have been called.
#[track_caller]
fn refused(builder: Builder) -> StartError {
    let marks = Marks::new();
    let directory = marks.variable().1.to_owned();
    let call = |directory: PathBuf| Marks::at(&directory).leave("called");
    let error = builder.start(directory, call).map(|process| process.id()).unwrap_err();
    assert_eq!(marks.count("called"), 0);
    error
}

/// The step that a child could not take.
#[track_caller]
fn refused_step(builder: Builder) -> String {
    match refused(builder) {
        StartError::Refused(Refusal::Step { step, error }) => {
            assert!(!error.is_empty());
            step
        }
        other => panic!("{other:?}"),
    }
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

// The environment.

fn variables((): ()) -> Vec<(OsString, OsString)> {
    let mut variables: Vec<_> = env::vars_os().collect();
    variables.sort();
    variables
}

fn texts(builder: Builder) -> Vec<String> {
    let variables = builder.start((), variables).unwrap().join().unwrap();
    let text =
        |(name, value): (OsString, OsString)| format!("{}={}", name.display(), value.display());
    variables.into_iter().map(text).collect()
}

#[test]
fn a_process_inherits_the_whole_environment_and_nothing_else() {
    let (oracle, _watchdog) = begin();
    assert_eq!(new().start((), variables).unwrap().join().unwrap(), variables(()));
    oracle.nothing_left();
}

#[test]
fn the_last_word_on_a_variable_counts() {
    let (oracle, _watchdog) = begin();
    let builder = new().env("EPILOGUE_A", "1").env_remove("PATH").env("EPILOGUE_B", "");
    let found =
        texts(builder.env("EPILOGUE_C", "x").env("EPILOGUE_A", "2").env_remove("EPILOGUE_C"));
    let ours = found.iter().filter(|text| text.starts_with("EPILOGUE_"));
    assert_eq!(ours.collect::<Vec<_>>(), ["EPILOGUE_A=2", "EPILOGUE_B="]);
    assert!(env::var_os("PATH").is_some() && !found.iter().any(|text| text.starts_with("PATH=")));
    oracle.nothing_left();
}

#[test]
fn a_cleared_environment_keeps_what_names_the_coverage_file_unless_that_is_removed_too() {
    let (oracle, _watchdog) = begin();
    let directory = tempfile::tempdir().unwrap();
    let pattern = directory.path().join("%p.profraw");
    let inner = |()| {
        let cleared = new().env("EPILOGUE_A", "1").env_clear().env("EPILOGUE_B", "2");
        [texts(cleared.clone()), texts(cleared.env_remove("LLVM_PROFILE_FILE"))]
    };
    let builder = new().env_clear().env("LLVM_PROFILE_FILE", &pattern).env("EPILOGUE_X", "x");
    let [kept, removed] = builder.start((), inner).unwrap().join().unwrap();
    // An instrumented program's runtime has one more for its own use.
    let without = |texts: Vec<String>| {
        texts.into_iter().filter(|text| !text.starts_with("__LLVM_")).collect::<Vec<_>>()
    };
    let profile = format!("LLVM_PROFILE_FILE={}", pattern.display());
    assert_eq!(without(kept), ["EPILOGUE_B=2".to_owned(), profile]);
    assert_eq!(without(removed), ["EPILOGUE_B=2"]);
    drop(directory);
    oracle.nothing_left();
}

#[test]
fn a_variable_that_no_environment_can_hold_fails_the_start() {
    let (oracle, _watchdog) = begin();
    for method in [StartMethod::Spawn, StartMethod::Server] {
        for (name, value) in [("A", "a\0b"), ("B\0", "b"), ("C=D", "c"), ("=D", "d"), ("", "e")] {
            let error = refused(new().start_method(method).env(name, value));
            let StartError::BadVariable { name: found } = &error else { panic!("{error:?}") };
            assert_eq!(found, name);
        }
    }
    // What cannot be there need not be removed.
    let process = new().env("A=B", "a").env_clear().env_remove("A=B").start((), |()| ());
    process.unwrap().join().unwrap();
    oracle.nothing_left();
}

#[test]
fn a_program_that_may_make_no_file_of_that_size_is_told_so_and_goes_on() {
    let (oracle, _watchdog) = begin();
    apart(|()| {
        for method in [StartMethod::Spawn, StartMethod::Server] {
            let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
            setrlimit(Resource::RLIMIT_FSIZE, 100, hard).unwrap();
            let error = refused_quietly(new().start_method(method));
            let StartError::System { source, .. } = &error else { panic!("{error:?}") };
            assert_eq!(source.raw_os_error(), Some(nix::libc::EFBIG), "{error}");
            setrlimit(Resource::RLIMIT_FSIZE, hard, hard).unwrap();
            let process = new().start_method(method).start(7, |x: u8| x).unwrap();
            assert_eq!(process.join().unwrap(), 7);
        }
    });
    oracle.nothing_left();
}

/// Why a process was not started, where no file can be written to see that.
fn refused_quietly(builder: Builder) -> StartError {
    builder.start((), |()| ()).map(|process| process.id()).unwrap_err()
}

#[test]
fn a_root_directory_without_a_null_device_is_told_as_that() {
    let (oracle, _watchdog) = begin();
    let empty = tempfile::tempdir().unwrap();
    let story = |empty: PathBuf| {
        if nix::unistd::chroot(&empty).is_err() {
            return eprintln!("NOT TRIED: this user may not change the root directory");
        }
        let error = refused_quietly(new());
        let StartError::System { step, source } = &error else { panic!("{error:?}") };
        assert_eq!(*step, "opening /dev/null for the process");
        assert_eq!(source.kind(), std::io::ErrorKind::NotFound);
    };
    Process::start(empty.path().to_owned(), story).unwrap().join().unwrap();
    drop(empty);
    oracle.nothing_left();
}

// The current directory.

fn directory((): ()) -> PathBuf {
    env::current_dir().unwrap()
}

#[test]
fn a_process_is_in_its_directory_or_in_ours() {
    let (oracle, _watchdog) = begin();
    let elsewhere = tempfile::tempdir().unwrap();
    let path = elsewhere.path().canonicalize().unwrap();
    assert_eq!(new().start((), directory).unwrap().join().unwrap(), directory(()));
    assert_eq!(new().current_dir(&path).start((), directory).unwrap().join().unwrap(), path);
    drop(elsewhere);
    oracle.nothing_left();
}

#[test]
fn a_directory_that_is_missing_or_none_fails_the_start_by_name() {
    let (oracle, _watchdog) = begin();
    for directory in ["/nowhere/at/all", "/dev/null", "/nul\0/", ""] {
        let step = refused_step(new().current_dir(directory));
        assert!(step.starts_with("changing to the directory"), "{step}");
        assert!(step.contains(directory), "{step}");
    }
    oracle.nothing_left();
}

// The standard streams.

/// What descriptors 0, 1 and 2 are, by device and inode.
fn streams((): ()) -> Vec<(u64, u64)> {
    let file = |fd| fs::metadata(format!("/proc/self/fd/{fd}")).unwrap();
    (0..3).map(file).map(|file| (file.dev(), file.ino())).collect()
}

fn identity(path: &Path) -> (u64, u64) {
    let file = fs::metadata(path).unwrap();
    (file.dev(), file.ino())
}

#[test]
fn input_is_null_and_output_is_ours_by_default() {
    let (oracle, _watchdog) = begin();
    let (found, ours) = (new().start((), streams).unwrap().join().unwrap(), streams(()));
    assert_eq!(found, [identity(Path::new("/dev/null")), ours[1], ours[2]]);
    oracle.nothing_left();
}

#[test]
fn every_stream_can_be_of_every_kind() {
    let (oracle, _watchdog) = begin();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    let (ours, null) = (streams(()), identity(Path::new("/dev/null")));
    fs::write(&path, "").unwrap();
    for stream in 0..3 {
        let with = |kind: Stdio| {
            let builder = match stream {
                0 => new().stdin(kind),
                1 => new().stdout(kind),
                _ => new().stderr(kind),
            };
            builder.start((), streams).unwrap().join().unwrap()[stream]
        };
        assert_eq!(with(Stdio::Inherit), ours[stream]);
        assert_eq!(with(Stdio::Null), null);
        assert_eq!(with(File::open(&path).unwrap().into()), identity(&path));
        let captured = with(Stdio::Capture);
        assert!(captured != null && !ours.contains(&captured), "{captured:?}");
    }
    drop(directory);
    oracle.nothing_left();
}

#[test]
fn a_file_as_input_is_read_and_as_output_is_written() {
    let (oracle, _watchdog) = begin();
    let directory = tempfile::tempdir().unwrap();
    let (input, output) = (directory.path().join("in"), directory.path().join("out"));
    fs::write(&input, "from a file").unwrap();
    let copy = |()| {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).unwrap();
        println!("{text}");
        eprintln!("and an error");
        text.len()
    };
    // Both streams into one file.
    let out = Stdio::from(File::create(&output).unwrap());
    let builder = new().stdin(File::open(&input).unwrap()).stdout(out.clone()).stderr(out);
    assert_eq!(builder.start((), copy).unwrap().join().unwrap(), 11);
    assert_eq!(fs::read_to_string(&output).unwrap(), "from a file\nand an error\n");
    drop(directory);
    oracle.nothing_left();
}

#[test]
fn captured_input_is_empty() {
    let (oracle, _watchdog) = begin();
    let length = |()| std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    assert_eq!(new().stdin(Stdio::Capture).start((), length).unwrap().join().unwrap(), 0);
    oracle.nothing_left();
}

#[test]
fn sixteen_mebibytes_are_captured_of_each_stream_without_a_reader() {
    let (oracle, _watchdog) = begin();
    let fill = |()| {
        let line = [b'o'; 4096];
        for _ in 0..16 * MIB / line.len() {
            std::io::stdout().write_all(&line).unwrap();
            std::io::stderr().write_all(&line.map(|_| b'e')).unwrap();
        }
        std::io::stdout().flush().unwrap();
    };
    let process = new().stdout(Stdio::Capture).stderr(Stdio::Capture).start((), fill).unwrap();
    let output = process.join_output();
    output.result.unwrap();
    assert_eq!((output.stdout.len(), output.stderr.len()), (16 * MIB, 16 * MIB));
    assert!(output.stdout.iter().all(|byte| *byte == b'o'));
    assert!(output.stderr.iter().all(|byte| *byte == b'e'));
    oracle.nothing_left();
}

#[test]
fn what_grandchildren_write_is_captured_in_its_place() {
    let (oracle, _watchdog) = begin();
    let write = |()| {
        println!("before");
        let script = "echo out; echo err >&2";
        assert!(Command::new("sh").args(["-c", script]).status().unwrap().success());
        assert_eq!(Process::start((), |()| println!("nested")).unwrap().join().ok(), Some(()));
        println!("after");
    };
    let process = new().stdout(Stdio::Capture).stderr(Stdio::Capture).start((), write).unwrap();
    let output = process.join_output();
    output.result.unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "before\nout\nnested\nafter\n");
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "err\n");
    oracle.nothing_left();
}

#[test]
fn what_was_written_is_given_back_by_a_process_that_failed() {
    let (oracle, _watchdog) = begin();
    let run = |how: u8| {
        eprintln!("before");
        match how {
            0 => panic!("a reason"),
            1 => process::abort(),
            _ => process::exit(3),
        }
    };
    for (how, last) in [(0, "a reason"), (1, "before"), (2, "before")] {
        let output =
            new().limit_core(0).stderr(Stdio::Capture).start(how, run).unwrap().join_output();
        let result: Result<(), JoinError> = output.result;
        result.unwrap_err();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.starts_with("before\n") && text.contains(last), "{text}");
        assert_eq!(output.stdout, b"");
    }
    oracle.nothing_left();
}

// The limits.

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
        eprintln!("NOT TRIED: this machine writes no core files into the current directory");
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
        setrlimit(Resource::RLIMIT_CORE, 4096, 4096).unwrap();
        give_up_rights();
        let high = 1 << 41;
        for (builder, step) in [
            (new().limit_memory(high), "limiting memory"),
            (new().limit_cpu(1001), "limiting CPU time"),
            (new().limit_descriptors(101), "limiting descriptors"),
            (new().limit_file_size(high), "limiting the size of files"),
            (new().limit_core(4097), "limiting core files"),
            (new().nice(-5), "setting the nice value"),
        ] {
            let error = builder.start((), |()| ()).expect_err(step);
            let StartError::Refused(Refusal::Step { step: found, .. }) = error else {
                panic!("{error:?}");
            };
            assert_eq!(found, step);
        }
        // What is not above is set.
        let builder = new().limit_memory(1 << 39).limit_cpu(999).limit_descriptors(99).nice(5);
        assert_eq!(builder.start(7, |x: u8| x).unwrap().join().unwrap(), 7);
    });
    oracle.nothing_left();
}

// Nice value, CPUs, process group, name.

#[test]
fn the_nice_value_and_the_cpus_are_as_set() {
    let (oracle, _watchdog) = begin();
    let ours = sched_getaffinity(Pid::from_raw(0)).unwrap();
    let allowed: Vec<usize> =
        (0..CpuSet::count()).filter(|&cpu| ours.is_set(cpu).unwrap()).collect();
    let facts = |()| {
        let stat = fs::read_to_string("/proc/self/stat").unwrap();
        let fields = stat.rsplit_once(')').unwrap().1;
        let nice: i32 = fields.split_whitespace().nth(16).unwrap().parse().unwrap();
        let set = sched_getaffinity(Pid::from_raw(0)).unwrap();
        let cpus = (0..CpuSet::count()).filter(|&cpu| set.is_set(cpu).unwrap());
        (nice, cpus.collect::<Vec<_>>())
    };
    let (nice, cpus) = new().start((), facts).unwrap().join().unwrap();
    assert_eq!(cpus, allowed);
    let builder = new().nice(nice + 3).cpu_affinity(allowed.last().copied());
    let expected = (nice + 3, allowed[allowed.len() - 1..].to_vec());
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
        let ours = sched_getaffinity(Pid::from_raw(0)).unwrap();
        let first = (0..CpuSet::count()).find(|&cpu| ours.is_set(cpu).unwrap()).unwrap();
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

// The initializer.

static INITIALIZED: AtomicU32 = AtomicU32::new(0);

#[test]
fn the_initializer_runs_once_and_before_the_function() {
    let (oracle, _watchdog) = begin();
    let count = || {
        INITIALIZED.fetch_add(1, Ordering::SeqCst);
    };
    let process = new().initializer(count).start((), |()| INITIALIZED.load(Ordering::SeqCst));
    assert_eq!(process.unwrap().join().unwrap(), 1);
    assert_eq!(INITIALIZED.load(Ordering::SeqCst), 0);
    oracle.nothing_left();
}

#[test]
fn the_initializer_finds_everything_else_set_up() {
    fn note() {
        let (descriptors, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        INITIALIZED.store(descriptors as u32, Ordering::SeqCst);
        assert_eq!(env::current_dir().unwrap(), Path::new("/"));
        assert_eq!(env::var("EPILOGUE_A").unwrap(), "1");
    }
    let (oracle, _watchdog) = begin();
    let builder = new().initializer(note).current_dir("/").env("EPILOGUE_A", "1");
    let process = builder.limit_descriptors(77).start((), |()| INITIALIZED.load(Ordering::SeqCst));
    assert_eq!(process.unwrap().join().unwrap(), 77);
    oracle.nothing_left();
}

#[test]
fn an_initializer_that_panics_fails_the_start_with_its_message() {
    let (oracle, _watchdog) = begin();
    let error = refused(new().stderr(Stdio::Null).initializer(|| panic!("no licence")));
    let text = error.to_string();
    assert!(text.contains("the initializer") && text.contains("no licence"), "{text}");
    assert!(
        matches!(error, StartError::Refused(Refusal::Step { step, .. }) if step == "the initializer")
    );
    oracle.nothing_left();
}

#[test]
fn an_initializer_that_ends_the_process_fails_the_start_with_its_status() {
    let (oracle, _watchdog) = begin();
    for (initializer, expected) in [
        ((|| process::exit(3)) as fn(), ExitStatus::Exited(3)),
        (|| process::exit(0), ExitStatus::Exited(0)),
        (|| process::abort(), ExitStatus::Signaled { signal: 6, core_dumped: false }),
        (
            || raise(Signal::SIGKILL).unwrap(),
            ExitStatus::Signaled { signal: 9, core_dumped: false },
        ),
    ] {
        let error = refused(new().limit_core(0).initializer(initializer));
        let StartError::EndedEarly { status } = error else { panic!("{error:?}") };
        assert_eq!(status, expected);
    }
    oracle.nothing_left();
}

#[test]
fn an_initializer_that_hangs_ends_with_the_start_deadline() {
    let (oracle, _watchdog) = begin();
    let deadline = Duration::from_millis(300);
    let park = || loop {
        std::thread::park();
    };
    let error = refused(new().start_deadline(deadline).initializer(park));
    assert!(
        matches!(error, StartError::NoHello { deadline: told } if told == deadline),
        "{error:?}"
    );
    assert!(error.to_string().contains("initializer"), "{error}");
    oracle.nothing_left();
}

// Signals.

/// A set of signals, as a line of `/proc/self/status` holds it. Not of it are the two that the C
/// library keeps for itself and deals with as it likes.
fn set(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    let all = u64::from_str_radix(line.trim_start_matches(':').trim(), 16).unwrap();
    all & !(0b11 << 31)
}

const TERMINAL: [Signal; 3] = [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP];

fn bit(signal: Signal) -> u64 {
    1 << (signal as c_int - 1)
}

#[test]
fn the_terminals_signals_do_nothing_to_a_process_and_are_not_ignored() {
    let (oracle, _watchdog) = begin();
    let status = |()| {
        TERMINAL.into_iter().for_each(|signal| raise(signal).unwrap());
        fs::read_to_string("/proc/self/status").unwrap()
    };
    let status = new().start((), status).unwrap().join().unwrap();
    for signal in TERMINAL {
        assert_ne!(set(&status, "SigCgt") & bit(signal), 0, "{signal}");
        assert_eq!(set(&status, "SigIgn") & bit(signal), 0, "{signal}");
    }
    oracle.nothing_left();
}

#[test]
fn a_grandchild_by_exec_has_an_empty_mask_and_default_dispositions() {
    let (oracle, _watchdog) = begin();
    let cat = |()| Command::new("cat").arg("/proc/self/status").output().unwrap().stdout;
    let status = String::from_utf8(new().start((), cat).unwrap().join().unwrap()).unwrap();
    for name in ["SigBlk", "SigIgn", "SigCgt"] {
        assert_eq!(set(&status, name), 0, "{name}");
    }
    oracle.nothing_left();
}

#[test]
fn whatever_a_parent_blocks_or_ignores_its_children_start_with_none_of_it() {
    let (oracle, _watchdog) = begin();
    apart(|()| {
        let ours = [Signal::SIGUSR1, Signal::SIGINT, Signal::SIGTERM, Signal::SIGCHLD];
        ours.into_iter().for_each(|signal| raw::ignore(signal as c_int));
        SigSet::all().thread_block().unwrap();
        let status = |()| fs::read_to_string("/proc/thread-self/status").unwrap();
        let own = status(());
        assert_eq!(set(&own, "SigIgn") & bit(Signal::SIGUSR1), bit(Signal::SIGUSR1));
        let found = Process::start((), status).unwrap().join().unwrap();
        assert_eq!(set(&found, "SigBlk"), 0);
        // As in every program of Rust's.
        assert_eq!(set(&found, "SigIgn"), bit(Signal::SIGPIPE));
    });
    oracle.nothing_left();
}

// All of it together.

#[test]
fn all_options_hold_together_and_a_builder_is_good_for_many_starts() {
    let (oracle, _watchdog) = begin();
    let builder = new()
        .name("all")
        .grace_period(Duration::from_secs(20))
        .env_clear()
        .env("EPILOGUE_A", "1")
        .current_dir("/")
        .stdout(Stdio::Capture)
        .limit_cpu(100)
        .limit_descriptors(50)
        .limit_core(0)
        .nice(1)
        .own_process_group()
        .initializer(|| print!("initialized, "))
        .backtrace();
    for round in 0..3u8 {
        let process = builder.clone().start(round, |round| {
            print!("called in {}", env::current_dir().unwrap().display());
            round
        });
        let output = process.unwrap().join_output();
        assert_eq!(output.result.unwrap(), round);
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "initialized, called in /");
    }
    let end = builder.start((), |()| ()).unwrap().terminate().unwrap();
    assert!(end.rung <= Rung::Signal, "{end:?}");
    oracle.nothing_left();
}
