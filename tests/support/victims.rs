//! Who is hit by a signal in a test that sends them at random.

use std::os::fd::{AsFd, OwnedFd};

use nix::sys::signal::Signal;
use nix::unistd::{Pid, getpid};

use crate::tasks::await_end;
use crate::{Random, procfs, sys};

/// The children of `pid`, zombies included.
pub fn children_of(pid: Pid) -> Vec<Pid> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.map(|thread| std::fs::read_to_string(thread.path().join("children")));
    match lists.collect::<Result<String, _>>() {
        Ok(pids) => {
            let pids = pids.split_whitespace().filter_map(|pid| pid.parse().ok());
            pids.map(Pid::from_raw).collect()
        }
        // A kernel without these lists, or a thread that has just ended.
        Err(_) => {
            let children = procfs::processes().into_iter().filter(|it| it.parent == pid);
            children.map(|child| child.pid).collect()
        }
    }
}

/// Sends `signal` to `victim`, a child of `parent`; false if it is none any more, or dead.
pub fn signal_child(parent: Pid, victim: Pid, signal: Signal) -> bool {
    child(parent, victim).is_some_and(|pidfd| sys::pidfd_signal(pidfd.as_fd(), signal).is_ok())
}

/// Kills `victim`, a child of this process, and returns when it is dead; false if it was before.
///
/// The kill itself returns while the victim may still be about to run.
pub fn end_child(victim: Pid) -> bool {
    let Some(pidfd) = child(getpid(), victim) else { return false };
    let is_killed = sys::pidfd_signal(pidfd.as_fd(), Signal::SIGKILL).is_ok();
    if is_killed {
        await_end(&pidfd);
    }
    is_killed
}

/// The descriptor of `victim`, if that is a child of `parent`, and lives: a signal to a zombie succeeds.
///
/// What reaps children runs beside this: the number may come to mean a stranger.
fn child(parent: Pid, victim: Pid) -> Option<OwnedFd> {
    let pidfd = sys::pidfd_open(victim).ok()?;
    // Whoever has this pid now is a child still, or the number was given to a stranger before.
    (children_of(parent).contains(&victim) && procfs::lives(victim)).then_some(pidfd)
}

/// Kills one of the living children of this process at random, and returns when it is dead; none if
/// there was none to kill. Nobody is counted twice.
pub fn kill_a_child(random: &mut Random) -> Option<Pid> {
    let mut children = children_of(getpid());
    children.retain(|child| procfs::lives(*child));
    let victim = (!children.is_empty()).then(|| random.one_of(&children))?;
    end_child(victim).then_some(victim)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use super::*;

    #[test]
    fn who_is_dead_is_killed_no_second_time() {
        let mut sleep = Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = Pid::from_raw(sleep.id() as i32);
        assert!(procfs::lives(pid) && signal_child(getpid(), pid, Signal::SIGCONT));
        assert!(end_child(pid));
        // A zombie, until it is reaped.
        assert!(children_of(getpid()).contains(&pid));
        assert!(!procfs::lives(pid) && !end_child(pid));
        assert!(!signal_child(getpid(), pid, Signal::SIGKILL));
        assert_eq!(sleep.wait().unwrap().signal(), Some(9));
        assert!(!procfs::lives(pid));
    }
}
