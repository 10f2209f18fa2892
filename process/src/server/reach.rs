//! What of a server is within reach while a start holds it.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, Weak};

use nix::sys::socket::{Shutdown, shutdown};

use crate::sys::pidfd;

/// A server, for who must not wait for the start that holds it.
#[derive(Debug, Default)]
pub(super) enum Reach {
    /// None was started.
    #[default]
    Nothing,
    /// This one, until it has been reaped.
    Server { pidfd: Weak<OwnedFd>, socket: Weak<OwnedFd> },
    /// The program ends, and whoever held it is not to start another one.
    Ended,
}

impl Reach {
    pub(super) fn of(pidfd: &Arc<OwnedFd>, socket: &Arc<OwnedFd>) -> Self {
        Self::Server { pidfd: Arc::downgrade(pidfd), socket: Arc::downgrade(socket) }
    }

    /// Kills it, for the program's end. The start that holds it sees that, reaps it and its spare child, and
    /// fails.
    ///
    /// Should that start not get so far before the program's end, or the kernel refuse the kill, they end
    /// all the same: both watch their parent (`Server::turn`, `spare::wait`), and a server that is
    /// preloading is killed by the kernel with it (`run_preload`).
    pub(super) fn end(&mut self) {
        if let Self::Server { pidfd, socket } = std::mem::replace(self, Self::Ended) {
            if let Some(socket) = socket.upgrade() {
                hang_up(&socket);
            }
            if let Some(pidfd) = pidfd.upgrade() {
                pidfd::kill(pidfd.as_fd());
            }
        }
    }
}

/// Says that nothing more comes: whoever is at the other end then ends by itself, should the kernel
/// refuse to kill it. Not by closing it: somebody may have forked, and hold a copy.
pub(super) fn hang_up(socket: &OwnedFd) {
    let _ = shutdown(socket.as_raw_fd(), Shutdown::Both);
}
