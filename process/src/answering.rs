//! Answering: how a child claims the items of one call, and hands over their answers.
//!
//! An item is claimed before it begins, and its answer is in the shared memory before the next one
//! begins. So after a death the parent knows which item ran, which are answered, and which nobody
//! has begun.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::link::{Call, Link, Pace};
use crate::message::VALUE;
use crate::ring::{Form, Listener, Words};
use crate::segment::{Bulk, Made};
use crate::sys::descriptors::is_for_want;
use crate::sys::pid::Original;
use crate::task;
use crate::wire::{HEADER, Kind, seal};

/// A call that is being answered.
#[derive(Debug)]
pub struct Answering<'l> {
    link: &'l mut Link,
    id: u64,
    at: u64,
    /// How many items it had as it was sent: some may have been taken back, but none comes to it.
    count: u32,
    /// The item that is being answered, or that is next.
    index: u32,
    /// Where the items end that were claimed.
    claimed: u32,
    clock: Clock,
    is_told_of: bool,
    parent: Parent,
    way: Way,
}

/// Which way answers go.
#[derive(Debug, PartialEq, Eq)]
enum Way {
    /// By the ring, if they fit.
    Ring,
    /// By the socket: behind what was said there about this call.
    Socket,
}

/// Whether there is somebody to work for.
#[derive(Debug, PartialEq, Eq)]
enum Parent {
    There,
    Gone,
}

/// How long the items take: of a call with many, each block; of those with one, some.
#[derive(Debug)]
struct Clock {
    /// Since when the items run that were not handed over; none where nobody asks.
    since: Option<Instant>,
    /// Since when those run that were claimed together.
    block_since: Option<Instant>,
    /// How many are claimed together: what is claimed can go to no other child.
    block: u32,
}

impl Clock {
    /// One call in so many is timed if it has one item.
    const SAMPLE: u32 = 8;
    /// A block shall take about so long: much longer than to claim it and to ask the time.
    const BLOCK: Duration = Duration::from_micros(4);
    const LARGEST: u32 = 256;
    /// What is done does not wait longer than this for what comes after it.
    const PATIENCE: Duration = Duration::from_micros(50);
    /// What takes longer than this is timed each time: to ask the time takes next to nothing of it.
    const SLOW: u64 = 10_000;

    fn next_block(&mut self) -> u32 {
        let now = Instant::now();
        match self.block_since.map(|since| now - since) {
            Some(took) if took < Self::BLOCK / 2 => {
                self.block = (self.block * 2).min(Self::LARGEST)
            }
            Some(took) if took > Self::BLOCK * 2 => self.block = (self.block / 4).max(1),
            _ => {}
        }
        self.block_since = Some(now);
        self.since.get_or_insert(now);
        self.block
    }

    fn nanos(&mut self) -> u64 {
        let Some(since) = self.since else { return 0 };
        let now = Instant::now();
        self.since = Some(now);
        u64::try_from((now - since).as_nanos()).unwrap_or(u64::MAX).max(1)
    }
}

impl<'l> Answering<'l> {
    pub(crate) fn new(link: &'l mut Link, call: &Call, number: u32) -> Self {
        let is_timed = call.count > 1
            || link.pace == Pace::Slow
            || number < Clock::SAMPLE
            || number.is_multiple_of(Clock::SAMPLE);
        let since = is_timed.then(Instant::now);
        let clock = Clock { since, block_since: None, block: 1 };
        // That it is missing has to be known before its answer is: the next call may use the same.
        let way = match call.payload.bulk() {
            Some(Bulk::Missing(_)) => Way::Socket,
            _ => Way::Ring,
        };
        task::begin(call.id);
        Self {
            link,
            id: call.id,
            at: call.at,
            count: call.count,
            index: 0,
            claimed: 0,
            clock,
            is_told_of: call.payload.descriptors().is_empty(),
            parent: Parent::There,
            way,
        }
    }

    /// Tells the parent when this call begins: that is, now. Before it claims an item.
    pub fn note_begin(&self) {
        self.link.far.note_begin(self.at, task::now());
    }

    /// Claims the next item. False if none is left that this child may begin.
    #[inline]
    pub(crate) fn begin(&mut self) -> bool {
        self.has_claimed() || self.claim()
    }

