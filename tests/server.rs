//! What a process is promised holds however it begins: every story is told once with `Spawn` and
//! once with `Server`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use epilogue::process::Builder;
use epilogue::{
    ExitStatus, JoinError, Pool, Process, Rung, StartMethod, Stdio, TaskError, end_servers,
};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Pid, getpid};
use support::{Gate, Marks, Oracle, Program, Watchdog, cpus, hooks, nice, nicer, procfs, raw};

const PATIENCE: Duration = Duration::from_secs(300);
const METHODS: [StartMethod; 2] = [StartMethod::Spawn, StartMethod::Server];

fn by(method: StartMethod) -> Builder {
    Process::builder().start_method(method)
}

/// Tells a story with each method; nothing is left of either, nor of the server.
fn with_each(story: impl Fn(StartMethod)) {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    for method in METHODS {
        story(method);
        end_servers();
        oracle.nothing_left();
    }
}

/// What both methods show must be the same.
fn the_same_with_each<T: PartialEq + std::fmt::Debug>(look: impl Fn(StartMethod) -> T) {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let [spawned, forked] = METHODS.map(look);
    assert_eq!(spawned, forked);
    end_servers();
    oracle.nothing_left();
}

#[test]
fn a_value_a_panic_and_every_death_arrive_as_what_they_are() {
    with_each(|method| {
        assert_eq!(
            by(method).start(20u64, |n| (1..=n).product::<u64>()).unwrap().join().unwrap(),
            { 2_432_902_008_176_640_000 }
        );
        let panicked = by(method).start((), |()| -> u8 { panic!("on purpose") }).unwrap().join();
        let Err(JoinError::Panicked(panic)) = panicked else { panic!("{panicked:?}") };
        assert_eq!(panic.message, "on purpose");
        assert!(panic.location.unwrap().contains("server.rs"));
        let exited = by(method).start((), |()| -> u8 { std::process::exit(7) }).unwrap().join();
        assert!(matches!(exited, Err(JoinError::Exited(7))), "{exited:?}");
        let aborted = by(method).start((), |()| -> u8 { std::process::abort() }).unwrap().join();
        assert!(matches!(aborted, Err(JoinError::Signaled { signal: 6, .. })), "{aborted:?}");
        let killed = by(method).start((), |()| raise(Signal::SIGKILL)).unwrap().join();
        assert!(matches!(killed, Err(JoinError::Signaled { signal: 9, .. })), "{killed:?}");
        let large = by(method).start(1 << 20, |length: usize| vec![7u8; length]).unwrap();
        assert_eq!(large.join().unwrap().len(), 1 << 20);
    });
}

fn raise(signal: Signal) {
    nix::sys::signal::raise(signal).unwrap();
}

#[test]
fn a_process_has_no_descriptors_but_the_standard_ones_and_its_own_two() {
    the_same_with_each(|method| {
        let listing = |()| {
            let entries = fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap());
            let mut all: Vec<(String, String)> = entries
                .filter_map(|entry| {
                    let target = fs::read_link(entry.path()).ok()?.to_str()?.to_owned();
                    let kind = target.split([':', '[']).next()?.to_owned();
                    Some((entry.file_name().into_string().ok()?, kind))
                })
                .collect();
            // The listing sees the descriptor it is read through.
            all.retain(|(_, kind)| !kind.starts_with("/proc/"));
            all.sort();
            all
        };
        let all = by(method).start((), listing).unwrap().join().unwrap();
        // The fifth is what tells it of its parent's end.
        let kinds: Vec<_> = all.iter().skip(3).map(|(_, kind)| kind.as_str()).collect();
        assert_eq!(kinds, ["socket", "anon_inode"]);
        all
    });
}

