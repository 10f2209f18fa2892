//! A bell: wakes a thread that waits for it together with other descriptors.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::sys::counter;

/// An eventfd: readable from the first [`ring`](Bell::ring) until it is silenced.
#[derive(Debug)]
pub struct Bell(OwnedFd);

impl Bell {
    /// A bell that is silent.
    ///
    /// # Errors
    ///
    /// The kernel's, if it makes no more descriptors.
    pub fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self(EventFd::from_flags(flags)?.into()))
    }

    /// Rings it: whoever waits wakes up, and so does the next one.
    pub fn ring(&self) {
        ring(&self.0);
    }

    /// It rings no more, until it is rung again.
    pub fn silence(&self) {
        silence(self.0.as_fd());
    }
}

/// Silences a bell of which there is only the descriptor.
///
/// This does not wait, whatever another process that has it does: one that could have its parent wait for
/// a ring would take it away just before. Before Linux 5.8, or where `preadv2` is forbidden, that rests on
/// the flags of the descriptor, which the other process can change.
pub fn silence(bell: BorrowedFd<'_>) {
    counter::take(bell);
}

/// Rings a bell of which there is only the descriptor.
pub(crate) fn ring(bell: &OwnedFd) {
    // Full means that it rings already. Interrupted, it does not.
    while nix::unistd::write(bell, &1u64.to_ne_bytes()) == Err(Errno::EINTR) {}
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<Bell> for OwnedFd {
    fn from(bell: Bell) -> Self {
        bell.0
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::Bell;

    fn rings(bell: &Bell) -> bool {
        poll(&mut [PollFd::new(bell.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO).unwrap() > 0
    }

    #[test]
    fn a_bell_is_silenced_without_a_wait_whoever_has_it_wait_and_has_silenced_it_before() {
        let bell = Bell::new().unwrap();
        bell.ring();
        bell.ring();
        assert!(rings(&bell));
        bell.silence();
        assert!(!rings(&bell));
        // As another process that has it may do.
        fcntl(&bell, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
        let (done, is_done) = mpsc::channel();
        thread::spawn(move || {
            bell.silence();
            done.send(bell).unwrap();
        });
        let bell = is_done.recv_timeout(Duration::from_secs(60)).expect("it waits for a ring");
        bell.ring();
        bell.silence();
        assert!(!rings(&bell));
    }
}