    fn claim(&mut self) -> bool {
        if self.claimed >= self.count || self.parent == Parent::Gone {
            return false;
        }
        let most = if self.claimed == 0 { 1 } else { self.clock.next_block() };
        if let (Some(since), Some(now)) = (self.clock.since, self.clock.block_since)
            && now - since > Clock::PATIENCE
        {
            self.publish();
        }
        let (first, count) = self.link.far.claim(self.at, most);
        self.claimed = first + count;
        if count > 0 && !self.is_told_of {
            self.is_told_of = true;
            // The parent keeps copies for as long as the call may have to go to another child.
            let mut begun = [0; HEADER];
            seal(Kind::Begun, 0, self.id, 0, &mut begun);
            // Should the parent be gone, the answer will find that out.
            let _ = self.link.port.write(&begun, &[]);
        }
        count > 0
    }

    /// Whether items are claimed that were not answered.
    #[inline]
    pub(crate) fn has_claimed(&self) -> bool {
        self.index < self.claimed
    }

    /// By what a copy of this process sees that it is one.
    pub(crate) fn original(&self) -> Original {
        self.link.original()
    }

    /// Where the answer is to be appended.
    #[inline]
    pub(crate) fn stage(&mut self, form: Form) -> &mut Vec<u8> {
        if !self.link.far.stage(self.id, self.index, form) {
            self.publish();
            self.link.far.stage(self.id, self.index, form);
        }
        self.link.far.staged()
    }

    /// Room for answers of a word each to the items that were claimed, where that takes no more than to
    /// write them.
    #[inline]
    pub(crate) fn words(&mut self) -> Option<Words<'_>> {
        let most = self.claimed - self.index;
        self.link.far.words(self.id, &mut self.index, most)
    }

    /// Takes out what was staged.
    pub(crate) fn unstage(&mut self) -> Vec<u8> {
        self.link.far.unstage()
    }

    /// Whether what is staged can be handed over in the ring.
    #[inline]
    pub(crate) fn fits(&self) -> bool {
        self.way == Way::Ring && self.link.far.staged_len() <= self.link.far.longest()
    }

    /// What was staged is the item's answer.
    #[inline]
    pub(crate) fn commit(&mut self) {
        while !self.link.far.has_room() {
            // Should the parent be gone or want no more, the watcher ends this process.
            self.link.port.tell(Some(Listener::Socket));
            self.link.far.wait_for_room();
        }
        self.link.far.commit();
        self.index += 1;
    }

    /// Answers over the socket: what is too long for the ring, or has descriptors. In front of
    /// the answer, `frame` has room for a header.
    ///
    /// An error is the kernel's that has no room for descriptors. Then the item is not answered yet.
    pub(crate) fn send(
        &mut self,
        mut frame: Vec<u8>,
        descriptors: &[Arc<OwnedFd>],
    ) -> io::Result<()> {
        self.publish();
        seal(Kind::Reply, self.index, self.id, descriptors.len(), &mut frame);
        match self.link.port.write(&frame, descriptors) {
            Err(error) if is_for_want(&error) && !descriptors.is_empty() => return Err(error),
            Err(_) => self.parent = Parent::Gone,
            Ok(()) => {}
        }
        self.index += 1;
        Ok(())
    }

    /// Puts a value into a segment, if it is long enough to be worth it and one can be had.
    #[inline]
    pub(crate) fn fill(&mut self, value: &[u8]) -> Option<Made> {
        self.link.fill(value)
    }

    /// Answers with what lies in a segment, which is the parent's until it gives that back.
    pub(crate) fn lend(&mut self, made: Made) {
        let extent = made.extent().to_bytes();
        if self.link.lender.is_known(&made) {
            self.stage(Form::Bulk).extend_from_slice(&extent);
            self.commit();
            self.link.lender.lend(made);
            return self.publish();
        }
        self.publish();
        let mut frame = vec![0; HEADER];
        frame.extend_from_slice(&extent);
        seal(Kind::BulkReply, self.index, self.id, 1, &mut frame);
        match self
            .link
            .port
            .write(&frame, made.file().map(std::slice::from_ref).unwrap_or_default())
        {
            Ok(()) => self.link.lender.lend(made),
            // Without a descriptor it may be written.
            Err(error) if is_for_want(&error) => {
                let frame = [&[0; HEADER][..], &[VALUE], made.bytes()].concat();
                let _ = self.send(frame, &[]);
                return;
            }
            Err(_) => self.parent = Parent::Gone,
        }
        self.index += 1;
    }

    fn publish(&mut self) {
        let nanos = self.clock.nanos();
        if nanos > 0 {
            self.link.pace = if nanos > Clock::SLOW { Pace::Slow } else { Pace::Fast };
        }
        let listener = self.link.far.publish(nanos);
        self.link.port.tell(listener);
    }

    /// Hands over what was answered. False if the parent is gone: there is nobody left to work for.
    pub fn finish(mut self) -> bool {
        self.publish();
        self.link.look_at_growth();
        self.parent == Parent::There
    }
}
