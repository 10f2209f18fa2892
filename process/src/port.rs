//! The socket's end in a child: what its threads write to it, and whether to go on.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::socket::MsgFlags;

use crate::bell;
use crate::ring::{self, Listener};
use crate::sys::descriptors::send_with;
use crate::sys::memory::SharedWords;
use crate::wire::{Frame, HEADER, Kind, seal};

/// Whether a child goes on. It only ever moves forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Going {
    On,
    /// No more orders will come: it does those that it has.
    Finishing,
    /// It begins nothing any more.
    Stopping,
}

/// What the main thread and the watcher share.
#[derive(Debug)]
pub(crate) struct Port {
    stream: UnixStream,
    /// Whether a thread is in the middle of a frame.
    writing: Mutex<bool>,
    written: Condvar,
    ring: Arc<SharedWords>,
    doorbell: Option<Arc<OwnedFd>>,
    going: AtomicU8,
}

impl Port {
    pub(crate) fn new(
        stream: UnixStream,
        ring: SharedWords,
        doorbell: Option<Arc<OwnedFd>>,
    ) -> Self {
        let (writing, written, going) = (Mutex::new(false), Condvar::new(), Going::On as u8);
        let (ring, going) = (Arc::new(ring), AtomicU8::new(going));
        Self { stream, writing, written, ring, doorbell, going }
    }

    pub(crate) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    pub(crate) fn ring(&self) -> &Arc<SharedWords> {
        &self.ring
    }

    /// From now on the main thread is given less, or nothing. It is woken to see that.
    pub(crate) fn advance(&self, going: Going) {
        self.going.fetch_max(going as u8, Ordering::AcqRel);
        ring::wake(&self.ring);
    }

    pub(crate) fn has_come_to(&self, going: Going) -> bool {
        self.going.load(Ordering::Acquire) >= going as u8
    }

    /// Tells the parent that there is a reply. Should it be gone, writing the next will find out.
    pub(crate) fn tell(&self, listener: Option<Listener>) {
        match (listener, &self.doorbell) {
            (None, _) => {}
            (Some(Listener::Doorbell), Some(doorbell)) => {
                bell::ring(doorbell);
            }
            (Some(_), _) => drop(self.send(&Frame::control(Kind::Ready, Vec::new()))),
        }
    }

    /// Writes a whole frame that was sealed. If an error says that the kernel has no room, nothing was
    /// written.
    pub(crate) fn write(&self, frame: &[u8], descriptors: &[Arc<OwnedFd>]) -> io::Result<()> {
        let busy = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let busy = self.written.wait_while(busy, |busy| *busy);
        let turn = self.turn(busy.unwrap_or_else(PoisonError::into_inner));
        self.write_in(&turn, frame, descriptors)
    }

    /// Writes a control frame, unless another thread is in the middle of a frame for longer than
    /// `patience`: it may be stuck there for ever, and bytes in between would spoil its frame.
    ///
    /// A thread whose whole frame has arrived may be in the middle of it for a moment more.
    pub(crate) fn try_send(&self, frame: &Frame, patience: Duration) -> bool {
        let busy = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.written.wait_timeout_while(busy, patience, |busy| *busy);
        let (busy, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if *busy {
            return false;
        }
        let turn = self.turn(busy);
        self.write_in(&turn, &sealed(frame), &[]).is_ok()
    }

    /// Writes a control frame, after what other threads write.
    pub(crate) fn send(&self, frame: &Frame) -> io::Result<()> {
        self.write(&sealed(frame), &[])
    }

    fn turn(&self, mut busy: MutexGuard<'_, bool>) -> Turn<'_> {
        *busy = true;
        Turn(self)
    }

    fn write_in(
        &self,
        _turn: &Turn<'_>,
        mut bytes: &[u8],
        mut descriptors: &[Arc<OwnedFd>],
    ) -> io::Result<()> {
        let whole = bytes.len();
        while !bytes.is_empty() {
            let sent = send_with(self.stream.as_fd(), bytes, descriptors, MsgFlags::empty());
            let in_between = || io::Error::from(io::ErrorKind::BrokenPipe);
            let len =
                sent.map_err(|error| if bytes.len() < whole { in_between() } else { error })?;
            bytes = &bytes[len..];
            descriptors = &[];
        }
        Ok(())
    }
}

/// The right to write a frame, given back by being dropped.
struct Turn<'a>(&'a Port);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.writing.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.0.written.notify_one();
    }
}

fn sealed(frame: &Frame) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    bytes.extend_from_slice(&frame.payload);
    seal(frame.kind, frame.slot, frame.id, 0, &mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::{Port, UnixStream};
    use crate::ring::Size;
    use crate::sys::memory::SharedWords;
    use crate::wire::{Frame, Kind};
    use std::thread;
    use std::time::Duration;

    #[test]
    fn a_frame_waits_for_one_that_is_being_written_and_not_for_one_that_is_stuck() {
        let (near, _far) = UnixStream::pair().unwrap();
        let words = SharedWords::create(Size::Once.words()).unwrap().0;
        let port = Port::new(near, words, None);
        let goodbye = Frame::control(Kind::Goodbye, vec![]);
        thread::scope(|s| {
            let turn = port.turn(port.writing.lock().unwrap());
            assert!(!port.try_send(&goodbye, Duration::ZERO));
            let patient = s.spawn(|| port.try_send(&goodbye, Duration::from_secs(60)));
            drop(turn);
            assert!(patient.join().unwrap());
        });
    }
}
