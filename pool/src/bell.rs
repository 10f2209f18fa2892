//! The bell: wakes the supervisor, but only if it sleeps.
//!
//! A descriptor that is written for every command would cost a system call each. So the supervisor
//! says when it is about to sleep, then looks at its commands once more; a caller sends first and
//! then asks whether the supervisor sleeps. Whichever comes second sees the other.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering, fence};

use nix::sys::eventfd::{EfdFlags, EventFd};

#[derive(Debug)]
pub(crate) struct Bell {
    fd: EventFd,
    asleep: AtomicBool,
}

impl Bell {
    pub(crate) fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self { fd: EventFd::from_flags(flags)?, asleep: AtomicBool::new(false) })
    }

    /// Wakes the supervisor if it sleeps. The command must have been sent before.
    pub(crate) fn ring(&self) {
        // Pairs with the fence in `sleepy`: either we see that it sleeps, or it sees the command.
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::Relaxed) {
            // Full means that it rings already.
            let _ = self.fd.write(1);
        }
    }

    /// The supervisor is about to sleep. It must look for commands after this, before it does.
    pub(crate) fn sleepy(&self) {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The supervisor is up.
    pub(crate) fn awake(&self) {
        self.asleep.store(false, Ordering::Relaxed);
        // Empty means that nobody rang.
        let _ = self.fd.read();
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
