//! The children of a child: ended with it, if that was asked for.
//!
//! What a process starts by `Command` is its user's by default. With `end_tree` it ends with the
//! process, which sees to that itself, as the last that it does: should its parent be killed a moment
//! later, nothing is left to be ended. Where that has happened already, it also starts nothing more from
//! then on (`sys/seal.rs`). What outlives that, since the process was killed, say, is ended
//! by its parent. Either asks by `SIGTERM`, and kills when time is up. Two mechanisms can tell who
//! belongs to the tree:
//!
//! - a cgroup of the process's own, where this program may make one: nothing leaves it, and the
//!   kernel kills it whole;
//! - else a process group: a grandchild that makes a session or group of its own escapes.
//!
//! [`Mechanism`] says which of them held.

mod own;

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::child::wait_for;
use crate::sys::pidfd::{self, AGAIN};

pub(crate) use own::{end_own, end_own_in_time};

/// What told who belongs to a tree of processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Mechanism {
    /// A cgroup (version 2) of the process's own. Nothing escapes it.
    Cgroup,
    /// A process group of the process's own. What makes a group or session of its own escapes; before
    /// Linux 6.9 so do all where other code has taken the exit status of a process that was killed.
    ProcessGroup,
}

/// How the children of a process were ended with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TreeEnd {
    /// What told who they were.
    pub mechanism: Mechanism,
    /// How many there were as the process ended.
    pub left: usize,
    /// How many of them had to be killed, since they did not end when they were asked.
    pub killed: usize,
}

impl TreeEnd {
    /// With those that the process itself had ended before.
    pub(crate) fn after(self, own: Option<Self>) -> Self {
        let (left, killed) = own.map_or((0, 0), |own| (own.left, own.killed));
        let (left, killed) = (self.left.saturating_add(left), self.killed.saturating_add(killed));
        Self { left, killed, ..self }
    }
}

/// Who is at the head of a tree. Where that is a process group, it has the same number.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Leader<'a> {
    /// This process.
    This,
    /// A child that has ended. If other code has reaped it, its number may be a stranger's by now.
    Ended { pid: libc::pid_t, pidfd: BorrowedFd<'a> },
}

impl Leader<'_> {
    fn pid(self) -> libc::pid_t {
        match self {
            Self::This => Pid::this().as_raw(),
            Self::Ended { pid, .. } => pid,
        }
    }

    /// Whether a group of its number is the one that it leads, or led.
    fn keeps_number(self) -> bool {
        match self {
            Self::This => true,
            Self::Ended { pidfd, .. } => pidfd::keeps_number(pidfd),
        }
    }

    /// Kills the group that it led. Before Linux 6.9 that goes by the number, while that is its own.
    fn kill_group(self) {
        let Self::Ended { pid: group, pidfd } = self else { return };
        let sent = pidfd::signal_group(pidfd, libc::SIGKILL);
        let is_known =
            sent.map_or_else(|error| error.raw_os_error() == Some(libc::ESRCH), |()| true);
        if !is_known && pidfd::is_to_be_reaped(pidfd) {
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
    }
}

/// The tree below one child, before it is known whether anything is in it.
#[derive(Debug)]
pub(crate) enum Tree {
    Cgroup(Cgroup),
    /// The child leads the group, so its number is the child's and stays so until it is reaped and the
    /// group is empty.
    ProcessGroup(libc::pid_t),
}

impl Tree {
    /// Puts a child that has not begun yet into a tree of its own. It leads a process group, too.
    pub(crate) fn plant(child: libc::pid_t) -> Self {
        match Cgroup::make().and_then(|cgroup| cgroup.add(child).map(|()| cgroup)) {
            Ok(cgroup) => Self::Cgroup(cgroup),
            // Not delegated to us, or not there at all.
            Err(_) => Self::ProcessGroup(child),
        }
    }

    /// Ends what is left below a child that has ended and was not reaped by us yet.
    ///
    /// When this returns, nothing of it runs any more; who was the child's is reaped by whoever
    /// inherited it.
    pub(crate) fn fell(&self, child: Leader<'_>, grace_period: Duration) -> TreeEnd {
        let left = self.ask(child, grace_period);
        // Those that were started meanwhile had their time, too.
        let mut stubborn = self.open_members(child);
        let mut killed = 0;
        loop {
            killed += stubborn.len();
            // All at once, and also if a look finds nobody: one that forks and ends, again and
            // again, is a step ahead of every look. The child itself has ended.
            self.kill_all(child);
            kill(&stubborn, || false);
            stubborn = self.open_members(child);
            if stubborn.is_empty() {
                break;
            }
        }
        TreeEnd { mechanism: self.mechanism(), left: left.max(killed), killed }
    }

    /// Asks all that run in the tree, but its leader, to end, and waits for that: how many
    /// those are.
    fn ask(&self, leader: Leader<'_>, grace_period: Duration) -> usize {
        let deadline = Instant::now() + grace_period;
        let left = self.open_members(leader);
        for member in &left {
            for signal in [Signal::SIGTERM, Signal::SIGCONT] {
                // One that has ended meanwhile needs no signal.
                let _ = pidfd::send_signal(member.as_fd(), signal as i32);
            }
        }
        await_ends(&mut left.iter().collect(), deadline);
        left.len()
    }

    fn mechanism(&self) -> Mechanism {
        match self {
            Self::Cgroup(_) => Mechanism::Cgroup,
            Self::ProcessGroup(_) => Mechanism::ProcessGroup,
        }
    }

