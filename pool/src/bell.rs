//! A bell: wakes a thread of this process that waits for it together with other descriptors.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};

#[derive(Debug)]
pub(crate) struct Bell(EventFd);

impl Bell {
    pub(crate) fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self(EventFd::from_flags(flags)?))
    }

    pub(crate) fn ring(&self) {
        // Full means that it rings already. Interrupted, it does not.
        while self.0.write(1) == Err(Errno::EINTR) {}
    }

    pub(crate) fn silence(&self) {
        // Empty means that nobody rang.
        let _ = self.0.read();
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
