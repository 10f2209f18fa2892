//! The wire to a child on this machine: a ring for calls and answers, and a socket pair.
//!
//! What does not fit the ring goes over the socket; then a mark in the ring says at which place it
//! belongs, so the child takes all in the order in which it was sent.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::parcel::Parcel;
use crate::ring::{Form, Listener, Near, Place, Reply, Ticket};
use crate::segment::{Bulk, Extent, Made, SLOTS, Shelf, Unusable, View};
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
    /// The generations of our segments that the child has mapped.
    known: [u64; SLOTS],
    /// The child's segments.
    shelf: Shelf,
}

impl LocalWire {
    /// Marks are small, and there is always room for so many more.
    const RESERVE: usize = 256;
    /// How much of the ring a mark takes up, in bytes.
    const MARK: usize = 32;

    pub(crate) fn new(stream: UnixStream, ring: Near, limit: usize) -> Self {
        let (stream, forgotten) = (StreamWire::new(stream, limit), Vec::new());
        Self { stream, ring, forgotten, known: [0; SLOTS], shelf: Shelf::new() }
    }

    pub(crate) fn is_flushed(&self) -> bool {
        self.stream.is_flushed()
    }

    /// See [`StreamWire::unsent`].
    pub(crate) fn unsent(&self) -> usize {
        self.stream.unsent()
    }

    /// See [`StreamWire::refused`].
    pub(crate) fn refused(&self) -> Option<&(io::Error, Instant)> {
        self.stream.refused()
    }

