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

mod cgroup;
mod felling;
mod group;
mod own;

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use self::cgroup::Cgroup;
use self::felling::{Pauses, will_pass};
use self::group::Group;
use crate::sys::pidfd;

pub(crate) use felling::Felling;
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
    /// How many of them run on. The kernel does not let this program kill them: they have become
    /// another user's, say, by `sudo`.
    pub running: usize,
}

impl TreeEnd {
    /// With those that the process itself had ended before.
    pub(crate) fn after(self, own: Option<Self>) -> Self {
        let Some(own) = own else { return self };
        // What ran on was found again.
        let left = own.left.saturating_sub(own.running).saturating_add(self.left);
        Self { left, killed: own.killed.saturating_add(self.killed), ..self }
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

    /// Signals the group that it led; whether that reached anybody. Before Linux 6.9 that goes by the
    /// number, while that is its own. Not the group of this process, which would be signalled, too.
    fn signal_group(self, signal: Signal) -> bool {
        let Self::Ended { pid: group, pidfd } = self else { return false };
        match pidfd::signal_group(pidfd, signal as i32) {
            Err(error) if error.raw_os_error() != Some(libc::ESRCH) => {
                pidfd::is_to_be_reaped(pidfd) && killpg(Pid::from_raw(group), signal).is_ok()
            }
            sent => sent.is_ok(),
        }
    }
}

/// The tree below one child, before it is known whether anything is in it.
#[derive(Debug)]
pub(crate) enum Tree {
    Cgroup(Cgroup),
    /// The child leads the group, so its number is the child's and stays so until it is reaped and the
    /// group is empty.
    ProcessGroup(Group),
}

/// Descriptors of processes, and those that none could be opened for.
type Opened = (Vec<(libc::pid_t, OwnedFd)>, BTreeSet<libc::pid_t>);

impl Tree {
    /// Puts a child that has not begun yet into a tree of its own. It leads a process group, too.
    pub(crate) fn plant(child: libc::pid_t) -> Self {
        match Cgroup::make().and_then(|cgroup| cgroup.add(child).map(|()| cgroup)) {
            Ok(cgroup) => Self::Cgroup(cgroup),
            // Not delegated to us, or not there at all.
            Err(_) => Self::ProcessGroup(Group::new(child)),
        }
    }

    fn mechanism(&self) -> Mechanism {
        match self {
            Self::Cgroup(_) => Mechanism::Cgroup,
            Self::ProcessGroup(_) => Mechanism::ProcessGroup,
        }
    }

    /// All that run in the tree, but its leader.
    fn members(&mut self, leader: Leader<'_>) -> io::Result<BTreeSet<libc::pid_t>> {
        let mut pids = match self {
            Self::Cgroup(cgroup) => cgroup.members()?,
            Self::ProcessGroup(group) => {
                let pids = group.members()?;
                // In this order: a group that is gone does not come back.
                if leader.keeps_number() { pids } else { BTreeSet::new() }
            }
        };
        pids.remove(&leader.pid());
        Ok(pids)
    }

    /// Asks all that run in the tree, but its leader, to end: how many those are, and who has heard.
    fn ask(&mut self, leader: Leader<'_>) -> io::Result<(usize, BTreeSet<libc::pid_t>)> {
        const REQUEST: [Signal; 2] = [Signal::SIGTERM, Signal::SIGCONT];
        let members = self.members(leader)?;
        let (opened, unopened) = self.open(&members, leader);
        // For want of descriptors: all at once, but those that have left the group.
        if !unopened.is_empty() && REQUEST.map(|signal| leader.signal_group(signal)) == [true; 2] {
            return Ok((members.len(), members));
        }
        let has_heard = |(pid, member): (libc::pid_t, OwnedFd)| {
            let send = |signal| pidfd::send_signal(member.as_fd(), signal as i32).is_ok();
            REQUEST.map(send).contains(&true).then_some(pid)
        };
        Ok((members.len(), opened.into_iter().filter_map(has_heard).collect()))
    }

    /// Kills whoever is in the tree, and of `pids` those that still are; whether the kernel has done that
    /// to anybody, whose end then comes.
    fn kill(&mut self, leader: Leader<'_>, pids: &BTreeSet<libc::pid_t>) -> bool {
        // As the kernel knows them: nobody can fork away meanwhile.
        let is_group_killed = match (&mut *self, leader) {
            (Self::Cgroup(cgroup), Leader::Ended { .. }) if cgroup.kill_all() => return true,
            (Self::ProcessGroup(_), _) => leader.signal_group(Signal::SIGKILL),
            (Self::Cgroup(_), _) => false,
        };
        let (opened, unopened) = self.open(pids, leader);
        // What the group's says is of its leader, too: it counts where nothing else is to be had.
        let were_killed = is_group_killed && !unopened.is_empty();
        opened.iter().fold(were_killed, |any, (_, member)| pidfd::kill(member.as_fd()) || any)
    }

    /// Opens those of `pids` that still are members.
    fn open(&mut self, pids: &BTreeSet<libc::pid_t>, leader: Leader<'_>) -> Opened {
        if pids.is_empty() {
            return Opened::default();
        }
        let tried: Vec<_> = pids.iter().map(|&pid| (pid, pidfd::open(pid))).collect();
        // By now a number could mean a stranger: whoever is a member, is no stranger.
        let Ok(members) = self.members(leader) else { return (Vec::new(), pids.clone()) };
        let (mut opened, mut unopened) = Opened::default();
        for (pid, member) in tried.into_iter().filter(|(pid, _)| members.contains(pid)) {
            match member {
                Ok(member) => opened.push((pid, member)),
                Err(_) => _ = unopened.insert(pid),
            }
        }
        (opened, unopened)
    }
}
