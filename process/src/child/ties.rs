//! What two owners of a child share, so that the process's own end can end it too.

use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::sys::pidfd;
use crate::tree::{Felling, Leader, Tree, TreeEnd};

/// What two owners of a child share.
#[derive(Debug)]
pub(crate) struct Ties {
    pid: libc::pid_t,
    pub(crate) pidfd: OwnedFd,
    pub(crate) stream: UnixStream,
    below: Mutex<Below>,
    asked: Once,
}

/// What becomes of that which the child starts.
#[derive(Debug)]
enum Below {
    /// It is its user's.
    Free,
    /// It ends with the child, whichever owner sees that first.
    Tied(Felling),
    Gone(TreeEnd),
}

/// How far the tree of a child is.
#[derive(Debug)]
pub(crate) enum Fall {
    /// The child runs.
    Standing,
    /// The child has ended, and something below it has not. It is to be looked at again then.
    Falling { again: Instant },
    /// Nothing is left to do; what was done.
    Over(Option<TreeEnd>),
}

impl Ties {
    pub(super) fn new(pid: libc::pid_t, pidfd: OwnedFd, stream: UnixStream) -> Self {
        Self { pid, pidfd, stream, below: Mutex::new(Below::Free), asked: Once::new() }
    }

    /// Puts the child, which has not begun yet, into a tree that ends with it.
    pub(super) fn plant(&self, grace_period: Duration) {
        let felling = Felling::new(Tree::plant(self.pid), grace_period);
        *self.below.lock().unwrap_or_else(PoisonError::into_inner) = Below::Tied(felling);
    }

    /// Asks the child to stop without its wire, which somebody else holds. One that has ended already
    /// needs no signal.
    pub(crate) fn ask_to_stop(&self) {
        let signal = |signal: Signal| {
            let _ = pidfd::send_signal(self.pidfd.as_fd(), signal as i32);
        };
        // Once: code of the child's may take a second one for impatience.
        self.asked.call_once(|| signal(Signal::SIGTERM));
        signal(Signal::SIGCONT);
    }

    /// Kills the child; false if the kernel refuses that. Then it is to be tried again, and the child
    /// learns from its wire meanwhile that nobody wants it any more, and ends by itself.
    pub(crate) fn kill(&self) -> bool {
        let killed = pidfd::kill(self.pidfd.as_fd());
        if !killed {
            // What it has sent can still be received.
            let _ = self.stream.shutdown(Shutdown::Write);
        }
        killed
    }

    /// Kills the child and blocks until it has ended. It is not reaped.
    pub(crate) fn end(&self) {
        if !self.kill() {
            pidfd::end(self.pidfd.as_fd());
        }
        pidfd::await_end(self.pidfd.as_fd());
    }

    /// Goes on to end what the child has left behind, if it has ended, and waits for nothing.
    ///
    /// That has to be over before the child is reaped: until then its number, which may be that of its
    /// process group, cannot mean another, unless other code reaps it.
    pub(crate) fn fell(&self) -> Fall {
        let mut below = self.below.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *below {
            Below::Free => Fall::Over(None),
            Below::Gone(end) => Fall::Over(Some(*end)),
            Below::Tied(_) if !pidfd::has_ended(self.pidfd.as_fd()) => Fall::Standing,
            Below::Tied(felling) => {
                let child = Leader::Ended { pid: self.pid, pidfd: self.pidfd.as_fd() };
                match felling.advance(child, Instant::now()) {
                    Some(end) => {
                        *below = Below::Gone(end);
                        Fall::Over(Some(end))
                    }
                    None => Fall::Falling { again: felling.due() },
                }
            }
        }
    }

    /// The same, and blocks until it is over, or the child turns out to run.
    pub(crate) fn fell_all(&self) -> Fall {
        loop {
            match self.fell() {
                Fall::Falling { again } => {
                    thread::sleep(again.saturating_duration_since(Instant::now()));
                }
                other => return other,
            }
        }
    }
}
