//! A wire over any stream of bytes, such as a TCP connection: nothing is shared but the stream.
//!
//! A child answers in order, so of its unanswered calls only the first can have been begun. What
//! it has read ahead cannot be seen from here, so no call is ever taken back.
//!
//! Only bytes travel: what refers to descriptors is refused, see [`WireError::BytesOnly`].

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, Shutdown, shutdown};

use crate::parcel::Parcel;
use crate::ring::{Reply, Ticket};
use crate::sys::descriptors::{self, is_for_want};
use crate::sys::pidfd::AGAIN;
use crate::wire::{Inbox, Kind, Outbox, Received, Wire, WireError};

/// A [`Wire`] over a connected stream socket.
#[derive(Debug)]
pub struct StreamWire<S> {
    stream: S,
    inbox: Inbox,
    outbox: Outbox,
    /// The kernel has no room for what is next to be written, which is tried again then.
    refused: Option<(io::Error, Instant)>,
    /// The calls without an answer, and their tickets.
    unanswered: VecDeque<(u64, Ticket)>,
    sent: u64,
    end_seen: bool,
    /// How many bytes there still are of a peer that has ended.
    left: Option<usize>,
    /// How often it was read since [`Wire::receive`] gave something else than a frame.
    reads: u32,
}

impl<S: AsFd> StreamWire<S> {
    /// How often it is read before others have their turn.
    const READS: u32 = 16;

    /// Wraps a connected stream socket; frames of more than `limit` bytes are refused.
    pub fn new(stream: S, limit: usize) -> Self {
        Self {
            stream,
            inbox: Inbox::new(limit),
            outbox: Outbox::default(),
            refused: None,
            unanswered: VecDeque::new(),
            sent: 0,
            end_seen: false,
            left: None,
            reads: 0,
        }
    }

    /// Whether nothing waits to be written.
    pub fn is_flushed(&self) -> bool {
        self.outbox.is_empty()
    }

    /// How many bytes wait to be written.
    pub(crate) fn unsent(&self) -> usize {
        self.outbox.len()
    }

    /// What the kernel has no room for now, and when it is to be tried again. That there is room in the
    /// socket says nothing about it.
    pub(crate) fn refused(&self) -> Option<&(io::Error, Instant)> {
        self.refused.as_ref()
    }

    pub(crate) fn queue(
        &mut self,
        kind: Kind,
        slot: u32,
        id: u64,
        payload: &[u8],
        descriptors: &[Arc<OwnedFd>],
    ) {
        self.outbox.push(kind, slot, id, payload, descriptors);
    }

    /// The peer has ended: what it has written is there by now. Whoever else has its end, such as a copy
    /// that it made of itself, is not listened to.
    pub(crate) fn peer_has_ended(&mut self) {
        self.left = descriptors::waiting(self.stream.as_fd()).ok();
    }

    /// The next frame, if others are not to have their turn.
    fn next(&mut self) -> Result<Received, WireError> {
        loop {
            if let Some(frame) = self.inbox.next()? {
                if frame.kind == Kind::Reply {
                    self.unanswered.retain(|&(id, _)| id != frame.id);
                }
                return Ok(Received::Frame(frame));
            }
            if self.end_seen || self.left == Some(0) {
                return Ok(Received::Closed);
            }
            let fd = self.stream.as_fd();
            if self.reads >= Self::READS && is_readable(fd) {
                return Ok(Received::More);
            }
            self.reads += 1;
            match self.inbox.fill(|room| descriptors::receive(fd, room, MsgFlags::MSG_DONTWAIT)) {
                Ok(0) => self.end_seen = true,
                Ok(len) => self.left = self.left.map(|left| left.saturating_sub(len)),
                Err(WireError::Io(error)) if error.kind() == ErrorKind::WouldBlock => {
                    return Ok(Received::Nothing);
                }
                Err(WireError::Io(error)) if is_gone(&error) => self.end_seen = true,
                Err(error) => return Err(error),
            }
        }
    }
}