#[test]
fn a_process_has_the_names_signals_directory_and_environment_of_one_that_was_spawned() {
    the_same_with_each(|method| {
        let look = |()| {
            let status = fs::read_to_string("/proc/self/status").unwrap();
            let wanted = ["Name", "SigBlk", "SigIgn", "SigCgt", "Threads", "Umask", "NSpgid"];
            let mut seen: Vec<String> = status
                .lines()
                .filter(|line| wanted.iter().any(|name| line.starts_with(name)))
                .map(str::to_owned)
                .collect();
            let command = fs::read_to_string("/proc/self/cmdline").unwrap();
            seen.push(command.trim_end_matches('\0').to_owned());
            seen.push(std::env::current_dir().unwrap().display().to_string());
            seen.push(format!("{:?}", nix::unistd::getppid()));
            let environment: BTreeSet<_> = std::env::vars().collect();
            (seen, environment)
        };
        let process = by(method).name("a name of its own").start((), look).unwrap();
        let (seen, environment) = process.join().unwrap();
        assert!(seen.iter().any(|line| line.ends_with(": a name of its own")), "{seen:?}");
        assert!(seen.contains(&format!("{:?}", getpid())), "not a child of ours: {seen:?}");
        assert!(environment.iter().all(|(name, _)| !name.starts_with("EPILOGUE_CHILD")));
        assert_eq!(environment, std::env::vars().collect());
        (seen, environment)
    });
}

#[test]
fn every_option_of_a_builder_holds_with_either_method() {
    the_same_with_each(|method| {
        let directory = tempfile::tempdir().unwrap();
        let builder = by(method)
            .env_clear()
            .env("STORY", "told")
            .current_dir(directory.path())
            .stdin(fs::File::open("/proc/self/stat").unwrap())
            .stdout(Stdio::Capture)
            .stderr(Stdio::Null)
            .own_process_group()
            .limit_descriptors(33)
            .nice(nicer())
            .cpu_affinity(cpus().first().copied())
            .initializer(|| print!("before, "));
        let look = |()| {
            println!("from within");
            let stream = |fd| fs::read_link(format!("/proc/self/fd/{fd}")).unwrap();
            let streams = [stream(0), stream(2)].map(|path| path.ends_with("null"));
            let stat = fs::read_to_string("/proc/self/stat").unwrap();
            let mut fields = stat.rsplit(')').next().unwrap().split_whitespace();
            let own_group = fields.nth(2).unwrap() == std::process::id().to_string();
            let limits = fs::read_to_string("/proc/self/limits").unwrap();
            let limit = limits.lines().find(|line| line.starts_with("Max open files"));
            let limit = limit.unwrap().split_whitespace().nth(3).unwrap().to_owned();
            let directory = std::env::current_dir().unwrap();
            let environment: BTreeSet<_> = std::env::vars().collect();
            (streams, own_group, nice(), limit, directory, environment)
        };
        let output = builder.start((), look).unwrap().join_output();
        let (streams, own_group, set, limit, seen, environment) = output.result.unwrap();
        assert_eq!(streams, [false, true]);
        assert!(own_group && set == nicer() && limit == "33", "{own_group} {set} {limit}");
        assert_eq!(seen, directory.path().canonicalize().unwrap());
        assert!(environment.contains(&("STORY".to_owned(), "told".to_owned())));
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "before, from within\n");
        environment
    });
}

#[test]
fn what_the_program_changes_of_itself_is_seen_by_the_next_process() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let mut story = Program::start(&mut program("changes"));
    story.wait_for_line("ready");
    let ending = story.finish();
    assert!(ending.status.success(), "{ending}");
    oracle.nothing_left();
}

