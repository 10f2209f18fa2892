//! Rules of `RULEBOOK.md` that belong to no other file: parents that vanish in their own ways,
//! terminals, pauses, and workers without memory or room on the disk.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use epilogue::{Pool, TaskError, embed};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::openpty;
use nix::sys::signal::{SigSet, Signal, killpg};
use nix::unistd::{self, Pid};
use support::{Gate, Marks, Oracle, Program, Watchdog, begin, hooks, not_tried, procfs, sys};

/// When everything must be gone of a parent that died.
const BOUND: Duration = Duration::from_secs(1);

const WORKERS: usize = 2;

fn command(story: &str, marks: &Marks) -> Command {
    let (name, directory) = marks.variable();
    let mut command = Command::new(env!("CARGO_BIN_EXE_endings"));
    command.arg(story).env(name, directory).process_group(0);
    command
}

/// The workers of a program, by descriptors that name them for good.
fn workers_of(program: &Program) -> Vec<(Pid, OwnedFd)> {
    let workers = procfs::descendants_of(program.pid());
    assert_eq!(workers.len(), WORKERS, "{workers:#?}");
    workers.into_iter().map(|worker| (worker.pid, sys::pidfd_open(worker.pid).unwrap())).collect()
}

/// Waits until all of them have ended.
#[track_caller]
fn end_in_time(workers: &[(Pid, OwnedFd)]) {
    for (pid, pidfd) in workers {
        let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        let ended = poll(&mut fds, PollTimeout::try_from(BOUND).unwrap()).unwrap();
        assert_eq!(ended, 1, "{pid} is alive");
    }
}

#[test]
fn the_workers_of_a_parent_that_crashes_or_leaves_at_once_run_their_finalizers() {
    for (story, signal) in [
        ("faults", Some(Signal::SIGSEGV)),
        ("aborts", Some(Signal::SIGABRT)),
        ("leaves-at-once", None),
    ] {
        let (oracle, _watchdog) = begin();
        let marks = Marks::new();
        let mut program = Program::start(&mut command(story, &marks));
        program.wait_for_line("ready");
        program.reap();
        oracle.orphans_end_within(BOUND);
        let ending = program.finish();
        assert_eq!(ending.signal(), signal, "{ending}");
        assert_eq!(hooks::all_ran_once(&marks), WORKERS, "{ending}");
        assert_eq!(marks.count("task"), 0, "{ending}");
        oracle.nothing_left();
    }
}

#[test]
fn the_workers_of_a_parent_that_becomes_another_program_end() {
    let (oracle, _watchdog) = begin();
    let marks = Marks::new();
    let mut program = Program::start(&mut command("execs", &marks));
    program.wait_for_line("ready");
    let workers = workers_of(&program);
    program.tell("go on");
    program.wait_for_line("replaced");
    end_in_time(&workers);
    // They are zombies of the new program's, which does not know them.
    for left in procfs::descendants_of(program.pid()) {
        let is_known = workers.iter().any(|(pid, _)| *pid == left.pid);
        assert!(is_known && "ZX".contains(left.state), "{left}");
    }
    program.reap();
    oracle.orphans_end_within(BOUND);
    let ending = program.finish();
    assert_eq!(ending.code(), Some(7), "{ending}");
    assert_eq!(hooks::all_ran_once(&marks), WORKERS);
    drop((workers, marks));
    oracle.nothing_left();
}

#[test]
fn the_workers_of_a_program_that_daemonizes_end_with_the_original() {
    let (oracle, _watchdog) = begin();
    let marks = Marks::new();
    let mut program = Program::start(&mut command("daemonizes", &marks));
    program.wait_for_line("ready");
    let workers = workers_of(&program);
    let input = program.tell_and_hold("go on");
    // The copy has every descriptor of the original's, and lives.
    program.wait_for_line("copied");
    program.reap();
    end_in_time(&workers);
    drop(input);
    oracle.orphans_end_within(BOUND);
    drop(program);
    assert_eq!(hooks::all_ran_once(&marks), WORKERS);
    drop((workers, marks));
    oracle.nothing_left();
}

#[test]
fn exit_among_many_threads_in_maps_hangs_nobody() {
    for _ in 0..3 {
        let (oracle, _watchdog) = begin();
        let marks = Marks::new();
        let mut program = Program::start(&mut command("exit-among-maps", &marks));
        program.reap();
        let left = oracle.leftovers().processes;
        assert!(left.is_empty(), "{left:#?}");
        let ending = program.finish();
        assert_eq!((ending.code(), &*ending.stderr), (Some(7), ""), "{ending}");
        assert_eq!(hooks::all_ran_once(&marks), WORKERS);
        drop(marks);
        oracle.nothing_left();
    }
}

