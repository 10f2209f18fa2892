//! A bell: wakes a thread that waits for it together with other descriptors.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};

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
        // Nothing to read means that nobody rang.
        let _ = nix::unistd::read(&self.0, &mut [0; 8]);
    }
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