    /// See [`StreamWire::peer_has_ended`] and [`Near::peer_has_ended`].
    pub(crate) fn peer_has_ended(&mut self) {
        self.stream.peer_has_ended();
        self.ring.peer_has_ended();
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

    /// Wakes a child that may wait for room, after answers were taken.
    pub fn made_room(&self) {
        self.ring.made_room();
    }

    /// How long ago the call began that runs, as the child says; it says so only of calls whose
    /// main function notes it, before they are claimed.
    pub fn running_for(&self) -> Duration {
        Duration::from_nanos(task::now().saturating_sub(self.ring.begun_at()))
    }

    /// How long ago that call began, as the child says, which may say anything; only of calls whose
    /// main function notes it, and as long as their place in the ring was not needed since.
    pub fn began(&self, ticket: Ticket) -> Option<Duration> {
        let nanos = self.ring.began_at(ticket)?;
        Some(Duration::from_nanos(task::now().saturating_sub(nanos)))
    }

    /// Makes [`should_stop`](crate::task::should_stop) true in the child while that call runs.
    pub fn ask_to_stop(&self, id: u64) {
        self.ring.ask_to_stop(id);
    }

    /// Sends a call whose argument lies in a segment.
    fn call_with(
        &mut self,
        id: u64,
        count: u32,
        made: &Made,
        head: &[u8],
    ) -> Result<Ticket, WireError> {
        let bytes = [&made.extent().to_bytes(), head].concat();
        self.require_room(bytes.len())?;
        let known = made.number().map(|number| (number.slot as usize, number.generation));
        if let Some((slot, generation)) = known
            && self.known[slot] == generation
        {
            let ticket = self.ring.push(id, count, Place::Segment, &bytes);
            self.ring.nudge();
            return Ok(ticket);
        }
        if let Some((slot, generation)) = known {
            self.known[slot] = generation;
        }
        let file = made.file().map(std::slice::from_ref).unwrap_or_default();
        self.stream.queue(Kind::BulkCall, count, id, &bytes, file);
        Ok(self.mark(id, count))
    }

    /// The child could not map the segment of that number, and has to be sent it again.
    pub(crate) fn missed(&mut self, slot: u64) {
        let known = usize::try_from(slot).ok().and_then(|slot| self.known.get_mut(slot));
        if let Some(known) = known {
            *known = 0;
        }
    }

    /// An answer that lies in a segment which came along with it.
    pub(crate) fn admit(
        &mut self,
        bytes: &[u8],
        descriptors: &[Arc<OwnedFd>],
    ) -> Result<Parcel, WireError> {
        let Some((extent, [])) = Extent::split(bytes) else { return Err(WireError::Garbage) };
        let window = self.shelf.admit(extent, descriptors.first().map(AsRef::as_ref));
        let deposit = ((extent.slot as usize) < SLOTS).then(|| self.ring.deposit(extent.slot));
        let bulk = match window {
            Ok(window) => Bulk::Received(Arc::new(View::new(window, extent, deposit))),
            Err(Unusable::Corrupt) => return Err(WireError::Segment),
            Err(Unusable::Here(why)) => {
                if let Some(deposit) = deposit {
                    deposit.refuse();
                }
                Bulk::Missing(why.into())
            }
        };
        Ok(Parcel::with_bulk(Vec::new(), bulk))
    }

    /// An answer that lies in a segment which came before, if it does.
    pub(crate) fn find(&self, reply: &Reply) -> Result<Option<Parcel>, WireError> {
        if reply.form != Form::Bulk {
            return Ok(None);
        }
        let (Some((extent, [])), 1) = (Extent::split(&reply.bytes), reply.count) else {
            return Err(WireError::Garbage);
        };
        // One that was refused is sent again before it is named.
        let window = self.shelf.find(extent).map_err(|_| WireError::Segment)?;
        let view = View::new(window, extent, Some(self.ring.deposit(extent.slot)));
        Ok(Some(Parcel::with_bulk(Vec::new(), Bulk::Received(Arc::new(view)))))
    }

    /// What was promised earlier than at the last look may be spent. Then nothing is sent: it would be
    /// written over calls that the child has yet to read.
    fn require_room(&mut self, bytes: usize) -> Result<(), WireError> {
        match self.ring.has_room(bytes)? {
            true => Ok(()),
            false => Err(io::Error::from(io::ErrorKind::WouldBlock).into()),
        }
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
        self.ring.has_room(bytes + Self::RESERVE)
    }

    fn call(&mut self, id: u64, count: u32, payload: &Parcel) -> Result<Ticket, WireError> {
        if let Some(made) = payload.bulk().and_then(Bulk::made) {
            return self.call_with(id, count, made, &payload.bytes);
        }
        if payload.bytes.len() <= self.ring.longest() && payload.descriptors().is_empty() {
            self.require_room(payload.bytes.len())?;
            let ticket = self.ring.push(id, count, Place::Here, &payload.bytes);
            self.ring.nudge();
            return Ok(ticket);
        }
        self.require_room(0)?;
        self.stream.queue(Kind::Call, count, id, &payload.bytes, payload.descriptors());
        Ok(self.mark(id, count))
    }

    fn share(&mut self, id: u64, payload: &Parcel) -> Result<(), WireError> {
        self.require_room(0)?;
        if let Some(made) = payload.bulk().and_then(Bulk::made) {
            let bytes = [&made.extent_alone().to_bytes(), &*payload.bytes].concat();
            let file = made.file().map(std::slice::from_ref).unwrap_or_default();
            self.stream.queue(Kind::BulkShare, 0, id, &bytes, file);
        } else {
            self.stream.queue(Kind::Share, 0, id, &payload.bytes, payload.descriptors());
        }
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
        // Here, and not where room is promised to a call, which may go to another child: who flushes sees to
        // it that the socket takes what the child waits for from now on.
        while !self.forgotten.is_empty()
            && self.ring.has_room(Self::RESERVE + Self::MARK).unwrap_or(false)
            && let Some(id) = self.forgotten.pop()
        {
            self.forget(id);
        }
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

#[cfg(test)]
#[cfg(not(epilogue_model))]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;

    use super::LocalWire;
    use crate::parcel::Parcel;
    use crate::ring::{Far, Near, Place, Size};
    use crate::sys::memory::SharedWords;
    use crate::wire::Wire;

    /// A wire with a small ring, and the end that a child would have.
    fn both_ends() -> (LocalWire, Far, UnixStream) {
        let (stream, peer) = UnixStream::pair().unwrap();
        let (near, fd) = SharedWords::create(Size::Once.words()).unwrap();
        let far = Far::new(Arc::new(SharedWords::map(&fd).unwrap())).unwrap();
        (LocalWire::new(stream, Near::new(near, Size::Once), 1 << 20), far, peer)
    }

    fn parcel(id: u64) -> Parcel {
        Parcel::from(vec![id as u8; 50])
    }

    #[test]
    fn what_was_put_off_does_not_take_the_room_that_was_promised_to_a_call() {
        let (mut wire, mut far, _peer) = both_ends();
        let (mut sent, mut seen, mut states) = (0, 0, 0);
        while wire.has_room(50).unwrap() {
            wire.call(sent, 1, &parcel(sent)).unwrap();
            sent += 1;
        }
        // More than fit, all told, but few enough that they come to an end.
        (1000..1200).for_each(|state| wire.forget(state));
        while states < 200 || seen < 100 {
            let incoming = far.next().unwrap();
            match incoming.place {
                Place::Here => {
                    assert_eq!((incoming.id, incoming.bytes), (seen, parcel(seen).bytes));
                    seen += 1;
                }
                _ => states += u64::from(incoming.id < 2000),
            }
            if sent < 100 && wire.has_room(50).unwrap() {
                wire.share(2000, &parcel(0)).unwrap();
                wire.call(sent, 1, &parcel(sent)).unwrap();
                sent += 1;
            }
            // No room is promised here that a call would need.
            wire.flush().unwrap();
        }
    }

    #[test]
    fn what_was_put_off_is_sent_by_who_flushes_and_not_by_who_looks_for_room() {
        let (mut wire, mut far, _peer) = both_ends();
        while wire.share(0, &parcel(0)).is_ok() {}
        (1000..1003).for_each(|state| wire.forget(state));
        while far.next().is_some() {}
        assert!(wire.has_room(50).unwrap());
        assert!(far.next().is_none());
        assert!(wire.flush().unwrap());
        assert_eq!((0..4).filter(|_| far.next().is_some()).count(), 3);
    }

    #[test]
    fn what_finds_no_room_is_refused_and_not_written_over_what_was_not_read() {
        let (mut wire, mut far, _peer) = both_ends();
        let sent = (0..100).take_while(|&id| wire.call(id, 1, &parcel(id)).is_ok()).count() as u64;
        assert!(sent < 100);
        let more = (0..100).take_while(|&id| wire.share(id, &parcel(id)).is_ok()).count();
        assert!(more < 100);
        for id in 0..sent {
            let incoming = far.next().unwrap();
            assert_eq!((incoming.id, incoming.bytes), (id, parcel(id).bytes));
        }
    }
}
