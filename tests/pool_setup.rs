//! What a pool's builder sets holds in each worker, the first one and those that replace it; the
//! initializer runs before a worker's first task, and its failure is one error, not a storm.

use std::path::PathBuf;
use std::time::Duration;
use std::{env, fs, process, thread};

use epilogue::pool::Builder;
use epilogue::process::Refusal;
use epilogue::{BuildError, ExitStatus, Pool, Process, StartError, embed};
use nix::libc;
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use nix::sys::signal::{Signal, kill};
use nix::sys::time::TimeValLike;
use nix::unistd::{Pid, getpid};
use support::{Gate, Marks, begin, cpus, nice, nicer, park_for_ever};

const WORKERS: usize = 3;

fn builder(marks: &Marks) -> Builder {
    let (name, directory) = marks.variable();
    Pool::builder().workers(WORKERS).env(name, directory)
}

fn leave_initialized() {
    Marks::from_env().leave("initialized");
}

fn leave_finalized() {
    Marks::from_env().leave("finalized");
}

/// Stands at the gate, so that each worker has one of these tasks: whether its initializer ran.
fn stand((gate, ()): (PathBuf, ())) -> bool {
    Gate::pass(&gate);
    Marks::from_env().pids("initialized").contains(&getpid())
}

#[test]
fn an_initializer_runs_once_before_a_workers_first_task_and_a_finalizer_once_at_its_end() {
    let (oracle, _watchdog) = begin();
    let (marks, mut gate) = (Marks::new(), Gate::new());
    let pool = builder(&marks).initializer(leave_initialized).finalizer(leave_finalized);
    let pool = pool.start().unwrap();
    let stand: Vec<_> =
        (0..WORKERS).map(|_| pool.submit((gate.path(), ()), stand).unwrap()).collect();
    let pids = gate.wait_for(WORKERS);
    gate.open_once();
    assert!(stand.into_iter().all(|task| task.join().unwrap()));
    // One that replaces another begins and ends like it.
    let dies = pool.submit((), |()| -> u8 { process::abort() }).unwrap();
    assert!(dies.join().is_err());
    let report = pool.close().unwrap();
    let mut initialized = marks.pids("initialized");
    assert!(pids.iter().all(|pid| initialized.contains(pid)));
    let died = report.workers.iter().find(|worker| !worker.end.success()).unwrap();
    initialized.retain(|pid| *pid != Pid::from_raw(died.pid as i32));
    assert_eq!(marks.pids("finalized"), initialized, "{report}");
    for worker in report.workers.iter().filter(|worker| worker.end.success()) {
        let ran = worker.end.finalizers.as_deref().unwrap();
        assert!(ran.iter().any(|one| one.name == "finalizer" && one.failure.is_none()), "{report}");
    }
    assert!(report.to_string().contains("finalizers: finalizer"), "{report}");
    drop((pool, gate));
    oracle.nothing_left();
}

#[test]
fn a_pool_serves_as_soon_as_its_first_worker_is_up_though_the_others_are_held_up() {
    let (oracle, _watchdog) = begin();
    let (marks, mut gate) = (Marks::new(), Gate::new());
    std::os::unix::fs::symlink(gate.path(), marks.path().join("gate")).unwrap();
    let pool = builder(&marks).initializer(|| {
        let marks = Marks::from_env();
        if fs::create_dir(marks.path().join("first")).is_err() {
            Gate::pass(&marks.path().join("gate"));
        }
    });
    let pool = pool.start().unwrap();
    gate.wait_for(WORKERS - 1);
    assert_eq!(pool.map(0..100, |x| x * 2).unwrap(), (0..100).map(|x| x * 2).collect::<Vec<_>>());
    gate.open_once();
    assert!(pool.close().unwrap().is_clean());
    drop((pool, gate));
    oracle.nothing_left();
}

