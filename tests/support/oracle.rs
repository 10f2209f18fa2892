//! The oracle: what a story left behind in this process and below it.
//!
//! The test process becomes a child subreaper, so every process that loses its parent lands here
//! and cannot hide behind init.
//!
//! # Invariants
//! 1. One oracle at a time: children, descriptors and threads belong to the whole process, so the
//!    tests of a binary that use an oracle run one after the other. Every test of such a binary
//!    that starts processes or opens descriptors must use one.
//! 2. Looking changes nothing: no exit status is taken from its owner by `nothing_left`.
//! 3. A verdict that fails ends what it found, so the next test starts clean.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::CString;
use std::fmt;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{Pid, getpid, gettid};

use crate::procfs::{self, Entry};
use crate::sys;

static TURN: Mutex<()> = Mutex::new(());
static COUNT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static HAS_TURN: Cell<bool> = const { Cell::new(false) };
}

/// A thread's turn to start processes that are no part of a story: compilers.
#[derive(Debug)]
pub struct Turn(Option<MutexGuard<'static, ()>>);

/// Waits for this thread's turn, unless it has that already, by an oracle or so.
///
/// What many threads wait for while one makes it (a `OnceLock`) must not be asked for first by one that
/// has an oracle: it would wait for who waits for its turn.
pub fn turn() -> Turn {
    let is_new = !HAS_TURN.get();
    let turn = is_new.then(|| TURN.lock().unwrap_or_else(PoisonError::into_inner));
    HAS_TURN.set(true);
    Turn(turn)
}

impl Drop for Turn {
    fn drop(&mut self) {
        HAS_TURN.set(self.0.is_none());
    }
}

/// Sees what is left of a story: children, orphans, zombies, descriptors, threads.
#[derive(Debug)]
pub struct Oracle {
    descriptors: BTreeMap<i32, String>,
    threads: Vec<Pid>,
    /// The test's thread bears this name while the oracle lives. A thread without a name of its
    /// own inherits it, so it can be told from the threads of tests that wait for their turn.
    name: CString,
    previous_name: CString,
    asked: Cell<bool>,
    _turn: MutexGuard<'static, ()>,
}

impl Oracle {
    /// Waits for this test's turn, then notes what is there before the story starts.
    ///
    /// # Panics
    ///
    /// If there are children already: an earlier test did not use an oracle.
    pub fn begin() -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        prctl::set_child_subreaper(true).unwrap();
        assert!(
            !has_children(),
            "left by an earlier test: {:#?}",
            procfs::descendants_of(getpid())
        );
        let previous_name = prctl::get_name().unwrap();
        let name = format!("oracle-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let name = CString::new(name).unwrap();
        prctl::set_name(&name).unwrap();
        HAS_TURN.set(true);
        Self {
            descriptors: descriptors(),
            threads: procfs::threads_of(getpid()).iter().map(|thread| thread.pid).collect(),
            name,
            previous_name,
            asked: Cell::new(false),
            _turn: turn,
        }
    }

    /// What is left at this moment.
    pub fn leftovers(&self) -> Leftovers {
        self.asked.set(true);
        let mut processes = Vec::new();
        // Again if the last child was reaped by its owner between the two looks.
        while processes.is_empty() && has_children() {
            processes = procfs::descendants_of(getpid());
        }
        let own = self.name.to_string_lossy();
        let ours = |thread: &Entry| {
            thread.name.starts_with("epilogue") || (thread.name == own && thread.pid != gettid())
        };
        let mut threads = procfs::threads_of(getpid());
        threads.retain(|thread| !self.threads.contains(&thread.pid) && ours(thread));
        Leftovers { processes, descriptors: changes(&self.descriptors, &descriptors()), threads }
    }

    /// Asserts that no child is left, not even a zombie, and that the descriptors and the library's
    /// threads are those there were when the oracle began.
    ///
    /// # Panics
    ///
    /// If anything is left. The message lists it.
    #[track_caller]
    pub fn nothing_left(&self) {
        self.await_own_threads();
        let left = self.leftovers();
        if !left.is_empty() {
            end_descendants();
            panic!("left behind:\n{left}");
        }
    }

    /// Waits for the ends of threads that the test has started itself: `thread::scope` waits for
    /// what they do, and their ends come a little later. The library's have names of their own.
    fn await_own_threads(&self) {
        let own = self.name.to_string_lossy();
        while self.leftovers().threads.iter().any(|thread| thread.name == own) {
            thread::yield_now();
        }
    }

    /// Waits until nothing is left: threads of the library's that have nothing more to do end soon,
    /// and nobody waits for them.
    pub fn nothing_left_soon(&self) {
        while !self.leftovers().is_empty() {
            thread::yield_now();
        }
    }

    /// Waits until every child has ended, orphans that came here included, and returns how each
    /// ended. Whoever still wants the status of a child must have waited for it before.
    ///
    /// # Panics
    ///
    /// If one is left after `bound`. The message lists them.
    #[track_caller]
    pub fn orphans_end_within(&self, bound: Duration) -> Vec<WaitStatus> {
        self.asked.set(true);
        let deadline = Instant::now() + bound;
        let mut ended = Vec::new();
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)) {
                Err(Errno::ECHILD) => return ended,
                Err(error) => panic!("waitpid: {error}"),
                Ok(WaitStatus::StillAlive) if wait_for_a_child(deadline) => {}
                Ok(WaitStatus::StillAlive) => {
                    let left = self.leftovers();
                    end_descendants();
                    panic!("left behind after {bound:?}:\n{left}");
                }
                Ok(status) => ended.push(status),
            }
        }
    }

    /// [`orphans_end_within`](Self::orphans_end_within) `bound`, then
    /// [`nothing_left`](Self::nothing_left).
    #[track_caller]
    pub fn nothing_left_within(&self, bound: Duration) -> Vec<WaitStatus> {
        let ended = self.orphans_end_within(bound);
        self.nothing_left();
        ended
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        // The next oracle must find a clean house, also after a test that failed half-way.
        end_descendants();
        let _ = prctl::set_name(&self.previous_name);
        HAS_TURN.set(false);
        if !self.asked.get() && !thread::panicking() {
            panic!("an oracle was begun and never asked");
        }
    }
}