    /// Kills whoever is in the tree, as the kernel knows it: nobody can fork away meanwhile.
    fn kill_all(&self, child: Leader<'_>) {
        match self {
            // Since Linux 5.14.
            Self::Cgroup(cgroup) => drop(fs::write(cgroup.path.join("cgroup.kill"), "1")),
            Self::ProcessGroup(_) => child.kill_group(),
        }
    }

    /// Descriptors of all that run in the tree, without its leader.
    fn open_members(&self, leader: Leader<'_>) -> Vec<OwnedFd> {
        let pids = match self {
            Self::Cgroup(cgroup) => cgroup.members().unwrap_or_default(),
            Self::ProcessGroup(group) => group_members(*group),
        };
        let others = pids.into_iter().filter(|&pid| pid != leader.pid());
        others
            .filter_map(|pid| {
                let opened = pidfd::open(pid).ok()?;
                // By now the number could mean a stranger: whoever is a member, is no stranger.
                self.holds(pid, leader).then_some(opened)
            })
            .collect()
    }

    fn holds(&self, pid: libc::pid_t, leader: Leader<'_>) -> bool {
        match self {
            Self::Cgroup(cgroup) => cgroup.members().is_ok_and(|members| members.contains(&pid)),
            // In this order: a group that is gone does not come back.
            Self::ProcessGroup(group) => group_of(pid) == Some(*group) && leader.keeps_number(),
        }
    }
}

/// Kills them all, and waits until they have ended, or until `is_over`. Again and again: the kernel
/// may refuse it.
fn kill(members: &[OwnedFd], is_over: impl Fn() -> bool) {
    let mut running: Vec<&OwnedFd> = members.iter().collect();
    while !running.is_empty() && !is_over() {
        for member in &running {
            pidfd::kill(member.as_fd());
        }
        await_ends(&mut running, Instant::now() + AGAIN);
    }
}

/// Waits until all have ended, or until `deadline`; takes those out that have.
fn await_ends(running: &mut Vec<&OwnedFd>, deadline: Instant) {
    while !running.is_empty() && Instant::now() < deadline {
        let mut fds: Vec<_> =
            running.iter().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)).collect();
        if wait_for(&mut fds, Some(deadline)) {
            let ended: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(true)).collect();
            let mut ended = ended.into_iter();
            running.retain(|_| !ended.next().unwrap_or(false));
        } else {
            // More than this process may have open: one by one.
            running.retain(|member| !pidfd::has_ended(member.as_fd()));
        }
    }
}

/// How the names of cgroups begin; the parent's pid and a number follow.
const CGROUP_PREFIX: &str = "epilogue-";

/// A cgroup that was made for one child, and goes with it.
#[derive(Debug)]
pub(crate) struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes a cgroup below our own.
    fn make() -> io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{CGROUP_PREFIX}{}-{number}", std::process::id());
        let own = own_cgroup().ok_or(io::ErrorKind::NotFound)?;
        sweep(&own);
        let path = own.join(name);
        fs::create_dir(&path)?;
        Ok(Self { path })
    }

    fn add(&self, pid: libc::pid_t) -> io::Result<()> {
        fs::write(self.path.join("cgroup.procs"), pid.to_string())
    }

    /// The processes in it and in what was made below it. Zombies are not listed.
    fn members(&self) -> io::Result<Vec<libc::pid_t>> {
        let mut found = Vec::new();
        collect(&self.path, &mut found)?;
        Ok(found)
    }
}

fn collect(path: &Path, found: &mut Vec<libc::pid_t>) -> io::Result<()> {
    let procs = fs::read_to_string(path.join("cgroup.procs"))?;
    found.extend(procs.lines().filter_map(|line| line.parse::<libc::pid_t>().ok()));
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), found)?;
        }
    }
    Ok(())
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// Removes what a process left here that was killed before it could do so itself. Its number may
/// come again, and then its name would be taken.
fn sweep(own: &Path) {
    for entry in fs::read_dir(own).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let maker =
            name.to_str().and_then(|name| name.strip_prefix(CGROUP_PREFIX)?.split_once('-'));
        if let Some((pid, _)) = maker
            && !Path::new("/proc").join(pid).exists()
        {
            // Not one in which something still runs: the kernel refuses that.
            remove(&entry.path());
        }
    }
}

/// Removes a cgroup from the bottom up. One that is not empty stays, which only happens if its
/// child was not waited for.
fn remove(path: &Path) {
    let below = fs::read_dir(path).into_iter().flatten().flatten();
    for entry in below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove(&entry.path());
    }
    let _ = fs::remove_dir(path);
}

/// The directory of the cgroup that this process is in, if there is a hierarchy of version 2.
fn own_cgroup() -> Option<PathBuf> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
        .iter()
        .map(|root| Path::new(root).join(path))
        .find(|directory| directory.join("cgroup.procs").exists())
}

fn group_members(group: libc::pid_t) -> Vec<libc::pid_t> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|&pid| group_of(pid) == Some(group))
        .collect()
}

/// The process group of a process that runs. A zombie has ended already.
fn group_of(pid: libc::pid_t) -> Option<libc::pid_t> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything, parentheses included; the fields follow the last of them.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let (state, _parent, group) = (fields.next()?, fields.next()?, fields.next()?);
    (state != "Z" && state != "X").then(|| group.parse().ok()).flatten()
}
