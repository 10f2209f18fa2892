//! The child's end of its wire: what its main function serves from.
//!
//! A thread of the child, the watcher, reads the wire and watches the parent, so that a request
//! to stop and the parent's death are seen in the middle of a call. The main thread takes the
//! calls that the watcher has read, and writes the replies itself.

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::Receiver;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, send};

use crate::codec::Limits;
use crate::local;
use crate::sys::memory::SharedWords;
use crate::sys::process::exit_now;
use crate::wire::{Frame, HEADER, Kind, seal};

/// What a child's main function is asked to do next.
#[derive(Debug)]
#[non_exhaustive]
pub enum Order {
    /// Answer this call, unless [`Link::claim`] says that it was taken back.
    Call(Call),
    /// Keep this data for calls that name it.
    Share(u64, Vec<u8>),
    /// Drop the data of this number.
    Forget(u64),
}

/// One call, as the child received it.
#[derive(Debug)]
pub struct Call {
    id: u64,
    slot: u32,
    /// What the parent sent along.
    pub payload: Vec<u8>,
}

/// The child's end of its wire.
#[derive(Debug)]
pub struct Link {
    orders: Receiver<Order>,
    port: Arc<Port>,
    limits: Limits,
    owner: u32,
}

impl Link {
    pub(crate) fn new(orders: Receiver<Order>, port: Arc<Port>, limits: Limits) -> Self {
        Self { orders, port, limits, owner: std::process::id() }
    }

    /// What to do next. None when the child shall leave: no more will come, or it has to stop.
    pub fn next(&self) -> Option<Order> {
        let order = self.orders.recv().ok()?;
        (!self.port.stopping.load(Ordering::Acquire)).then_some(order)
    }

    /// Claims a call; false if the parent has taken it back, and it must not be begun.
    pub fn claim(&self, call: &Call) -> bool {
        local::claim(&self.port.claims, call.slot, call.id)
    }

    /// Answers a call with what `write` appends.
    ///
    /// False if the parent is gone: there is nobody left to work for. In a process that `write`
    /// forked, this does not return: the copy ends here, with code 0.
    pub fn reply(&self, call: &Call, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut frame = vec![0; HEADER];
        write(&mut frame);
        if std::process::id() != self.owner {
            // The call forked, and returns in the copy as well. The answer, the wire and all other
            // calls are the original's, and so are the finalizers.
            exit_now(0);
        }
        seal(Kind::Reply, call.slot, call.id, &mut frame);
        self.port.write(&frame).is_ok()
    }

    /// The limits that the parent set for what is sent.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }
}

/// What the main thread and the watcher share: the writing end, and whether to stop.
#[derive(Debug)]
pub(crate) struct Port {
    stream: UnixStream,
    /// Whether a thread is in the middle of a frame.
    writing: Mutex<bool>,
    written: Condvar,
    claims: SharedWords,
    stopping: AtomicBool,
}

impl Port {
    pub(crate) fn new(stream: UnixStream, claims: SharedWords) -> Self {
        let (writing, written) = (Mutex::new(false), Condvar::new());
        Self { stream, writing, written, claims, stopping: AtomicBool::new(false) }
    }

    pub(crate) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// From now on [`Link::next`] gives out nothing more.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Writes a whole frame that was sealed.
    pub(crate) fn write(&self, frame: &[u8]) -> nix::Result<()> {
        let busy = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let busy = self.written.wait_while(busy, |busy| *busy);
        let turn = self.turn(busy.unwrap_or_else(PoisonError::into_inner));
        self.write_in(&turn, frame)
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
        self.write_in(&turn, &sealed(frame)).is_ok()
    }

    /// Writes a control frame, after what other threads write.
    pub(crate) fn send(&self, frame: &Frame) -> nix::Result<()> {
        self.write(&sealed(frame))
    }

    fn turn(&self, mut busy: MutexGuard<'_, bool>) -> Turn<'_> {
        *busy = true;
        Turn(self)
    }

    fn write_in(&self, _turn: &Turn<'_>, mut bytes: &[u8]) -> nix::Result<()> {
        while !bytes.is_empty() {
            match send(self.stream.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL) {
                Ok(len) => bytes = &bytes[len..],
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error),
            }
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
    seal(frame.kind, frame.slot, frame.id, &mut bytes);
    bytes
}

/// Turns a frame from the parent into an order, if it is one.
pub(crate) fn order(frame: Frame) -> Option<Order> {
    let Frame { kind, slot, id, payload } = frame;
    match kind {
        Kind::Call => Some(Order::Call(Call { id, slot, payload })),
        Kind::Share => Some(Order::Share(id, payload)),
        Kind::Forget => Some(Order::Forget(id)),
        Kind::Start | Kind::Finish | Kind::Stop => None,
        Kind::Hello | Kind::Refusal | Kind::Reply | Kind::Goodbye => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{Port, UnixStream};
    use crate::sys::memory::SharedWords;
    use crate::wire::{Frame, Kind};
    use std::thread;
    use std::time::Duration;

    #[test]
    fn a_frame_waits_for_one_that_is_being_written_and_not_for_one_that_is_stuck() {
        let (near, _far) = UnixStream::pair().unwrap();
        let port = Port::new(near, SharedWords::create().unwrap().0);
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
