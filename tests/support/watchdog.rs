//! The watchdog: a hang is a failure that says where it hangs.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::process;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Pid, getpid};

use crate::oracle::kill_descendants;
use crate::procfs::{self, Entry};

/// Ends this process and all its descendants unless it is dropped in time.
///
/// It has no descriptors and holds no lock, so an oracle does not see it and a hang cannot stop it.
#[derive(Debug)]
pub struct Watchdog {
    calm: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// Starts to watch the calling test. When `patience` ends first, the threads of this process
    /// and the tree below it are described on standard error, and all of them are ended.
    pub fn start(patience: Duration) -> Self {
        let test = thread::current().name().unwrap_or("unnamed").to_owned();
        let (calm, bark) = mpsc::channel::<()>();
        let (named, ready) = mpsc::channel::<()>();
        let watch = move || {
            // The thread has its own name from here on, not one inherited from the test.
            drop(named);
            if bark.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
                end_the_hang(&test, patience);
            }
        };
        let thread = thread::Builder::new().name("watchdog".to_owned()).spawn(watch).unwrap();
        let _ = ready.recv();
        Self { calm: Some(calm), thread: Some(thread) }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.calm.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn end_the_hang(test: &str, patience: Duration) -> ! {
    let report = format!(
        "\nwatchdog: `{test}` has not ended within {patience:?}; ending it and all below it\n{}\n",
        describe_tree()
    );
    // Not `eprintln!`: the test harness captures that, and the capture dies with the process.
    let _ = io::stderr().write_all(report.as_bytes());
    kill_descendants();
    // The report is above; a core file in the working directory would only be litter.
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    // Not `exit`: the handlers that it runs may be what hangs.
    process::abort()
}

/// The threads of this process and the tree below it: where each waits, and what it has open.
pub fn describe_tree() -> String {
    let mut text = String::from("threads of the test process:\n");
    for thread in procfs::threads_of(getpid()) {
        describe(&mut text, &thread, &format!("/proc/self/task/{}", thread.pid));
    }
    text.push_str("descendants:\n");
    for process in procfs::descendants_of(getpid()) {
        describe(&mut text, &process, &format!("/proc/{}", process.pid));
        for thread in procfs::threads_of(process.pid) {
            if thread.pid != process.pid {
                let directory = format!("/proc/{}/task/{}", process.pid, thread.pid);
                describe(&mut text, &thread, &directory);
            }
        }
        describe_descriptors(&mut text, process.pid);
    }
    text
}

fn describe(text: &mut String, entry: &Entry, directory: &str) {
    let _ = writeln!(text, "  {entry}");
    for file in ["wchan", "syscall", "stack"] {
        // What this user may not read is left out.
        let content = fs::read_to_string(format!("{directory}/{file}")).unwrap_or_default();
        for line in content.lines() {
            let _ = writeln!(text, "      {file}: {line}");
        }
    }
}

fn describe_descriptors(text: &mut String, pid: Pid) {
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
        if let Ok(target) = fs::read_link(entry.path()) {
            let fd = entry.file_name();
            let _ = writeln!(text, "      fd {}: {}", fd.display(), target.display());
        }
    }
}
