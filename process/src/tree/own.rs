//! The tree of this process, which it ends itself.
//!
//! Where its parent goes on, that ends what is left. Where the parent is gone, this process is not let
//! start another one any more before it looks for the last time.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use epilogue_embed::ending;
use epilogue_embed::lent::Thread;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{Pid, getpgrp, getppid};

use super::{Cgroup, Group, Leader, Pauses, Tree, TreeEnd, will_pass};
use crate::port::Port;
use crate::sys::seal;

/// How often it is looked, once nothing more can be started.
const SEALED_LOOKS: u32 = 3;

/// Ends what this process has started, which is about to end and has `time` left.
pub(crate) fn end_own(parent: Pid, port: &Port, time: Duration) -> Option<TreeEnd> {
    let tree = Tree::own(parent.as_raw())?;
    Some(Own { parent, port, tree }.end(time))
}

/// Has an orphan's tree ended before the kernel ends the orphan itself, whatever its finalizers do: the
/// last of them may never be reached, and nobody is left who would end it afterwards. Where they have no
/// time at all, that is left to who calls this.
pub(crate) fn end_own_in_time(parent: Pid, port: &Arc<Port>) {
    let needed = ending::granted() / 4;
    if needed.is_zero() {
        return;
    }
    let orphan = (parent, Arc::clone(port), needed);
    // Where there is no thread to be had, that last finalizer is what is left.
    let _ = Thread::start(c"epilogue-tree", orphan, |(parent, port, needed)| {
        // In small steps: clocks are started, stand still and go on meanwhile.
        let step = (*needed / 8).min(Duration::from_millis(10));
        let left = loop {
            match ending::remaining() {
                Some(left) if left <= *needed => break left,
                _ => thread::sleep(step),
            }
        };
        end_own(*parent, port, left);
    });
}

/// This process's tree, and its parent.
struct Own<'a> {
    parent: Pid,
    port: &'a Port,
    tree: Tree,
}

impl Own<'_> {
    /// Asks all others to end, and kills who does not.
    fn end(&mut self, time: Duration) -> TreeEnd {
        // A part for the request: what is deaf to it must be killed before this process is, however
        // busy the machine. Where a parent is left that goes on with it, that is no matter of life and
        // death.
        let grace_period = if self.is_alone() { time / 4 } else { time * 2 / 3 };
        let until = Instant::now() + time * 5 / 6;
        let is_over = || until <= Instant::now();
        let left = self.ask(grace_period);
        // Where that is refused, what it starts while it exits outlives it.
        let is_sealed = self.is_alone() && seal::start_nothing().is_ok();
        let mut looks = if is_sealed { SEALED_LOOKS } else { 1 };
        let (mut killed, mut pauses) = (BTreeSet::<libc::pid_t>::new(), Pauses::default());
        while looks > 0 && !is_over() {
            match self.tree.members(Leader::This) {
                Ok(stubborn) if stubborn.is_empty() => {
                    looks -= 1;
                    // One that was being started just then is there soon.
                    thread::sleep(Duration::from_millis(u64::from(looks)));
                }
                Ok(stubborn) => {
                    killed.extend(&stubborn);
                    self.tree.kill(Leader::This, &stubborn);
                    thread::sleep(pauses.next());
                }
                // It may have no descriptor to look with: a parent that goes on has what it takes.
                Err(error) if !will_pass(&error) || !self.is_alone() => break,
                Err(_) => thread::sleep(pauses.next()),
            }
        }
        let left = left.max(killed.len());
        let running = self.tree.members(Leader::This).map_or(0, |running| running.len());
        let killed = killed.len().saturating_sub(running);
        TreeEnd { mechanism: self.tree.mechanism(), left, killed, running }
    }

    /// Asks them, and waits for those that have heard it: how many there were.
    fn ask(&mut self, grace_period: Duration) -> usize {
        let until = Instant::now() + grace_period;
        let Ok((left, asked)) = self.tree.ask(Leader::This) else { return 0 };
        let mut is_there = || {
            let members = self.tree.members(Leader::This);
            members.map_or(true, |members| !members.is_disjoint(&asked))
        };
        let mut pauses = Pauses::default();
        while Instant::now() < until && is_there() {
            thread::sleep(pauses.next());
        }
        left
    }

    /// Whether the parent is gone. As it dies, it first closes the wire, and only then is it not our
    /// parent any more. If it becomes another program by `exec`, it still is our parent, and knows
    /// nothing of us. Our own end may be closed by code of the user's, which says nothing of that.
    fn is_alone(&self) -> bool {
        let mut wire = [PollFd::new(self.port.stream().as_fd(), PollFlags::empty())];
        let _ = poll(&mut wire, PollTimeout::ZERO);
        let hung_up = wire[0].revents().is_some_and(|it| it.contains(PollFlags::POLLHUP));
        hung_up || getppid() != self.parent
    }
}

impl Tree {
    /// The tree that this process was planted in by its parent.
    fn own(parent: libc::pid_t) -> Option<Self> {
        // Never a group that it only belongs to.
        let leads = || getpgrp() == Pid::this();
        let group = || leads().then(|| Self::ProcessGroup(Group::new(Pid::this().as_raw())));
        Cgroup::own(parent).map(Self::Cgroup).or_else(group)
    }
}