impl<S: AsFd> AsFd for StreamWire<S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl<S: AsFd> Wire for StreamWire<S> {
    fn has_room(&mut self, _bytes: usize) -> Result<bool, WireError> {
        // One that is answered, and one that is not waited for.
        Ok(self.unanswered.len() < 2)
    }

    fn call(&mut self, id: u64, count: u32, payload: &Parcel) -> Result<Ticket, WireError> {
        only_bytes(payload)?;
        self.sent += 1;
        self.unanswered.push_back((id, Ticket(self.sent)));
        self.queue(Kind::Call, count, id, &payload.in_one(), &[]);
        Ok(Ticket(self.sent))
    }

    fn share(&mut self, id: u64, payload: &Parcel) -> Result<(), WireError> {
        only_bytes(payload)?;
        self.queue(Kind::Share, 0, id, &payload.in_one(), &[]);
        Ok(())
    }

    fn forget(&mut self, id: u64) {
        self.send(Kind::Forget, id, &[]);
    }

    fn send(&mut self, kind: Kind, id: u64, payload: &[u8]) {
        self.queue(kind, 0, id, payload, &[]);
    }

    fn flush(&mut self) -> Result<bool, WireError> {
        let (fd, flags) = (self.stream.as_fd(), MsgFlags::MSG_DONTWAIT);
        let written = self
            .outbox
            .flush(|bytes, descriptors| descriptors::send_with(fd, bytes, descriptors, flags));
        // Of a peer that is gone it stays known what never reached it.
        if !written.as_ref().is_err_and(is_gone) {
            self.refused = None;
        }
        match written {
            Ok(()) => Ok(true),
            // It may be another program that has all the descriptors on their way.
            Err(error) if is_for_want(&error) => {
                self.refused = Some((error, Instant::now() + AGAIN));
                Ok(false)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) if is_gone(&error) => {
                self.outbox.clear();
                // Should anybody be there that reads on, it would wait for ever for what was dropped.
                let _ = shutdown(fd.as_raw_fd(), Shutdown::Write);
                Ok(true)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn receive(&mut self) -> Result<Received, WireError> {
        let received = self.next();
        if !matches!(received, Ok(Received::Frame(_))) {
            self.reads = 0;
        }
        received
    }

    fn reply(&mut self) -> Result<Option<Reply>, WireError> {
        Ok(None)
    }

    fn salvage(&mut self) -> Option<Reply> {
        None
    }

    fn revoke(&mut self, _ticket: Ticket, _count: u32) -> bool {
        false
    }

    fn shorten(&mut self, _ticket: Ticket, count: u32, _keep: &dyn Fn(u32) -> u32) -> u32 {
        count
    }

    fn begun(&self, ticket: Ticket, count: u32) -> u32 {
        match self.unanswered.front() {
            Some(&(_, first)) if first == ticket => count,
            _ => 0,
        }
    }
}

/// Whether reading from it would give something, if only its end.
fn is_readable(fd: BorrowedFd<'_>) -> bool {
    poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], PollTimeout::ZERO) == Ok(1)
}

/// A peer that died with our bytes unread resets the connection; that is an end like any other.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
}

