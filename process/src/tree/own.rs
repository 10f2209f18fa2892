//! The tree of this process, which it ends itself.
//!
//! Nobody can be kept from starting another process until this one is gone. Where its parent goes on,
//! that ends what is left. Where the parent is gone, this process kills its tree, and itself with it, as
//! the last that it does: the kernel lets nobody fork out of that.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use epilogue_embed::ending;
use epilogue_embed::lent::Once;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{Pid, getppid};

use super::{CGROUP_PREFIX, Cgroup, Tree, TreeEnd, kill, own_cgroup};
use crate::port::Port;

/// This process, its parent, and its tree.
#[derive(Debug)]
struct Own {
    /// A copy made by `fork` has all this as well, and is not meant.
    this: Pid,
    parent: Pid,
    port: Arc<Port>,
    tree: Tree,
}

static OWN: Once<Own> = Once::new();

/// Ends what this process has started, which is about to end and has `time` left; what it may still
/// start, too, as it ends.
pub(crate) fn end_own(parent: Pid, port: &Arc<Port>, time: Duration) -> Option<TreeEnd> {
    let (this, port) = (Pid::this(), Arc::clone(port));
    let tree = Tree::own(parent.as_raw())?;
    let own = OWN.publish(Own { this, parent, port, tree });
    ending::act_last(end_with_tree);
    Some(own.end(time))
}

fn end_with_tree() {
    if let Some(own) = OWN.get()
        && own.this == Pid::this()
        && own.is_alone()
    {
        own.tree.kill_all();
    }
}

impl Own {
    /// Asks all others to end, and kills who does not.
    fn end(&self, time: Duration) -> TreeEnd {
        // A part for the request: what is deaf to it must be killed before this process is, however
        // busy the machine. Where a parent is left that goes on with it, that is no matter of life and
        // death.
        let grace_period = if self.is_alone() { time / 4 } else { time * 2 / 3 };
        let until = Instant::now() + time * 5 / 6;
        let is_over = || until <= Instant::now();
        let this = self.this.as_raw();
        let (left, mut killed) = (self.tree.ask(this, grace_period), 0);
        while !is_over() {
            let stubborn = self.tree.open_members(this);
            killed += stubborn.len();
            kill(&stubborn, is_over);
            // Alone, it kills those that were started meanwhile as it ends itself.
            if stubborn.is_empty() || self.is_alone() {
                break;
            }
        }
        TreeEnd { mechanism: self.tree.mechanism(), left: left.max(killed), killed }
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
        let group = nix::unistd::getpgrp();
        let made_by_parent = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.starts_with(&format!("{CGROUP_PREFIX}{parent}-")))
        };
        match own_cgroup().filter(made_by_parent) {
            Some(path) => Some(Self::Cgroup(Cgroup { path })),
            // Never a group that it only belongs to.
            None => (group == Pid::this()).then_some(Self::ProcessGroup(group.as_raw())),
        }
    }
}