#[test]
fn a_terminal_that_is_gone_ends_a_program_with_all_finalizers_but_the_one_that_writes_to_it() {
    let (oracle, _watchdog) = begin();
    let (marks, mut gate) = (Marks::new(), Gate::new());
    let terminal = openpty(None, None).unwrap();
    // Nobody else may hold this end: it is the last one to be closed.
    fcntl(&terminal.master, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
    let (name, directory) = marks.variable();
    let mut command = Command::new("setsid");
    command.args(["--ctty", env!("CARGO_BIN_EXE_endings"), "hangs-up"]);
    command.env(name, directory).env("GATE", gate.path());
    command.stdout(terminal.slave.try_clone().unwrap());
    command.stderr(terminal.slave.try_clone().unwrap()).stdin(terminal.slave);
    let mut program = command.spawn().unwrap();
    // The command holds the terminal open, too.
    drop(command);
    gate.wait();
    drop(terminal.master);
    let status = program.wait().unwrap();
    assert_eq!(status.signal(), Some(Signal::SIGHUP as i32), "{status}");
    assert_eq!(marks.count("program"), 1);
    assert_eq!(hooks::all_ran_once(&marks), WORKERS);
    drop((gate, marks));
    oracle.nothing_left();
}

#[test]
fn a_program_whose_output_nobody_reads_ends_as_well_as_any() {
    for (story, code) in [("dropped", 0), ("exit", 7), ("question", 1), ("panic", 101)] {
        let (oracle, _watchdog) = begin();
        let marks = Marks::new();
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let mut command = command(story, &marks);
        command.stdin(Stdio::null()).stdout(writer.try_clone().unwrap()).stderr(writer);
        let status = command.status().unwrap();
        drop(command);
        assert_eq!(status.code(), Some(code), "{story}: {status}");
        let tasks = if story == "panic" { 0 } else { 6 };
        assert_eq!(marks.count("task"), tasks, "{story}");
        assert_eq!(hooks::all_ran_once(&marks), WORKERS, "{story}");
        drop(marks);
        oracle.nothing_left();
    }
}

#[test]
fn a_worker_that_panics_where_nobody_reads_its_words_goes_on() {
    let (oracle, _watchdog) = begin();
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let file = File::from(OwnedFd::from(writer));
    let pool = Pool::builder().workers(1).stdout(file.try_clone().unwrap()).stderr(file);
    let pool = pool.start().unwrap();
    let outcome = pool.submit((), |()| -> u32 { panic!("unheard") }).unwrap().join();
    let told = matches!(&outcome, Err(TaskError::Panicked(panic)) if panic.message == "unheard");
    assert!(told, "{outcome:?}");
    assert_eq!(pool.submit(1u32, |x| x).unwrap().join().unwrap(), 1);
    let report = pool.close().unwrap();
    assert!(report.is_clean() && report.workers.len() == 1, "{report}");
    drop(pool);
    oracle.nothing_left();
}

/// A program is stopped for so long as Ctrl-Z does it, with tasks that have a limit of so much.
#[track_caller]
fn pause(stopped: Duration, limit: Duration) {
    let (oracle, _watchdog) = begin();
    let marks = Marks::new();
    let mut program = Program::start(command("paused", &marks).arg(limit.as_secs().to_string()));
    program.wait_for_line("ready");
    let mut group = vec![program.pid()];
    group.extend(procfs::descendants_of(program.pid()).iter().map(|worker| worker.pid));
    assert_eq!(group.len(), 1 + WORKERS);
    // All of them, at about the same time.
    killpg(program.pid(), Signal::SIGTSTP).unwrap();
    let is_stopped = |&pid: &Pid| procfs::threads_of(pid).iter().all(|one| one.state == 'T');
    while !group.iter().all(is_stopped) {
        thread::yield_now();
    }
    thread::sleep(stopped);
    killpg(program.pid(), Signal::SIGCONT).unwrap();
    let ending = program.finish();
    assert_eq!((ending.code(), &*ending.stderr), (Some(0), ""), "{ending}");
    assert_eq!(hooks::all_ran_once(&marks), WORKERS, "{ending}");
    drop(marks);
    oracle.nothing_left();
}

#[test]
fn a_program_that_is_stopped_and_continued_with_its_workers_loses_nothing() {
    pause(Duration::ZERO, Duration::from_secs(60));
}

#[test]
fn no_limit_is_reached_by_time_in_which_all_were_stopped() {
    // The limit is what the tasks have before the stop, and again after it, on a busy machine.
    let limit = Duration::from_secs(3);
    pause(limit + limit / 3, limit);
}

#[test]
fn processes_and_workers_are_started_while_every_lock_is_taken() {
    // A thousand of them: a minute where there is an eighth of a core for it.
    let (oracle, _watchdog) = (Oracle::begin(), Watchdog::start(Duration::from_secs(600)));
    let marks = Marks::new();
    let ending = Program::start(&mut command("logs", &marks)).finish();
    assert_eq!(ending.code(), Some(0), "{}", ending.status);
    drop(marks);
    oracle.nothing_left();
}

#[test]
fn a_task_in_foreign_code_that_lets_no_signal_in_does_not_keep_finalizers_from_running() {
    let (oracle, _watchdog) = begin();
    let (marks, mut gate) = (Marks::new(), Gate::new());
    let pool = Pool::builder().workers(1).grace_period(Duration::from_secs(4)).start().unwrap();
    let task = pool.submit((marks.path(), gate.path()), |(marks, gate): (PathBuf, PathBuf)| {
        hooks::register(&marks);
        SigSet::all().thread_block().unwrap();
        Gate::pass(&gate);
        loop {
            unistd::pause();
        }
    });
    let task: epilogue::Task<()> = task.unwrap();
    gate.wait();
    let report = pool.terminate().unwrap();
    assert!(matches!(task.join(), Err(TaskError::Cancelled { begun: true })));
    assert!(report.workers[0].end.finalizers.is_some(), "{report}");
    assert_eq!(hooks::all_ran_once(&marks), 1);
    drop((pool, gate, marks));
    oracle.nothing_left();
}

#[test]
fn a_task_for_which_there_is_no_memory_is_lost_alone() {
    const LIMIT: u64 = 1 << 30;
    let (oracle, _watchdog) = begin();
    let pool = Pool::builder().workers(2).limit_memory(LIMIT).limit_core(0).stderr(
        // The C library says that there is no memory.
        File::options().write(true).open("/dev/null").unwrap(),
    );
    let pool = pool.start().unwrap();
    let lengths = (0..20usize).map(|n| if n == 7 { 2 * LIMIT as usize } else { n });
    let outcomes = pool.map_outcomes(lengths, |length| Vec::<u8>::with_capacity(length).len());
    for (n, outcome) in outcomes.unwrap().into_iter().enumerate() {
        match outcome {
            Err(TaskError::WorkerLost(lost)) => {
                assert_eq!((n, lost.status.signal()), (7, Some(6)), "{lost}");
            }
            outcome => assert!(n != 7 && outcome.is_ok(), "{n}: {outcome:?}"),
        }
    }
    let report = pool.close().unwrap();
    assert_eq!((report.done, report.lost), (19, 1), "{report}");
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn a_finalizer_that_finds_the_disk_full_is_told_of_and_the_others_run() {
    let (oracle, _watchdog) = begin();
    let marks = Marks::new();
    let pool = Pool::new(1).unwrap();
    let task = pool.submit(marks.path(), |marks: PathBuf| {
        hooks::register(&marks);
        embed::finalizer("full", || {
            let mut full = File::options().write(true).open("/dev/full").unwrap();
            full.write_all(b"what there is to save").unwrap();
        });
        let last = marks.clone();
        embed::finalizer("last", move || Marks::at(&last).leave("last"));
    });
    task.unwrap().join().unwrap();
    let report = pool.close().unwrap();
    let ran = report.workers[0].end.finalizers.as_deref().unwrap();
    let failed: Vec<_> = ran.iter().filter(|one| one.failure.is_some()).collect();
    assert!(failed.len() == 1 && failed[0].name == "full", "{report}");
    assert!(report.to_string().contains("No space left on device"), "{report}");
    assert!(report.is_clean(), "a finalizer does not change what its worker exits with: {report}");
    assert_eq!((marks.count("last"), hooks::all_ran_once(&marks)), (1, 1));
    drop((pool, marks));
    oracle.nothing_left();
}

/// What a handler of embed's may call: what `embed/HANDLER.md` lists, for a program that is not
/// measured.
const CALLS_OF_A_HANDLER: [&str; 5] = ["getpid", "gettid", "futex", "sched_yield", "rt_sigreturn"];

#[test]
fn a_handler_leaves_a_note_and_returns() {
    let (oracle, _watchdog) = begin();
    let directory = tempfile::tempdir().unwrap();
    let trace = directory.path().join("trace");
    let tried = Command::new("strace").args(["-o", "/dev/null", "true"]).output();
    if !tried.as_ref().is_ok_and(|output| output.status.success()) {
        not_tried(format!("no strace, or it may not trace: {tried:?}"));
        drop(directory);
        return oracle.nothing_left();
    }
    let mut command = Command::new("strace");
    command.args(["-f", "-o"]).arg(&trace).arg(env!("CARGO_BIN_EXE_embed_story"));
    command.args(["handle:15", "waits:a", "raise:15", "say:returned", "park"]);
    // The finalizer holds the end up until the handler has returned on the other thread.
    let mut program = Program::start(&mut command);
    program.wait_for_line("returned");
    program.tell("end");
    program.finish();
    let trace = fs::read_to_string(&trace).unwrap();
    drop(directory);
    let (thread, _) = trace.split_once("--- SIGTERM").unwrap();
    let thread = thread.rsplit('\n').next().unwrap().split(' ').next().unwrap().to_owned();
    let lines = trace.lines().filter_map(|line| line.strip_prefix(&thread)?.strip_prefix(' '));
    let handler: Vec<_> = lines
        .map(str::trim_start)
        .skip_while(|line| !line.starts_with("--- SIGTERM"))
        .skip(1)
        .map(|line| line.split('(').next().unwrap().trim_start_matches("<... "))
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    let end = handler.iter().position(|call| *call == "rt_sigreturn").expect("it returns");
    let handler = &handler[..end];
    assert!(handler.iter().all(|call| CALLS_OF_A_HANDLER.contains(call)), "{handler:?}");
    assert!(!handler.is_empty(), "{trace}");
    assert!(trace.contains("+++ killed by SIGTERM"), "{trace}");
    oracle.nothing_left();
}
