//! The parent's end of a ring: it writes calls, takes them back, and reads replies.

use std::sync::Arc;

use super::{
    ASLEEP, BEGUN, BELL, CALL_HEAD, CALL_TAIL, Deposit, FOR_A_CALL, FOR_ROOM, Form, HEADER,
    Listener, PLACE, Place, REPLY_HEAD, REPLY_TAIL, Region, Reply, STOP, Size, claim, pair, unpair,
    words_of,
};
use crate::sys::atomic::{AtomicU64, Ordering, fence};
use crate::sys::futex;
use crate::sys::memory::SharedWords;
use crate::wire::WireError;

/// Where a call is in the ring, until it has been answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket(pub(crate) u64);

/// The parent's end.
#[derive(Debug)]
pub(crate) struct Near {
    shared: Arc<SharedWords>,
    calls: Region,
    replies: Region,
    call_tail: u64,
    /// As far as the child had said when it was last asked.
    call_head: u64,
    reply_head: u64,
    /// As far as a child that has ended had written replies.
    last: Option<u64>,
    /// How many records have been read.
    read: u32,
}

impl Near {
    pub(crate) fn new(shared: SharedWords, size: Size) -> Self {
        let [calls, replies] = Region::both(size);
        let shared = Arc::new(shared);
        let (call_tail, call_head, reply_head, last, read) = (0, 0, 0, None, 0);
        Self { shared, calls, replies, call_tail, call_head, reply_head, last, read }
    }

    fn control(&self, word: usize) -> &AtomicU64 {
        &self.shared.words()[word]
    }

    /// The longest call that is written into the ring; others go over the socket.
    pub(crate) fn longest(&self) -> usize {
        self.calls.bytes() / 4
    }

    /// Whether there is room for a call of so many bytes.
    pub(crate) fn has_room(&mut self, bytes: usize) -> Result<bool, WireError> {
        let need = (HEADER + words_of(bytes)) as u64;
        let room = |head: u64| self.calls.len as u64 - (self.call_tail - head) >= need;
        if !room(self.call_head) {
            let head = self.control(CALL_HEAD).load(Ordering::Acquire);
            if head < self.call_head || head > self.call_tail {
                return Err(WireError::Garbage);
            }
            self.call_head = head;
        }
        Ok(room(self.call_head))
    }

    /// Writes a call of so many items, where [`Near::has_room`] found room for it.
    pub(crate) fn push(&mut self, id: u64, count: u32, place: Place, bytes: &[u8]) -> Ticket {
        let (at, words) = (self.call_tail, self.shared.words());
        let header = [claim::published(count), id, pair(bytes.len() as u32, count), place as u64];
        for (offset, word) in (0..).zip(header) {
            self.calls.word(words, at + offset).store(word, Ordering::Relaxed);
        }
        self.calls.write(words, at + HEADER as u64, bytes);
        self.call_tail = at + (HEADER + words_of(bytes.len())) as u64;
        // With the look at `ASLEEP` in `Near::nudge` it is what a fence between the two would be, and
        // takes half as long. It pairs with the fence in `Far::sleep`.
        self.control(CALL_TAIL).store(self.call_tail, Ordering::SeqCst);
        Ticket(at)
    }

    /// Wakes the child if it has none, after a call was pushed.
    pub(crate) fn nudge(&self) {
        wake_if(self.control(ASLEEP), |reason| reason == FOR_A_CALL.into());
    }

    /// Wakes the child if it waits for room, after replies were taken.
    pub(crate) fn made_room(&self) {
        // Pairs with the fence in `Far::sleep`: either we see that it sleeps, or it sees the room.
        fence(Ordering::SeqCst);
        wake_if(self.control(ASLEEP), |reason| reason == FOR_ROOM.into());
    }

    /// The claim word of a call. None once the child is done with it: then another may lie there.
    fn claims(&self, Ticket(at): Ticket) -> Option<&AtomicU64> {
        (at >= self.call_head).then(|| self.calls.word(self.shared.words(), at))
    }

    fn lower(&self, ticket: Ticket, count: u32, end: impl Fn(u32, u32) -> u32) -> u32 {
        self.claims(ticket).map_or(count, |claims| claim::lower(claims, count, end))
    }

    /// Takes back all items of a call, if none has been begun.
    pub(crate) fn revoke(&self, ticket: Ticket, count: u32) -> bool {
        let end = self.lower(ticket, count, |next, last| match next {
            0 => 0,
            _ => last,
        });
        end == 0
    }

    /// Takes back items from the end of a call that have not been begun, so that `keep` of those
    /// remain; where the call ends now.
    pub(crate) fn shorten(&self, ticket: Ticket, count: u32, keep: impl Fn(u32) -> u32) -> u32 {
        self.lower(ticket, count, |next, last| next + keep(last - next))
    }