fn only_bytes(payload: &Parcel) -> Result<(), WireError> {
    if payload.descriptors().is_empty() { Ok(()) } else { Err(WireError::BytesOnly) }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::{AsFd, OwnedFd};
    use std::sync::Arc;

    use super::StreamWire;
    use crate::codec::Limits;
    use crate::message::{Arguments, Request};
    use crate::parcel::Parcel;
    use crate::segment::Stock;
    use crate::sys::descriptors::waiting;
    use crate::wire::{HEADER, Kind, Received, Wire, WireError, seal};

    /// Both ends of a connection over the loopback interface.
    fn connection() -> (StreamWire<TcpStream>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        (StreamWire::new(near, 1 << 20), far)
    }

    #[test]
    fn only_the_first_unanswered_call_may_have_begun() {
        let (mut wire, mut far) = connection();
        let first = wire.call(1, 1, &vec![1].into()).unwrap();
        let second = wire.call(2, 1, &vec![2].into()).unwrap();
        assert!(!wire.has_room(1).unwrap());
        assert!(wire.flush().unwrap());
        let mut frames = [0; 2 * (HEADER + 1)];
        far.read_exact(&mut frames).unwrap();
        assert_eq!((wire.begun(first, 1), wire.begun(second, 1)), (1, 0));

        let mut reply = vec![0; HEADER];
        seal(Kind::Reply, 0, 1, 0, &mut reply);
        far.write_all(&reply).unwrap();
        drop(far);
        let mut answers = 0;
        loop {
            match wire.receive().unwrap() {
                Received::Frame(frame) => answers += frame.id,
                Received::Nothing | Received::More => std::thread::yield_now(),
                Received::Closed => break,
            }
        }
        assert_eq!(answers, 1);
        assert_eq!(wire.begun(second, 1), 1);
    }

    #[test]
    fn what_others_write_when_the_peer_has_ended_is_not_read() {
        let (mut wire, mut far) = connection();
        let mut frame = vec![0; HEADER];
        seal(Kind::Ready, 0, 0, 0, &mut frame);
        far.write_all(&frame.repeat(3)).unwrap();
        while waiting(wire.as_fd()).unwrap() < 3 * HEADER {
            std::thread::yield_now();
        }
        wire.peer_has_ended();
        for _ in 0..3 {
            assert!(matches!(wire.receive(), Ok(Received::Frame(_))));
        }
        far.write_all(&frame).unwrap();
        assert!(matches!(wire.receive(), Ok(Received::Closed)));
    }

    #[test]
    fn a_peer_that_writes_as_fast_as_we_read_is_left_for_others_and_nothing_of_it_is_lost() {
        let (mut wire, mut far) = connection();
        let mut frame = vec![0; HEADER];
        seal(Kind::Ready, 0, 0, 0, &mut frame);
        let (mut written, mut read) = (0, 0);
        let mut write = |times| {
            far.write_all(&frame.repeat(times)).unwrap();
            written += times;
            written
        };
        write(1);
        loop {
            match wire.receive().unwrap() {
                Received::Frame(_) => read += 1,
                Received::More => break,
                // Over a real connection, bytes take their time.
                Received::Nothing => std::thread::yield_now(),
                Received::Closed => panic!("closed after {read} frames"),
            }
            assert!(write(1) < 100_000, "nobody else would ever have their turn");
        }
        let written = write(0);
        loop {
            match wire.receive().unwrap() {
                Received::Frame(_) => read += 1,
                Received::More => {}
                Received::Nothing if read == written => break,
                Received::Nothing => std::thread::yield_now(),
                Received::Closed => panic!("closed after {read} frames"),
            }
        }
    }

    #[test]
    fn what_lies_in_a_segment_goes_over_a_stream_as_bytes() {
        let (mut wire, mut far) = connection();
        let (limits, stock) = (Limits::default(), Stock::new(1 << 20));
        let mut request = Request::new(vec![5]);
        let argument: Vec<u8> = (0..100_000).map(|i| (i % 251) as u8).collect();
        assert!(request.push(&argument, &limits, &stock).unwrap().is_none());
        assert!(request.parcel().bytes.len() < 10 && request.bytes() > argument.len());
        let reader = std::thread::spawn(move || {
            let mut frame = vec![0; HEADER + 5 + 100_000];
            far.read_exact(&mut frame).map(|()| frame)
        });
        wire.call(1, 1, request.parcel()).unwrap();
        while !wire.flush().unwrap() {
            std::thread::yield_now();
        }
        let frame = reader.join().unwrap().unwrap();
        let mut arguments = Arguments(&frame[HEADER + 1..]);
        assert!(arguments.framed() == argument);
    }

    #[test]
    fn a_stream_of_bytes_refuses_descriptors() {
        let (mut wire, far) = connection();
        let parcel = Parcel::with_descriptors(vec![1], vec![Arc::new(OwnedFd::from(far))]);
        assert!(matches!(wire.call(1, 1, &parcel), Err(WireError::BytesOnly)));
        assert!(matches!(wire.share(1, &parcel), Err(WireError::BytesOnly)));
        assert!(wire.is_flushed());
    }
}
