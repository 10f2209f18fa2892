//! Bells, of which one may be deaf.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use crate::bells;
pub use crate::bells::bell::silence;

#[derive(Debug)]
pub struct Bell {
    bell: bells::Bell,
    is_mute: bool,
}

impl Bell {
    pub fn new() -> io::Result<Self> {
        Ok(Self { bell: bells::Bell::new(), is_mute: false })
    }

    /// The same one: whoever rings it here rings nothing.
    pub fn mute(&self) -> Self {
        Self { bell: self.bell.clone(), is_mute: true }
    }

    pub fn ring(&self) {
        if !self.is_mute {
            self.bell.ring();
        }
    }

    pub fn silence(&self) {
        silence(self.as_fd());
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}