    /// How many items of a call may have been begun.
    pub(crate) fn begun(&self, ticket: Ticket, count: u32) -> u32 {
        self.claims(ticket).map_or(count, |claims| claim::claimed(claims, count))
    }

    /// Notes that a segment of the child's is being read.
    pub(crate) fn deposit(&self, slot: u32) -> Deposit {
        Deposit::new(&self.shared, slot)
    }

    /// How far replies have been written.
    fn reply_tail(&self) -> u64 {
        self.last.unwrap_or_else(|| self.control(REPLY_TAIL).load(Ordering::Acquire))
    }

    /// The child has ended: what it has published is there by now. Whoever else has its memory, such as
    /// a copy that it made of itself, answers nothing in its name, and cannot put off its end.
    pub(crate) fn peer_has_ended(&mut self) {
        self.last = Some(self.reply_tail());
    }

    /// Whether the child has written something that was not read.
    pub(crate) fn has_reply(&self) -> bool {
        self.reply_tail() != self.reply_head
    }

    /// The next record, if the child has written one.
    pub(crate) fn pop(&mut self) -> Result<Option<Reply>, WireError> {
        let there = self.reply_tail().wrapping_sub(self.reply_head);
        if there == 0 {
            return Ok(None);
        }
        if there > self.replies.len as u64 {
            return Err(WireError::Garbage);
        }
        let Some((reply, words)) = self.parse(there) else { return Err(WireError::Garbage) };
        self.reply_head += words;
        self.read = self.read.wrapping_add(1);
        self.control(REPLY_HEAD).store(self.reply_head, Ordering::Release);
        Ok(Some(reply))
    }

    /// What a child that is gone had answered and not yet handed over.
    pub(crate) fn salvage(&mut self) -> Option<Reply> {
        // The child wrote a count of zero here before the record, and counts what is whole.
        let (reply, _) = self.parse(self.replies.len as u64)?;
        Some(reply)
    }

    /// Reads the record at the head, which has so many words at most; with how many it has.
    fn parse(&self, there: u64) -> Option<(Reply, u64)> {
        let (at, words) = (self.reply_head, self.shared.words());
        let load = |offset| self.replies.word(words, at + offset).load(Ordering::Acquire);
        let [first, form] = unpair(load(1));
        let [len, count] = unpair(load(2));
        let (len, nanos) = (usize::try_from(len).ok()?, load(3));
        let form = match form {
            0 => Form::Framed,
            1 => Form::Raw,
            2 => Form::Bulk,
            _ => return None,
        };
        let need = (HEADER + words_of(len)) as u64;
        if need > there || count == 0 {
            return None;
        }
        let bytes = self.replies.read(words, at + HEADER as u64, len);
        Some((Reply { id: load(0), first, count, nanos, form, bytes }, need))
    }

    /// When the call began that runs, as the child says: nanoseconds of the monotonic clock. It is
    /// only said of calls that have a limit, and before they are claimed.
    pub(crate) fn begun_at(&self) -> u64 {
        self.control(BEGUN).load(Ordering::Relaxed)
    }

    /// When that call began, as the child says: as [`Near::begun_at`], but of any call whose place in
    /// the ring was not needed since.
    pub(crate) fn began_at(&self, Ticket(at): Ticket) -> Option<u64> {
        let is_there = self.call_tail - at <= self.calls.len as u64;
        let nanos = is_there
            .then(|| self.calls.word(self.shared.words(), at + PLACE).load(Ordering::Relaxed))?;
        (nanos > Place::Segment as u64).then_some(nanos)
    }

    /// Asks the task of this call to stop, if it runs.
    pub(crate) fn ask_to_stop(&self, id: u64) {
        self.control(STOP).store(id, Ordering::Relaxed);
    }

    /// Has the child tell `listener` once it has written so many records more, or has nothing left
    /// to do. Whoever calls this looks for a reply once more before it sleeps.
    pub(crate) fn listen(&self, listener: Listener, records: u32) {
        let after = self.read.wrapping_add(records);
        self.control(BELL).store(pair(listener as u32, after), Ordering::Relaxed);
        // Pairs with the fence in `Far::publish`: either it sees the bell, or we see its reply.
        fence(Ordering::SeqCst);
    }

    /// Whether the child has yet to tell.
    pub(crate) fn is_listening(&self) -> bool {
        self.control(BELL).load(Ordering::Relaxed) != 0
    }

    /// Nobody sleeps: the child need not tell.
    pub(crate) fn stop_listening(&self) {
        let bell = self.control(BELL);
        if bell.load(Ordering::Relaxed) != 0 {
            bell.store(0, Ordering::Relaxed);
        }
    }
}

/// Wakes whoever sleeps on this word, if that is for such a reason.
pub(super) fn wake_if(asleep: &AtomicU64, is_meant: impl Fn(u64) -> bool) {
    if is_meant(asleep.load(Ordering::SeqCst)) && asleep.swap(0, Ordering::Relaxed) != 0 {
        futex::wake(asleep);
    }
}
