//! What surrounds a program costs it nothing, nor does it cost its surroundings anything: a terminal
//! and what else is in front of it, a clock that somebody sets, and numbers of processes that come
//! again.

use std::env;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use epilogue::{Mechanism, Pool, Process, StartMethod, end_servers};
use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpid};
use support::{Ending, Gate, Program, begin, hide_cgroups, not_tried, procfs, raw};

const PROGRAM: &str = env!("CARGO_BIN_EXE_surroundings");

/// By when what was killed is gone.
const BOUND: Duration = Duration::from_secs(20);

#[test]
fn ctrl_c_at_a_terminal_costs_no_worker_anything_and_ends_what_the_tasks_have_started() {
    let (oracle, _watchdog) = begin();
    let terminal = openpty(None, None).unwrap();
    let mut keyboard = File::from(terminal.master);
    // `--ctty` makes its input the terminal of the new session, whose only group is in front.
    let mut command = Command::new("setsid");
    command.args(["--ctty", PROGRAM, "terminal"]).stdin(terminal.slave);
    let mut program = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The command holds the terminal open, too.
    drop(command);
    let mut stdout = BufReader::new(program.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    keyboard.write_all(b"\x03").unwrap();
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    let mut stderr = String::new();
    program.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    let status = program.wait().unwrap();
    let by = format!("sleep ended by {:?}\n", Some(Signal::SIGINT as i32));
    assert_eq!(rest, format!("interrupted\n{by}{by}done\n"), "{status}: {stderr}");
    assert_eq!((status.code(), &*stderr), (Some(0), ""));
    drop((stdout, keyboard));
    oracle.nothing_left();
}

/// Compiles the clock, to be preloaded.
fn compile_clock(library: &Path) {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/surroundings/clock.c");
    let mut cc = Command::new(env::var_os("CC").unwrap_or_else(|| "cc".into()));
    let made = cc.args(["-shared", "-fPIC", source, "-o"]).arg(library).output().unwrap();
    assert!(made.status.success(), "{cc:?}: {}", String::from_utf8_lossy(&made.stderr));
}

#[test]
fn a_clock_that_is_set_again_and_again_changes_no_limit() {
    let (oracle, _watchdog) = begin();
    let directory = tempfile::tempdir().unwrap();
    let library = directory.path().join("clock.so");
    compile_clock(&library);
    let mut set = Command::new(PROGRAM);
    set.env("LD_PRELOAD", &library);
    for (mut command, jumps) in [(Command::new(PROGRAM), false), (set, true)] {
        let ending: Ending = Program::start(command.arg("clock")).finish();
        let (sum, stopped) = ((0..200).sum::<u32>(), "None Stop Some(1)");
        let expected =
            format!("jumps {jumps} Some({jumps})\nsum {sum}\nis timed out true\n{stopped}\n");
        assert_eq!((ending.code(), &*ending.stdout), (Some(0), &*expected), "{ending}");
    }
    drop(directory);
    oracle.nothing_left();
}

/// What is done with a process whose number is a stranger's by now.
#[derive(Debug, Clone, Copy)]
enum Deed {
    Join,
    Kill,
    Terminate,
    Drop,
}

/// Ends a process of ours behind the library's back, and gives its number to a stranger who leads a
/// group.
fn replace(pid: Pid) -> Result<(), String> {
    kill(pid, Signal::SIGKILL).unwrap();
    // The thread of a pool may come first, and then the number is free as well.
    let _ = waitpid(pid, None);
    raw::bystander(pid).map_err(|error| error.to_string())
}

/// Ends the stranger, who must be alive.
#[track_caller]
fn is_unharmed(stranger: Pid, what: impl std::fmt::Debug) {
    let state = waitpid(stranger, Some(WaitPidFlag::WNOHANG));
    assert_eq!(state, Ok(WaitStatus::StillAlive), "{what:?} of a process that is gone");
    kill(stranger, Signal::SIGKILL).unwrap();
    waitpid(stranger, None).unwrap();
}

/// Does everything to processes whose numbers are strangers': why that cannot be tried, if it cannot.
fn reuse(ends_tree: bool) -> Result<(), String> {
    if ends_tree {
        hide_cgroups().map_err(|error| error.to_string())?;
    }
    for deed in [Deed::Join, Deed::Kill, Deed::Terminate, Deed::Drop] {
        let mut gate = Gate::new();
        let builder = Process::builder();
        let builder = if ends_tree { builder.end_tree() } else { builder };
        let process = builder.start(gate.path(), |gate: PathBuf| Gate::pass(&gate));
        let (process, pid) = (process.unwrap(), gate.wait());
        replace(pid)?;
        match deed {
            Deed::Join => assert!(process.join().is_err()),
            Deed::Kill => drop(process.kill()),
            Deed::Terminate => drop(process.terminate()),
            Deed::Drop => drop(process),
        }
        is_unharmed(pid, (deed, ends_tree));
    }
    let mut gate = Gate::new();
    let builder = Pool::builder().workers(1);
    let builder = if ends_tree { builder.end_tree() } else { builder };
    let pool = builder.start().unwrap();
    let task = pool.submit(gate.path(), |gate: PathBuf| Gate::pass(&gate)).unwrap();
    let pid = gate.wait();
    replace(pid)?;
    assert!(task.join().is_err());
    drop(pool.terminate());
    is_unharmed(pid, ("the end of the pool", ends_tree));
    Ok(())
}

/// A process group of which other code has taken the leader's status: what its end says of the tree.
fn without_leader((): ()) -> Result<(Mechanism, usize), String> {
    hide_cgroups().map_err(|error| error.to_string())?;
    let mut gate = Gate::new();
    let process = Process::builder().end_tree().start(gate.path(), |gate: PathBuf| {
        let mut sleep = Command::new("sleep").arg("1000").spawn().unwrap();
        Gate::pass(&gate);
        drop(sleep.wait());
    });
    let (process, pid) = (process.unwrap(), gate.wait());
    kill(pid, Signal::SIGKILL).unwrap();
    waitpid(pid, None).unwrap();
    let tree = process.kill().unwrap().tree.unwrap();
    Ok((tree.mechanism, tree.left))
}

#[test]
fn a_group_whose_leader_other_code_has_reaped_is_ended_all_the_same() {
    let (oracle, _watchdog) = begin();
    match Process::start((), without_leader).unwrap().join().unwrap() {
        Ok(told) => assert_eq!(told, (Mechanism::ProcessGroup, 1)),
        Err(why) => not_tried(format!("cgroups cannot be hidden: {why}")),
    }
    oracle.orphans_end_within(BOUND);
    oracle.nothing_left();
}

#[test]
fn who_got_the_number_of_a_process_that_is_gone_is_not_signalled_in_its_place() {
    let (oracle, _watchdog) = begin();
    for ends_tree in [false, true] {
        if let Err(why) = Process::start(ends_tree, reuse).unwrap().join().unwrap() {
            not_tried(format!("no process with a number of our choice, tree {ends_tree}: {why}"));
        }
    }
    oracle.nothing_left();
}

/// Another process gives itself a child of that number, stands at the gate, and tells afterwards
/// whether the child is unharmed: why that cannot be tried, if it cannot.
fn have_bystander((pid, gate): (i32, PathBuf)) -> Result<(), String> {
    let pid = Pid::from_raw(pid);
    let made = raw::bystander(pid).map_err(|error| error.to_string());
    Gate::pass(&gate);
    made.map(|()| is_unharmed(pid, "the end of the servers"))
}

/// Other code reaps the child that was forked ahead, and its number is a stranger's as the servers end.
fn reuse_of_the_spare((): ()) -> Result<(), String> {
    let forked = Process::builder().start_method(StartMethod::Server);
    forked.start((), |()| ()).unwrap().join().unwrap();
    let spare = loop {
        let family = procfs::descendants_of(getpid());
        if let Some(spare) = family.iter().find(|entry| entry.name == "epilogue-spare") {
            break spare.pid;
        }
    };
    kill(spare, Signal::SIGKILL).unwrap();
    waitpid(spare, None).unwrap();
    let mut gate = Gate::new();
    let other = Process::start((spare.as_raw(), gate.path()), have_bystander).unwrap();
    gate.wait();
    end_servers();
    drop(gate);
    other.join().unwrap()
}

#[test]
fn who_got_the_number_of_a_child_that_was_forked_ahead_outlives_the_servers() {
    let (oracle, _watchdog) = begin();
    if let Err(why) = Process::start((), reuse_of_the_spare).unwrap().join().unwrap() {
        not_tried(format!("no process with a number of our choice: {why}"));
    }
    oracle.nothing_left();
}
