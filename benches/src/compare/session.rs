//! One run of this program, in a session of its own, so that all that it starts is found.

use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::noise::Noise;
use crate::figure::Figure;
use crate::sys::process::in_new_session;

/// What a run printed, and what is to be said of it.
#[derive(Debug, Default)]
pub(crate) struct Finished {
    pub(crate) figures: Vec<Figure>,
    pub(super) noise: f64,
    pub(crate) failure: Option<String>,
}

/// Runs this program, and kills what is left of its session at the end of it, or of `patience`.
pub(crate) fn run(arguments: &[&str], patience: Duration) -> Finished {
    let noise = Noise::begin();
    let mut finished = attempt(arguments, patience).unwrap_or_else(|error| Finished {
        failure: Some(error.to_string()),
        ..Finished::default()
    });
    reap_orphans();
    let what = arguments.iter().filter(|word| !word.starts_with("--"));
    let what = what.copied().collect::<Vec<_>>().join(" ");
    finished.failure = finished.failure.map(|failure| format!("{what}: {failure}"));
    finished.noise = noise.end();
    finished
}

fn attempt(arguments: &[&str], patience: Duration) -> io::Result<Finished> {
    // Files, not pipes: what outlives the run could hold a pipe open.
    let (output, errors) = (tempfile::tempfile()?, tempfile::tempfile()?);
    let mut command = this_program();
    command.args(arguments).stdin(Stdio::null());
    command.stdout(output.try_clone()?).stderr(errors.try_clone()?);
    let mut child = command.spawn()?;
    let id = child.id();
    let (send, ended) = mpsc::channel();
    let waiter = thread::spawn(move || send.send(child.wait()));
    let status = ended.recv_timeout(patience);
    kill_session(id);
    // Nobody can have panicked in it, and what it sent has been received or is no longer wanted.
    let _ = waiter.join();
    let failure = match status {
        Ok(Ok(status)) if status.success() => None,
        Ok(Ok(status)) => Some(told(status, read(errors)?)),
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some(format!("not done after {patience:?}")),
    };
    let figures = read(output)?.lines().flat_map(serde_json::from_str).collect();
    Ok(Finished { figures, noise: 0.0, failure })
}

fn told(status: ExitStatus, errors: String) -> String {
    let first: Vec<&str> = errors.lines().filter(|line| !line.is_empty()).take(4).collect();
    format!("{status}: {}", first.join(" | "))
}

fn read(mut file: File) -> io::Result<String> {
    let mut text = String::new();
    file.rewind()?;
    file.read_to_string(&mut text)?;
    Ok(text)
}

/// This program once more, in a session whose id is its pid.
pub(super) fn this_program() -> Command {
    let mut command = Command::new("/proc/self/exe");
    // What went wrong is told in one line.
    command.env("RUST_BACKTRACE", "0");
    in_new_session(&mut command);
    command
}

/// The processes of a session that run.
pub(super) fn members(session: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_member = |pid: &u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name, in brackets, may have spaces and brackets itself.
        let rest: Vec<&str> = text.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        matches!(rest[..], [state, _, _, of, ..]
            if of.parse() == Ok(session) && !matches!(state, "Z" | "X"))
    };
    pids.filter(is_member).collect()
}

pub(super) fn kill_session(session: u32) {
    for pid in members(session) {
        // One that has just ended is not killed.
        let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
    }
}

/// Waits for those whose parents are gone, a second at most. No other child of ours may be there.
pub(super) fn reap_orphans() {
    let end = Instant::now() + Duration::from_secs(1);
    while Instant::now() < end {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => thread::sleep(Duration::from_millis(5)),
            Err(Errno::ECHILD) => return,
            _ => {}
        }
    }
}
