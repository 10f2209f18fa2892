//! Notes: what a child's code says to its parent beside its answers.

use std::sync::Arc;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::AsFd;

use crate::port::Port;
use crate::task;
use crate::wire::{Frame, Kind};

/// The longest note, in bytes. A child that sends a longer one has broken the protocol.
pub const MAX_NOTE: usize = 16 << 10;

/// Where a child's notes go; for any of its threads.
#[derive(Debug, Clone)]
pub struct Notes(Arc<Port>);

impl Notes {
    pub(crate) fn new(port: Arc<Port>) -> Self {
        Self(port)
    }

    /// Sends a note about the call that runs, if it can go at once and is not too long: nobody waits
    /// for a parent that does not read, or that is gone. Whether it has been sent.
    pub fn send(&self, note: Vec<u8>) -> bool {
        // A socket that can be written has room for three quarters of its buffer.
        let mut fds = [PollFd::new(self.0.stream().as_fd(), PollFlags::POLLOUT)];
        let has_room = poll(&mut fds, PollTimeout::ZERO) == Ok(1)
            && fds[0].revents() == Some(PollFlags::POLLOUT);
        let frame = Frame { id: task::current(), ..Frame::control(Kind::Note, note) };
        has_room && frame.payload.len() <= MAX_NOTE && self.0.try_send(&frame, Duration::ZERO)
    }
}
