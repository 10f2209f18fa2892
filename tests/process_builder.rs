//! What a builder sets holds in the process, before any code of the user's runs there; what cannot
//! be set fails the start, names the step, and leaves nothing.

use std::env;
use std::ffi::OsString;
use std::fs::{self};
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use epilogue::process::{Builder, Refusal};
use epilogue::{ExitStatus, Process, Rung, StartError, StartMethod, Stdio};
use nix::libc::c_int;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal, raise};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use support::{begin, nicer, not_tried, raw, refused, refused_step};

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
    let names = ["EPILOGUE_A=", "EPILOGUE_B=", "EPILOGUE_C="];
    let ours = found.iter().filter(|text| names.iter().any(|name| text.starts_with(name)));
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
            return not_tried("this user may not change the root directory");
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

fn directory((): ()) -> PathBuf {
    env::current_dir().unwrap()
}

#[test]
fn where_there_is_no_proc_a_start_fails_and_says_what_it_needs() {
    let (oracle, _watchdog) = begin();
    let root = tempfile::tempdir().unwrap();
    let story = |root: PathBuf| {
        let null = root.join("dev/null");
        let device = fs::create_dir(root.join("dev")).and_then(|()| {
            let mode = Mode::S_IRUSR | Mode::S_IWUSR;
            Ok(mknod(&null, SFlag::S_IFCHR, mode, makedev(1, 3))?)
        });
        if device.and_then(|()| Ok(nix::unistd::chroot(&root)?)).is_err() {
            return not_tried("this user may not make a root directory with a device");
        }
        let error = refused_quietly(new().stdin(Stdio::Null));
        let StartError::System { step, source } = &error else { panic!("{error:?}") };
        assert_eq!(*step, "starting /proc/self/exe");
        assert_eq!(source.kind(), std::io::ErrorKind::NotFound);
        let pool = epilogue::Pool::new(2).map(drop).unwrap_err();
        assert!(pool.to_string().contains("/proc/self/exe"), "{pool}");
    };
    Process::start(root.path().to_owned(), story).unwrap().join().unwrap();
    drop(root);
    oracle.nothing_left();
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
        .nice(nicer())
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