#[test]
fn finalizers_run_once_whether_a_process_returns_is_dropped_or_stopped() {
    with_each(|method| {
        let marks = Marks::new();
        let register = |marks: PathBuf| hooks::register(&marks);
        let start = || by(method).start(marks.path(), register).unwrap();
        start().join().unwrap();
        drop(start());
        let mut gate = Gate::new();
        let endless = |(marks, gate): (PathBuf, PathBuf)| -> u8 {
            hooks::register(&marks);
            Gate::pass(&gate);
            loop {
                std::thread::park();
            }
        };
        let stopped = by(method).start((marks.path(), gate.path()), endless).unwrap();
        gate.wait();
        let end = stopped.terminate().unwrap();
        assert_eq!((end.rung, end.status), (Rung::Stop, ExitStatus::Exited(0)));
        assert!(end.finalizers.unwrap().iter().any(|finalizer| finalizer.name == hooks::NAME));
        let signalled = by(method).start((marks.path(), gate.path()), endless).unwrap();
        nix::sys::signal::kill(gate.wait(), Signal::SIGTERM).unwrap();
        let lost = signalled.join();
        assert!(matches!(lost, Err(JoinError::Signaled { signal: 15, .. })), "{lost:?}");
        assert_eq!(hooks::all_ran_once(&marks), 4);
    });
}

#[test]
fn a_process_has_one_thread_besides_its_own() {
    with_each(|method| {
        let count = |()| fs::read_dir("/proc/self/task").unwrap().count();
        assert_eq!(by(method).start((), count).unwrap().join().unwrap(), 2);
    });
}

#[test]
fn what_is_set_for_a_process_holds_for_each_of_its_threads() {
    with_each(|method| {
        let look = |()| {
            let threads = fs::read_dir("/proc/self/task").unwrap();
            let one = |path: PathBuf| {
                let status = fs::read_to_string(path.join("status")).unwrap();
                let cpus = status.lines().find(|line| line.starts_with("Cpus_allowed_list"));
                let stat = fs::read_to_string(path.join("stat")).unwrap();
                let fields = stat.rsplit(')').next().unwrap().split_whitespace();
                (cpus.unwrap().to_owned(), fields.clone().nth(16).unwrap().to_owned())
            };
            threads.map(|thread| one(thread.unwrap().path())).collect::<Vec<_>>()
        };
        let first = cpus()[0];
        let process = by(method).nice(nicer()).cpu_affinity([first]).start((), look).unwrap();
        let both = [(); 2].map(|()| (format!("Cpus_allowed_list:\t{first}"), nicer().to_string()));
        assert_eq!(process.join().unwrap(), both);
    });
}

#[test]
fn a_signal_that_a_process_handles_later_and_blocks_in_its_own_thread_still_ends_it() {
    with_each(|method| {
        let marks = Marks::new();
        let mut gate = Gate::new();
        let blocks = |(marks, gate): (PathBuf, PathBuf)| {
            hooks::register(&marks);
            epilogue::embed::cleanup_on_signal(Signal::SIGUSR2 as i32).unwrap();
            SigSet::all().thread_block().unwrap();
            Gate::pass(&gate);
            loop {
                std::thread::park();
            }
        };
        for signal in [Signal::SIGUSR2, Signal::SIGTERM] {
            let builder = by(method);
            let process: Process<()> = builder.start((marks.path(), gate.path()), blocks).unwrap();
            nix::sys::signal::kill(gate.wait(), signal).unwrap();
            let lost = process.join();
            assert!(
                matches!(lost, Err(JoinError::Signaled { signal: by, .. }) if by == signal as i32),
                "{lost:?}"
            );
        }
        assert_eq!(hooks::all_ran_once(&marks), 2);
    });
}

#[test]
fn a_process_that_cannot_be_stopped_is_killed_at_the_end_of_the_grace_period() {
    with_each(|method| {
        let mut gate = Gate::new();
        let deaf = |gate: PathBuf| {
            raw::ignore(15);
            epilogue::embed::finalizer("endless", || {
                loop {
                    std::thread::park();
                }
            });
            Gate::pass(&gate);
            loop {
                std::thread::park();
            }
        };
        let builder = by(method).grace_period(Duration::from_millis(400));
        let process: Process<()> = builder.start(gate.path(), deaf).unwrap();
        gate.wait();
        let end = process.terminate().unwrap();
        assert_eq!(end.status.signal(), Some(9));
    });
}

