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
    /// The program ends, and one was held by a start for too long, or was about to be: nobody is to start
    /// another one.
    Ended,
}

impl Reach {
    /// A server was started. If the program's end has come first, it is killed as it would have been then.
    pub(super) fn publish(&mut self, pidfd: &Arc<OwnedFd>, socket: &Arc<OwnedFd>) {
        match self {
            Self::Ended => kill(pidfd, socket),
            Self::Nothing | Self::Server { .. } => {
                let (pidfd, socket) = (Arc::downgrade(pidfd), Arc::downgrade(socket));
                *self = Self::Server { pidfd, socket };
            }
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        matches!(self, Self::Ended)
    }

    /// Kills it, for the program's end. The start that holds it sees that, reaps it and its spare child, and
    /// fails, and so do all that wait for that one, or come later: an exit without a deadline would wait for
    /// each of them. Where the program `may_go_on`, they have a new server.
    ///
    /// Should that start not get so far before the program's end, or the kernel refuse the kill, they end
    /// all the same: both watch their parent (`Server::turn`, `spare::wait`), and a server that is
    /// preloading is killed by the kernel with it (`run_preload`).
    pub(super) fn end(&mut self, may_go_on: bool) {
        let then = if may_go_on { Self::Nothing } else { Self::Ended };
        if let Self::Server { pidfd, socket } = std::mem::replace(self, then)
            && let (Some(pidfd), Some(socket)) = (pidfd.upgrade(), socket.upgrade())
        {
            kill(&pidfd, &socket);
        }
    }
}

fn kill(pidfd: &OwnedFd, socket: &OwnedFd) {
    hang_up(socket);
    pidfd::kill(pidfd.as_fd());
}

/// Says that nothing more comes: whoever is at the other end then ends by itself, should the kernel
/// refuse to kill it. Not by closing it: somebody may have forked, and hold a copy.
pub(super) fn hang_up(socket: &OwnedFd) {
    let _ = shutdown(socket.as_raw_fd(), Shutdown::Both);
}

#[cfg(test)]
#[cfg(not(epilogue_model))]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::server::Born;
    use crate::sys::copy::idle;
    use crate::sys::pidfd::Wait;

    /// What a server is to those who reach for it.
    fn server() -> (Arc<OwnedFd>, Arc<OwnedFd>) {
        let Born { pidfd, .. } = idle(true).unwrap();
        (Arc::new(pidfd), Arc::new(UnixStream::pair().unwrap().0.into()))
    }

    fn is_killed(pidfd: &OwnedFd) -> bool {
        let status = pidfd::wait(pidfd.as_fd(), Wait::Block).unwrap().status;
        status.signal() == Some(9)
    }

    #[test]
    fn a_server_that_is_there_only_after_the_end_is_killed_and_the_end_remembered() {
        let mut reach = Reach::default();
        reach.end(false);
        for _ in 0..2 {
            let (pidfd, socket) = server();
            reach.publish(&pidfd, &socket);
            assert!(reach.has_ended());
            assert!(is_killed(&pidfd));
        }
    }

    #[test]
    fn where_the_program_may_go_on_the_one_that_is_held_is_killed_and_the_next_one_lives() {
        let mut reach = Reach::default();
        for _ in 0..2 {
            let (pidfd, socket) = server();
            reach.publish(&pidfd, &socket);
            assert!(!pidfd::has_ended(pidfd.as_fd()));
            reach.end(true);
            assert!(!reach.has_ended());
            assert!(is_killed(&pidfd));
        }
    }
}
