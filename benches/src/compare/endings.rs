//! W8 from outside: which workers ran their exit handlers, and what is left.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::session::{kill_session, members, reap_orphans, this_program};
use crate::tasks::MARKS;
use crate::workloads::SCENARIOS;

/// How one scenario ended.
#[derive(Debug, Clone)]
pub(super) struct Ending {
    pub(super) peer: &'static str,
    pub(super) scenario: &'static str,
    pub(super) workers: usize,
    pub(super) handlers: usize,
    /// Processes that ran two seconds after the program's end.
    pub(super) left: usize,
    pub(super) seconds: f64,
    /// It was not ready, or did not end.
    pub(super) failure: Option<String>,
}

/// All scenarios of a peer, at the same time: they mostly wait.
pub(super) fn run(peer: &'static str) -> Vec<Ending> {
    let endings = thread::scope(|scope| {
        let all = SCENARIOS.map(|scenario| scope.spawn(move || watch(peer, scenario)));
        all.into_iter().map(|one| one.join().expect("a scenario that was watched")).collect()
    });
    reap_orphans();
    endings
}

fn watch(peer: &'static str, scenario: &'static str) -> Ending {
    let marks = tempfile::tempdir().expect("a directory");
    let mut command = this_program();
    command.args(["W8", peer, scenario]).env(MARKS, marks.path());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("ourselves");
    let ready = becomes_ready(&mut child);
    let start = Instant::now();
    let pid = Pid::from_raw(child.id() as i32);
    // One that has ended is a failure, and seen as such.
    let _ = match scenario.split('-').next() {
        Some("term") => kill(pid, Signal::SIGTERM),
        // As from a terminal: to all of the group.
        Some("int") => kill(Pid::from_raw(-pid.as_raw()), Signal::SIGINT),
        Some("kill") => kill(pid, Signal::SIGKILL),
        _ => Ok(()),
    };
    let ended = ends(&mut child);
    let seconds = start.elapsed().as_secs_f64();
    thread::sleep(Duration::from_secs(2));
    let left = members(child.id()).into_iter().filter(|pid| *pid != child.id()).count();
    kill_session(child.id());
    let _ = child.wait();
    let names: Vec<String> = fs::read_dir(marks.path())
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    let count =
        |kind: &str| names.iter().filter(|name| name.split('.').next() == Some(kind)).count();
    let failure = match (ready, ended) {
        (true, true) => None,
        (false, _) => Some("was never ready".into()),
        (true, false) => Some("did not end".into()),
    };
    Ending {
        peer,
        scenario,
        workers: count("start"),
        handlers: count("atexit"),
        left,
        seconds,
        failure,
    }
}

/// Whether it says so in time.
fn becomes_ready(child: &mut Child) -> bool {
    let output = child.stdout.take().expect("a pipe");
    let (send, said) = mpsc::channel();
    // Not joined: what outlives the program could hold the pipe.
    thread::spawn(move || {
        let mut line = String::new();
        let read = BufReader::new(output).read_line(&mut line);
        let _ = send.send(read.is_ok() && line.trim() == "READY");
    });
    said.recv_timeout(Duration::from_secs(20)).unwrap_or(false)
}

/// Whether it does in time.
fn ends(child: &mut Child) -> bool {
    let end = Instant::now() + Duration::from_secs(10);
    while Instant::now() < end {
        if !matches!(child.try_wait(), Ok(None)) {
            return true;
        }
        thread::sleep(Duration::from_millis(2));
    }
    false
}