#[test]
fn three_hundred_processes_in_a_row_leave_no_descriptor_behind() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let start = |n| by(StartMethod::Server).start(n, |n: u32| n + 1).unwrap();
    assert_eq!(start(0).join().unwrap(), 1);
    let before = procfs::descriptors_of(getpid());
    let in_server = procfs::descriptors_of(the_server());
    for n in 0..300 {
        assert_eq!(start(n).join().unwrap(), n + 1);
    }
    assert_eq!(procfs::descriptors_of(getpid()), before);
    // It may be in the middle of the next fork, as it may have been before.
    while procfs::descriptors_of(the_server()) > in_server {
        std::thread::yield_now();
    }
    end_servers();
    oracle.nothing_left();
}

fn the_server() -> Pid {
    loop {
        let mut servers = procfs::descendants_of(getpid());
        servers.retain(|entry| entry.name == "epilogue-server");
        match &servers[..] {
            [server] => return server.pid,
            [] => panic!("there is no server"),
            // A child that it has forked has its name for a moment.
            _ => std::thread::yield_now(),
        }
    }
}

/// The memory of ours that this process shares, and can write to: which file each is.
fn shared_memory() -> BTreeSet<(String, String)> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let shared = maps.lines().filter(|line| line.contains("rw-s") && line.contains("epilogue"));
    let file = |line: &str| {
        let mut fields = line.split_whitespace().skip(3).map(str::to_owned);
        (fields.next().unwrap(), fields.next().unwrap())
    };
    shared.map(file).collect()
}

#[test]
fn two_processes_share_no_memory_that_they_can_write_to() {
    with_each(|method| {
        // Both are there at the same time, so that no file is the next one under an old number.
        let both = [(); 2].map(|()| by(method).start((), |()| shared_memory()).unwrap());
        let [one, other] = both.map(|process| process.join().unwrap());
        assert!(!one.is_empty() && one.is_disjoint(&other), "{method:?}: {one:?} {other:?}");
    });
}

#[test]
fn a_pool_answers_survives_its_workers_and_reports_every_end() {
    with_each(|method| {
        let marks = Marks::new();
        let pool = Pool::builder().workers(2).start_method(method).start().unwrap();
        assert_eq!(pool.map(0..100u64, |x| x * x).unwrap()[99], 9801);
        for _ in 0..3 {
            let lost = pool.submit((), |()| raise(Signal::SIGKILL)).unwrap().join();
            assert!(matches!(lost, Err(TaskError::WorkerLost(_))), "{lost:?}");
        }
        let register = |marks: PathBuf| hooks::register(&marks);
        pool.map((0..20).map(|_| marks.path()), register).unwrap();
        let report = pool.close().unwrap();
        assert_eq!((report.done, report.lost), (120, 3));
        assert!(hooks::all_ran_once(&marks) >= 1);
    });
}

#[test]
fn a_process_starts_processes_of_its_own_by_either_method() {
    with_each(|method| {
        let inner = |method: bool| {
            let methods = [StartMethod::Spawn, StartMethod::Server];
            let start = |n: u32| by(methods[usize::from(method)]).start(n, |n| n * 2);
            start(1).unwrap().join().unwrap() + start(10).unwrap().join().unwrap()
        };
        for server in [false, true] {
            assert_eq!(by(method).start(server, inner).unwrap().join().unwrap(), 22);
        }
    });
}

fn program(story: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_server_story"));
    command.arg(story);
    command
}

