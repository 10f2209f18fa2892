//! The wire to a child on this machine: frames over a socket pair, calls claimed in a page of
//! shared memory.
//!
//! Each call has a claim word. The parent publishes it before it sends the call; the child claims
//! it by compare-and-swap before it begins; the parent may revoke it, by compare-and-swap too,
//! as long as that has not happened. So after a death it is known which call had begun, and a
//! call that was sent ahead to a busy child can still go to an idle one.
//!
//! A child may write what it likes into the page. Then the parent reads that a call had begun
//! which had not, and that child's own calls are lost with it: no other child's.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::parcel::Parcel;
use crate::stream::StreamWire;
use crate::sys::memory::{SharedWords, WORDS};
use crate::wire::{Frame, Kind, Received, Wire, WireError};

/// A [`Wire`] to a child of this process.
#[derive(Debug)]
pub struct LocalWire {
    stream: StreamWire<UnixStream>,
    claims: SharedWords,
    free: Vec<u32>,
    slots: HashMap<u64, u32>,
}

impl LocalWire {
    pub(crate) fn new(stream: UnixStream, claims: SharedWords, limit: usize) -> Self {
        let free = (0..WORDS as u32).rev().collect();
        Self { stream: StreamWire::new(stream, limit), claims, free, slots: HashMap::new() }
    }

    pub(crate) fn is_flushed(&self) -> bool {
        self.stream.is_flushed()
    }

    fn word(&self, id: u64) -> Option<&AtomicU64> {
        word(&self.claims, *self.slots.get(&id)?)
    }

    fn release(&mut self, id: u64) {
        self.free.extend(self.slots.remove(&id));
    }
}

impl AsFd for LocalWire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Wire for LocalWire {
    fn call(&mut self, id: u64, payload: &Parcel) -> Result<(), WireError> {
        // Beyond the capacity a call has no word of its own: it is sent, and cannot be revoked.
        let slot = self.free.pop().unwrap_or(u32::MAX);
        if let Some(word) = word(&self.claims, slot) {
            word.store(published(id), Ordering::Release);
            self.slots.insert(id, slot);
        }
        self.stream.queue(Kind::Call, slot, id, &payload.bytes, payload.descriptors());
        Ok(())
    }

    fn share(&mut self, id: u64, payload: &Parcel) -> Result<(), WireError> {
        self.stream.queue(Kind::Share, 0, id, &payload.bytes, payload.descriptors());
        Ok(())
    }

    fn send(&mut self, kind: Kind, id: u64, payload: &[u8]) {
        self.stream.send(kind, id, payload);
    }

    fn flush(&mut self) -> Result<bool, WireError> {
        self.stream.flush()
    }

    fn receive(&mut self) -> Result<Received, WireError> {
        let received = self.stream.receive()?;
        if let Received::Frame(Frame { kind: Kind::Reply, id, .. }) = received {
            self.release(id);
        }
        Ok(received)
    }

    fn revoke(&mut self, id: u64) -> bool {
        let (from, to) = (published(id), revoked(id));
        let revoked = self.word(id).is_some_and(|word| {
            word.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
        });
        if revoked {
            // The slot may serve again at once: the child, when it comes to this call, looks for
            // this number, which the next user of the word has overwritten with another.
            self.release(id);
        }
        revoked
    }

    fn may_have_begun(&self, id: u64) -> bool {
        self.word(id).is_none_or(|word| {
            let state = word.load(Ordering::Acquire);
            state != published(id)
        })
    }

    fn capacity(&self) -> usize {
        WORDS / 2
    }
}

/// The child's side: claims a call; false if the parent has taken it back.
pub(crate) fn claim(claims: &SharedWords, slot: u32, id: u64) -> bool {
    match word(claims, slot) {
        Some(word) => {
            let (from, to) = (published(id), claimed(id));
            word.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
        }
        None => true,
    }
}

fn word(claims: &SharedWords, slot: u32) -> Option<&AtomicU64> {
    claims.word(usize::try_from(slot).ok()?)
}

// Numbers of calls are never reused, so a word that was left from an earlier call matches none.
const fn published(id: u64) -> u64 {
    id << 2 | 1
}

const fn claimed(id: u64) -> u64 {
    id << 2 | 2
}

const fn revoked(id: u64) -> u64 {
    id << 2 | 3
}