/// Why the pool was not started. At most one start a worker was tried.
#[track_caller]
fn not_started(initializer: fn()) -> (Marks, StartError) {
    let marks = Marks::new();
    match builder(&marks).initializer(initializer).start().map(drop) {
        Err(BuildError::Worker(error)) => {
            let tried = marks.count("tried");
            assert!((1..=WORKERS).contains(&tried), "{tried} starts");
            (marks, error)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_initializer_that_panics_is_one_error_with_its_message_and_bounded_starts() {
    let (oracle, _watchdog) = begin();
    let (marks, error) = not_started(|| {
        Marks::from_env().leave("tried");
        embed::finalizer("undo", || Marks::from_env().leave("undone"));
        panic!("no licence");
    });
    let StartError::Refused(Refusal::Step { step, error }) = error else { panic!("{error}") };
    assert!(step.contains("initializer") && error.contains("no licence"), "{step}: {error}");
    // What it had begun is taken down, although it never came up.
    assert_eq!(marks.pids("undone"), marks.pids("tried"));
    oracle.nothing_left();
}

#[test]
fn an_initializer_that_ends_its_process_is_one_error_with_its_status_and_bounded_starts() {
    let (oracle, _watchdog) = begin();
    let (_marks, error) = not_started(|| {
        Marks::from_env().leave("tried");
        process::exit(7);
    });
    assert!(matches!(error, StartError::EndedEarly { status: ExitStatus::Exited(7) }), "{error:?}");
    oracle.nothing_left();
}

#[test]
fn an_initializer_that_fails_is_told_also_where_no_death_at_all_is_few_enough() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::builder().workers(1).restart_intensity(0, Duration::from_secs(1));
    let outcome = pool.initializer(|| process::exit(7)).start().map(drop);
    let Err(BuildError::Worker(error)) = outcome else { panic!("{outcome:?}") };
    assert!(matches!(error, StartError::EndedEarly { status: ExitStatus::Exited(7) }), "{error:?}");
    oracle.nothing_left();
}

#[test]
fn where_one_initializer_fails_the_finalizers_of_the_others_run() {
    let (oracle, _watchdog) = begin();
    let (marks, error) = not_started(|| {
        let marks = Marks::from_env();
        marks.leave("tried");
        // One fails, after all others have begun something, and those never end by themselves.
        if fs::create_dir(marks.path().join("first")).is_err() {
            embed::finalizer("undo", || Marks::from_env().leave("undone"));
            marks.leave("begun");
            park_for_ever();
        }
        while marks.count("begun") < WORKERS - 1 {
            std::thread::yield_now();
        }
        panic!("the first");
    });
    assert!(error.to_string().contains("the first"), "{error}");
    assert_eq!(marks.pids("undone"), marks.pids("begun"));
    assert_eq!(marks.count("begun"), WORKERS - 1);
    oracle.nothing_left();
}

#[test]
fn a_worker_finds_the_environment_directory_limits_and_cpu_that_its_pool_was_given() {
    let (oracle, _watchdog) = begin();
    let directory = fs::canonicalize(env::temp_dir()).unwrap();
    let cpu = cpus()[0];
    let pool = Pool::builder()
        .workers(1)
        .env("EPILOGUE_A", "1")
        .env_remove("PATH")
        .current_dir(&directory)
        .limit_core(0)
        .limit_cpu(1000)
        .nice(nicer())
        .cpu_affinity([cpu]);
    let pool = pool.start().unwrap();
    let look = |()| {
        let limits = [Resource::RLIMIT_CORE, Resource::RLIMIT_CPU];
        (
            (env::var("EPILOGUE_A").ok(), env::var("PATH").ok()),
            (env::current_dir().unwrap(), nice(), cpus()),
            limits.map(|limit| getrlimit(limit).unwrap().1),
        )
    };
    let expected = ((Some("1".to_owned()), None), (directory, nicer(), vec![cpu]), [0, 1000]);
    assert_eq!(pool.submit((), look).unwrap().join().unwrap(), expected);
    pool.submit((), |()| -> u8 { process::abort() }).unwrap().join().unwrap_err();
    assert_eq!(pool.submit((), look).unwrap().join().unwrap(), expected, "in its replacement");
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn a_report_says_what_each_worker_used_of_the_cpu_and_of_memory() {
    const BYTES: usize = 96 << 20;
    let (oracle, _watchdog) = begin();
    // What this process has resident is not to be taken for what a worker had.
    let ours = std::hint::black_box(vec![1u8; 2 * BYTES]);
    let pool = Pool::builder().workers(1).start().unwrap();
    let work = |()| {
        let bytes = std::hint::black_box(vec![1u8; BYTES]);
        while getrusage(UsageWho::RUSAGE_SELF).unwrap().user_time().num_milliseconds() < 100 {}
        bytes.len()
    };
    assert_eq!(pool.submit((), work).unwrap().join().unwrap(), BYTES);
    let report = pool.close().unwrap();
    let usage = report.workers[0].end.usage.unwrap();
    let peak = usage.peak_memory.unwrap() as usize;
    assert!((BYTES..BYTES + BYTES / 2).contains(&peak), "{report}");
    assert!(usage.user.as_millis() >= 100, "{report}");
    assert_eq!(report.usage, usage);
    assert!(report.to_string().contains("CPU 0."), "{report}");
    drop((ours, pool));
    oracle.nothing_left();
}

/// Waits until a worker sleeps on a word that it shares with its parent: it has said that it is up, and
/// waits for a call.
fn await_that_it_is_up(worker: Pid) {
    let asleep = format!("{} ", libc::SYS_futex);
    let is_asleep = || {
        let call = fs::read_to_string(format!("/proc/{worker}/syscall")).unwrap();
        // All other locks are private to a process, which the operation says.
        call.starts_with(&asleep) && call.split(' ').nth(2) == Some("0x0")
    };
    while !is_asleep() {
        thread::yield_now();
    }
}

#[test]
fn a_worker_that_was_up_in_time_is_up_however_late_its_program_looks() {
    const DEADLINE: Duration = Duration::from_secs(4);
    let (oracle, _watchdog) = begin();
    let mut gate = Gate::new();
    let program = Process::builder().env("GATE", gate.path()).start((), |()| {
        let pass = || Gate::pass(std::env::var_os("GATE").unwrap().as_ref());
        let builder = Pool::builder().workers(1).start_deadline(DEADLINE).initializer(pass);
        let report = builder.start().unwrap().close().unwrap();
        (report.workers.len(), report.is_clean())
    });
    let program = program.unwrap();
    let worker = gate.wait();
    let pid = Pid::from_raw(program.id() as i32);
    support::stop(pid);
    drop(gate);
    await_that_it_is_up(worker);
    // The clock of the deadline goes on, and nobody is woken by it.
    thread::sleep(DEADLINE);
    kill(pid, Signal::SIGCONT).unwrap();
    assert_eq!(program.join().unwrap(), (1, true));
    oracle.nothing_left();
}