/// The program tells `story` and then says that it is ready; all of it is gone after its end.
fn ends_well(story: &str, signal: Option<Signal>, expected: impl Fn(&support::Ending)) {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let marks = Marks::new();
    let (name, directory): (_, &Path) = marks.variable();
    let mut told = Program::start(program(story).env(name, directory));
    told.wait_for_line("ready");
    if let Some(signal) = signal {
        told.signal(signal);
        // Its input stays open: it ends by the signal, or not at all.
        let _held = told.hold_input();
        told.reap();
    }
    expected(&told.finish());
    oracle.orphans_end_within(Duration::from_secs(10));
    assert_eq!(hooks::all_ran_once(&marks), 2);
    oracle.nothing_left();
}

#[test]
fn nothing_is_left_of_a_program_that_is_killed_while_its_processes_are_busy() {
    ends_well("busy", Some(Signal::SIGKILL), |ending| {
        assert_eq!(ending.signal(), Some(Signal::SIGKILL), "{ending}");
    });
}

#[test]
fn nothing_is_left_of_a_program_that_is_killed_while_its_server_is_stopped() {
    ends_well("server-stopped", Some(Signal::SIGKILL), |ending| {
        assert_eq!(ending.signal(), Some(Signal::SIGKILL), "{ending}");
    });
}

#[test]
fn nothing_is_left_of_a_program_that_is_asked_to_end() {
    ends_well("busy-embed", Some(Signal::SIGTERM), |ending| {
        assert_eq!(ending.signal(), Some(Signal::SIGTERM), "{ending}");
    });
}

#[test]
fn a_preload_that_never_ends_costs_a_program_that_is_asked_to_end_no_finalizer() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let (marks, mut gate) = (Marks::new(), Gate::new());
    let (name, directory): (_, &Path) = marks.variable();
    let mut command = program("preloading");
    let mut told = Program::start(command.env(name, directory).env("GATE", gate.path()));
    gate.wait();
    told.signal(Signal::SIGTERM);
    let held = told.hold_input();
    told.reap();
    drop(held);
    let ending = told.finish();
    assert_eq!(ending.signal(), Some(Signal::SIGTERM), "{ending}");
    assert_eq!(marks.count("finalizer"), 1, "{ending}");
    drop(gate);
    oracle.nothing_left();
}

#[test]
fn a_finalizer_of_a_preload_recovers_from_a_fault_by_the_programs_handler() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let marks = Marks::new();
    let (name, directory): (_, &Path) = marks.variable();
    let ending = Program::start(program("preloaded-finalizer").env(name, directory)).finish();
    assert!(ending.status.success(), "{ending}");
    assert_eq!(marks.count("recovered"), 1, "{ending}");
    oracle.nothing_left();
}

#[test]
fn an_exit_waits_for_one_preload_that_never_ends_and_not_for_those_behind_it() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let (marks, mut gate) = (Marks::new(), Gate::new());
    let (name, directory): (_, &Path) = marks.variable();
    let mut command = program("queued");
    let told = Program::start(command.env(name, directory).env("GATE", gate.path()));
    gate.wait();
    let ending = told.finish();
    assert_eq!(ending.code(), Some(3), "{ending}");
    assert_eq!(marks.count("preload"), 1, "{ending}");
    drop(gate);
    oracle.nothing_left();
}

#[test]
fn a_start_that_a_cleanup_took_the_server_from_has_a_new_one() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let ending = Program::start(&mut program("cleanup")).finish();
    assert!(ending.status.success(), "{ending}");
    oracle.nothing_left();
}

#[test]
fn a_program_that_exits_joins_its_processes_and_ends_its_server() {
    for story in ["exit", "leaked", "static-pool"] {
        ends_well(story, None, |ending| assert_eq!(ending.code(), Some(3), "{ending}"));
    }
}

#[test]
fn a_copy_of_the_program_has_a_server_of_its_own() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let ending = Program::start(&mut program("copy")).finish();
    assert!(ending.status.success(), "{ending}");
    assert_eq!(ending.stdout, "copy 42\noriginal 42\n");
    oracle.nothing_left_within(Duration::from_secs(10));
}
