//! The ring: calls to one child and its replies, in memory that both have mapped.
//!
//! Each side alone moves one end of each of two rings, and sleeps only after it has said so; see
//! `README.md` beside this file for the protocol, and why nothing is lost by it.
//!
//! The parent treats all that it reads as hostile: it copies before it checks, keeps every position
//! of its own where the child cannot write, and refers to nothing in there. What a child writes can
//! hurt its own calls only.

mod claim;
mod deposit;
mod far;
mod near;
mod patience;
#[cfg(test)]
#[cfg(not(epilogue_model))]
mod tests;
mod words;

use std::iter;

use smallvec::{SmallVec, smallvec};

pub(crate) use deposit::{Deposit, Returned};
pub(crate) use far::{Far, stop_of, wake};
pub(crate) use near::Near;
pub use near::Ticket;
pub use patience::Patience;
pub(crate) use words::Words;

use crate::sys::atomic::{AtomicU64, Ordering};

/// How many calls a ring is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    /// A page: one call, which goes over the socket if it is long.
    Once,
    /// As many as keep a worker busy.
    Many,
}

impl Size {
    /// How many words there are in all: those that control, and both rings.
    pub(crate) fn words(self) -> usize {
        let [calls, replies] = self.lengths();
        CONTROL + calls + replies
    }

    const fn lengths(self) -> [usize; 2] {
        match self {
            // A model goes round in it.
            Self::Once if cfg!(epilogue_model) => [16, 32],
            Self::Once => [128, 256],
            Self::Many => [1 << 15, 1 << 15],
        }
    }

    fn of(words: usize) -> Option<Self> {
        [Self::Once, Self::Many].into_iter().find(|size| size.words() == words)
    }
}

// The words that control. Each has a cache line for itself, and one writer unless it says more.

/// How far calls have been written: the parent's.
const CALL_TAIL: usize = 0;
/// How far they are done with: the child's.
const CALL_HEAD: usize = 8;
/// Whether the child sleeps, and for what: set by it, taken back by whoever wakes it.
const ASLEEP: usize = 16;
/// It has no call.
const FOR_A_CALL: u32 = 1;
/// It has an answer, and no room for it. It is not woken for less: who has just been answered would
/// wake each child that has nothing else to do.
const FOR_ROOM: u32 = 2;
/// How far replies have been written: the child's.
const REPLY_TAIL: usize = 24;
/// How far they have been taken: the parent's.
const REPLY_HEAD: usize = 32;
/// Who wants to be told of a reply: set by the parent, taken back by the child as it tells.
const BELL: usize = 40;
/// When the call began that runs, if it has a limit of time: the child's.
const BEGUN: usize = 48;
/// The number of the call that shall stop: the parent's.
const STOP: usize = 56;
/// Which of the child's segments are not read any more: set by the parent, taken back by the child.
const RETURNED: usize = 64;
const CONTROL: usize = 72;

/// How many bytes a word has.
const WORD: usize = size_of::<u64>();

/// How many words come before what a record carries.
const HEADER: usize = 4;
/// Which of these says where a call is. Once the child has read that, it may write there when the
/// call began: a time is never as small a number as a [`Place`].
const PLACE: u64 = 3;

/// One of the two rings. Positions in it count words from the beginning of time.
#[derive(Debug, Clone, Copy)]
struct Region {
    start: usize,
    /// A power of two.
    len: usize,
}

impl Region {
    fn both(size: Size) -> [Self; 2] {
        let [calls, replies] = size.lengths();
        [Self { start: CONTROL, len: calls }, Self { start: CONTROL + calls, len: replies }]
    }

    const fn bytes(self) -> usize {
        self.len * WORD
    }

    #[inline]
    fn word(self, words: &[AtomicU64], at: u64) -> &AtomicU64 {
        &words[self.start + (at as usize & (self.len - 1))]
    }

    /// So many words from a position on: up to the end of the ring, and from its start.
    #[inline]
    fn run(self, words: &[AtomicU64], at: u64, len: usize) -> [&[AtomicU64]; 2] {
        let (ring, from) =
            (&words[self.start..self.start + self.len], at as usize & (self.len - 1));
        let first = len.min(self.len - from);
        [&ring[from..from + first], &ring[..len - first]]
    }

    #[inline]
    fn write(self, words: &[AtomicU64], at: u64, bytes: &[u8]) {
        let [first, second] = self.run(words, at, words_of(bytes.len()));
        let (left, right) = bytes.split_at(bytes.len().min(first.len() * WORD));
        store(first, left);
        store(second, right);
    }

    #[inline]
    fn read(self, words: &[AtomicU64], at: u64, len: usize) -> Bytes {
        let [first, second] = self.run(words, at, words_of(len));
        let mut bytes: Bytes = smallvec![0; words_of(len) * WORD];
        let (places, _) = bytes.as_chunks_mut();
        let (left, right) = places.split_at_mut(first.len());
        load(first, left);
        load(second, right);
        bytes.truncate(len);
        bytes
    }
}

fn load(words: &[AtomicU64], places: &mut [[u8; WORD]]) {
    for (word, place) in iter::zip(words, places) {
        *place = word.load(Ordering::Relaxed).to_le_bytes();
    }
}

#[inline]
fn store(words: &[AtomicU64], bytes: &[u8]) {
    let (whole, rest) = bytes.as_chunks();
    for (word, bytes) in iter::zip(words, whole) {
        word.store(u64::from_le_bytes(*bytes), Ordering::Relaxed);
    }
    if let (Some(word), false) = (words.get(whole.len()), rest.is_empty()) {
        let mut last = [0; WORD];
        last[..rest.len()].copy_from_slice(rest);
        word.store(u64::from_le_bytes(last), Ordering::Relaxed);
    }
}

fn words_of(bytes: usize) -> usize {
    bytes.div_ceil(WORD)
}

fn pair(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

fn unpair(word: u64) -> [u32; 2] {
    [word as u32, (word >> 32) as u32]
}

/// Where a call, or an answer, is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the record.
    Here = 0,
    /// The next that comes over the socket.
    Socket = 1,
    /// The argument is in a segment that the child has, the rest in the record.
    Segment = 2,
}

/// How the answers in a record are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Form {
    /// One after the other, each behind its length and whether it is a value.
    Framed = 0,
    /// Values of one size, side by side.
    Raw = 1,
    /// One value, which lies in a segment: the record says in which.
    Bulk = 2,
}

/// Bytes that were copied out of a ring. Those of a number or two need no memory of their own, which
/// takes as long as all else that is done to so short an answer.
pub type Bytes = SmallVec<[u8; 2 * WORD]>;

/// Some answers of one call, in the order of its items.
#[derive(Debug)]
pub struct Reply {
    /// The number of the call.
    pub id: u64,
    /// Which of its items the first is.
    pub first: u32,
    /// How many they are; at least one.
    pub count: u32,
    /// How long they took, in nanoseconds, as the child says.
    pub nanos: u64,
    /// How they are written.
    pub form: Form,
    /// The answers.
    pub bytes: Bytes,
}

/// Who is to be told of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listener {
    /// Whoever reads the socket.
    Socket = 1,
    /// Whoever waits for the doorbell.
    Doorbell = 2,
}
