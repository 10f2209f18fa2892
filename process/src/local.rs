//! The wire to a child on this machine: a ring for calls and answers, and a socket pair.
//!
//! What does not fit the ring goes over the socket; then a mark in the ring says at which place it
//! belongs, so the child takes all in the order in which it was sent.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use crate::parcel::Parcel;
use crate::ring::{Listener, Near, Place, Reply, Ticket};
use crate::stream::StreamWire;
use crate::task;
use crate::wire::{Kind, Received, Wire, WireError};

/// A [`Wire`] to a child of this process.
#[derive(Debug)]
pub struct LocalWire {
    stream: StreamWire<UnixStream>,
    ring: Near,
    /// Data to be dropped, for which the ring had no room.
    forgotten: Vec<u64>,
}

impl LocalWire {
    /// Marks are small, and there is always room for so many more.
    const RESERVE: usize = 256;

    pub(crate) fn new(stream: UnixStream, ring: Near, limit: usize) -> Self {
        Self { stream: StreamWire::new(stream, limit), ring, forgotten: Vec::new() }
    }

    pub(crate) fn is_flushed(&self) -> bool {
        self.stream.is_flushed()
    }

    /// Queues the first frame, and with it the descriptor that the child rings.
    pub(crate) fn start(&mut self, payload: &[u8], doorbell: Option<&Arc<OwnedFd>>) {
        let descriptors: Vec<_> = doorbell.into_iter().cloned().collect();
        self.stream.queue(Kind::Start, 0, 0, payload, &descriptors);
    }

    /// Has the child tell `listener` after so many records more, or when it has nothing to do.
    /// Whoever calls this looks for answers once more before it sleeps.
    pub fn listen(&self, listener: Listener, records: u32) {
        self.ring.listen(listener, records);
    }

    /// Nobody sleeps who would have to be told of an answer.
    pub fn stop_listening(&self) {
        self.ring.stop_listening();
    }

    /// Whether the child has yet to tell of an answer.
    pub fn is_listening(&self) -> bool {
        self.ring.is_listening()
    }

    /// Whether there are answers in the ring.
    pub fn has_reply(&self) -> bool {
        self.ring.has_reply()
    }

    /// Whether the child sleeps: to send it a call takes a system call, and some time.
    pub fn is_asleep(&self) -> bool {
        self.ring.is_asleep()
    }

    /// Wakes a child that may wait for room, after answers were taken.
    pub fn made_room(&self) {
        self.ring.made_room();
    }

    /// How long ago the call began that runs, as the child says; it says so only of calls whose
    /// main function notes it, before they are claimed.
    pub fn running_for(&self) -> Duration {
        Duration::from_nanos(task::now().saturating_sub(self.ring.begun_at()))
    }

    /// Makes [`should_stop`](crate::task::should_stop) true in the child while that call runs.
    pub fn ask_to_stop(&self, id: u64) {
        self.ring.ask_to_stop(id);
    }

    fn mark(&mut self, id: u64, count: u32) -> Ticket {
        let ticket = self.ring.push(id, count, Place::Socket, &[]);
        self.ring.nudge();
        ticket
    }
}

impl AsFd for LocalWire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Wire for LocalWire {
    fn has_room(&mut self, bytes: usize) -> Result<bool, WireError> {
        let bytes = if bytes > self.ring.longest() { 0 } else { bytes };
        let has_room = self.ring.has_room(bytes + Self::RESERVE)?;
        if has_room {
            for id in std::mem::take(&mut self.forgotten) {
                self.forget(id);
            }
        }
        Ok(has_room)
    }

    fn call(&mut self, id: u64, count: u32, payload: &Parcel) -> Result<Ticket, WireError> {
        if payload.bytes.len() <= self.ring.longest() && payload.descriptors().is_empty() {
            let ticket = self.ring.push(id, count, Place::Here, &payload.bytes);
            self.ring.nudge();
            return Ok(ticket);
        }
        self.stream.queue(Kind::Call, count, id, &payload.bytes, payload.descriptors());
        Ok(self.mark(id, count))
    }

    fn share(&mut self, id: u64, payload: &Parcel) -> Result<(), WireError> {
        self.stream.queue(Kind::Share, 0, id, &payload.bytes, payload.descriptors());
        self.mark(id, 0);
        Ok(())
    }

    fn forget(&mut self, id: u64) {
        if self.ring.has_room(0).unwrap_or(false) {
            self.stream.send(Kind::Forget, id, &[]);
            self.mark(id, 0);
        } else {
            self.forgotten.push(id);
        }
    }

    fn send(&mut self, kind: Kind, id: u64, payload: &[u8]) {
        self.stream.send(kind, id, payload);
    }

    fn flush(&mut self) -> Result<bool, WireError> {
        self.stream.flush()
    }

    fn receive(&mut self) -> Result<Received, WireError> {
        self.stream.receive()
    }

    fn reply(&mut self) -> Result<Option<Reply>, WireError> {
        self.ring.pop()
    }

    fn salvage(&mut self) -> Option<Reply> {
        self.ring.salvage()
    }

    fn revoke(&mut self, ticket: Ticket, count: u32) -> bool {
        self.ring.revoke(ticket, count)
    }

    fn shorten(&mut self, ticket: Ticket, count: u32, keep: &dyn Fn(u32) -> u32) -> u32 {
        self.ring.shorten(ticket, count, keep)
    }

    fn begun(&self, ticket: Ticket, count: u32) -> u32 {
        self.ring.begun(ticket, count)
    }
}