/// What a story left behind.
#[derive(Debug)]
pub struct Leftovers {
    pub processes: Vec<Entry>,
    pub descriptors: Vec<String>,
    pub threads: Vec<Entry>,
}

impl Leftovers {
    pub fn is_empty(&self) -> bool {
        self.processes.is_empty() && self.descriptors.is_empty() && self.threads.is_empty()
    }
}

impl fmt::Display for Leftovers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for process in &self.processes {
            writeln!(f, "  process {process}")?;
        }
        for descriptor in &self.descriptors {
            writeln!(f, "  descriptor {descriptor}")?;
        }
        for thread in &self.threads {
            writeln!(f, "  thread {} ({}, state {})", thread.pid, thread.name, thread.state)?;
        }
        Ok(())
    }
}

fn has_children() -> bool {
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    waitid(Id::All, look | WaitPidFlag::__WALL) != Err(Errno::ECHILD)
}

fn descriptors() -> BTreeMap<i32, String> {
    let listing = fs::read_dir("/proc/self/fd").unwrap().flatten();
    let links = listing.filter_map(|entry| {
        let target = fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned();
        Some((entry.file_name().to_str()?.parse().ok()?, target))
    });
    // The listing sees the descriptor it is read through.
    let own = format!("/proc/{}/fd", getpid());
    // glibc's allocator reads this as it gives memory back: in any thread, also in those of tests
    // that wait for their turn.
    let of_malloc = "/proc/sys/vm/overcommit_memory";
    links.filter(|(_, target)| *target != own && target != of_malloc).collect()
}

/// What is open now and was not before, and what was open before and is closed now.
fn changes(before: &BTreeMap<i32, String>, now: &BTreeMap<i32, String>) -> Vec<String> {
    let opened = now.iter().filter(|(fd, target)| before.get(fd) != Some(target));
    let closed = before.iter().filter(|(fd, _)| !now.contains_key(fd));
    let opened = opened.map(|(fd, target)| format!("{fd} -> {target}"));
    opened.chain(closed.map(|(fd, target)| format!("{fd} -> {target} (closed since)"))).collect()
}

/// Waits until a child ends. False if none has when the deadline is reached.
fn wait_for_a_child(deadline: Instant) -> bool {
    let children = procfs::processes().into_iter().filter(|process| process.parent == getpid());
    let pidfds: Vec<OwnedFd> = children.flat_map(|child| sys::pidfd_open(child.pid)).collect();
    let mut watched: Vec<PollFd<'_>> =
        pidfds.iter().map(|pidfd| PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)).collect();
    let left = deadline.saturating_duration_since(Instant::now());
    let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
    match poll(&mut watched, timeout) {
        Ok(ended) => ended > 0,
        Err(Errno::EINTR) => true,
        Err(error) => panic!("poll: {error}"),
    }
}

/// Kills and reaps all descendants. Each is a child of ours, or becomes one as its parent ends.
fn end_descendants() {
    while has_children() {
        kill_descendants();
        if let Err(error) = waitpid(None, Some(WaitPidFlag::__WALL)) {
            assert_eq!(error, Errno::ECHILD, "waitpid");
        }
    }
}

/// Sends SIGKILL to all descendants of this process, and to nobody else.
pub fn kill_descendants() {
    for process in procfs::descendants_of(getpid()) {
        let Ok(pidfd) = sys::pidfd_open(process.pid) else {
            continue;
        };
        // The pid may have been given to a stranger before the pidfd was opened. Afterwards it
        // cannot be: if it is ours now, the pidfd is ours.
        if procfs::descendants_of(getpid()).iter().any(|entry| entry.pid == process.pid) {
            let _ = sys::pidfd_signal(pidfd.as_fd(), Signal::SIGKILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table<const N: usize>(entries: [(i32, &str); N]) -> BTreeMap<i32, String> {
        entries.into_iter().map(|(fd, target)| (fd, target.to_owned())).collect()
    }

    #[test]
    fn a_descriptor_that_was_opened_replaced_or_closed_is_a_change() {
        let before = table([(0, "tty"), (3, "pipe:[1]"), (4, "log")]);
        let now = table([(0, "tty"), (3, "pipe:[2]"), (9, "memfd")]);
        assert_eq!(changes(&before, &before), [""; 0]);
        let expected = ["3 -> pipe:[2]", "9 -> memfd", "4 -> log (closed since)"];
        assert_eq!(changes(&before, &now), expected);
    }
}
