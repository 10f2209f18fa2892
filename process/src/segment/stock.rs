//! A maker's segments: those that are in use, and those that wait to be used again.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Extent, SLOTS};
use crate::sys::pid;
use crate::sys::segment::Segment;

/// The segments that a process made for one purpose, such as a pool.
///
/// It keeps up to 32 of them, of so many bytes together, whether they are used or wait to be. What
/// is beyond that is made for one use: as much as is in use then. A copy of the process that `fork`
/// made gets none: what is in them is the original's.
#[derive(Debug)]
pub struct Stock {
    owner: u32,
    /// How many bytes it keeps.
    most: usize,
    /// From which length on something is put into a segment.
    from: usize,
    content: Mutex<Content>,
}

#[derive(Debug, Default)]
struct Content {
    /// Those that wait, in the order in which they came back.
    idle: VecDeque<Kept>,
    /// The numbers of all that are kept, as bits.
    live: u32,
    /// How many bytes are kept.
    bytes: usize,
    /// How many are in use that will not be kept.
    alone: usize,
    /// How many were ever made to be kept.
    made: u64,
    phase: Phase,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Open,
    Closed,
}

/// A number may be given again to a later segment, a generation is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Number {
    pub(crate) slot: u32,
    pub(crate) generation: u64,
}

#[derive(Debug)]
struct Kept {
    number: Number,
    segment: Segment,
}

/// What there is for who needs a segment.
#[derive(Debug)]
enum Found {
    Idle(Kept),
    /// Room to make one: to be kept, if it has a number.
    Room(Option<Number>),
    Nothing,
}

impl Stock {
    /// What a pool keeps for its arguments: about two of the size that is worth a segment most.
    pub const POOL: usize = 128 << 20;
    /// What a worker keeps for its results.
    pub(crate) const WORKER: usize = 64 << 20;
    /// What is longer than a ring takes.
    const FROM: usize = 64 << 10;

    /// A stock that keeps so many bytes.
    pub fn new(most: usize) -> Arc<Self> {
        Self::with(most, Self::FROM)
    }

    /// A stock that has none.
    pub(crate) fn none() -> Arc<Self> {
        Self::with(0, usize::MAX)
    }

    fn with(most: usize, from: usize) -> Arc<Self> {
        Arc::new(Self { owner: pid::own(), most, from, content: Mutex::default() })
    }

    /// Drops what waits, and keeps nothing from now on.
    pub fn close(&self) {
        if pid::own() == self.owner {
            let mut content = self.lock();
            content.phase = Phase::Closed;
            let idle = std::mem::take(&mut content.idle);
            idle.iter().for_each(|kept| content.forget(kept.number, kept.segment.len()));
            drop(content);
            drop(idle);
        }
    }

    /// Puts bytes into a segment, if they are long enough to be worth it. None if they are not, or
    /// no segment can be had: then they have to travel some other way.
    pub(crate) fn fill(self: &Arc<Self>, bytes: &[u8]) -> Option<Made> {
        if bytes.len() <= self.from {
            return None;
        }
        let (number, mut segment) = self.obtain(bytes.len())?;
        segment.write(bytes);
        Some(Made { stock: Arc::clone(self), number, len: bytes.len(), segment: Some(segment) })
    }

    fn obtain(&self, len: usize) -> Option<(Option<Number>, Segment)> {
        // Before the lock, which nobody would give back in a copy of this process.
        if pid::own() != self.owner {
            return None;
        }
        let size = rounded(len);
        let mut evicted = Vec::new();
        let found = self.lock().find(size, self.most, &mut evicted);
        drop(evicted);
        match found {
            Found::Idle(Kept { number, segment }) => Some((Some(number), segment)),
            Found::Room(number) => match Segment::create(size) {
                Ok(segment) => Some((number, segment)),
                Err(_) => {
                    self.lock().end_use(number, size);
                    None
                }
            },
            Found::Nothing => None,
        }
    }

    fn give_back(&self, number: Option<Number>, segment: Segment) {
        if pid::own() != self.owner {
            return;
        }
        let mut content = self.lock();
        match number {
            Some(number) if content.phase == Phase::Open => {
                content.idle.push_back(Kept { number, segment });
            }
            _ => {
                content.end_use(number, segment.len());
                drop(content);
                drop(segment);
            }
        }
    }

    fn live(&self) -> u32 {
        self.lock().live
    }

    fn lock(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Content {
    /// What is much larger than it needs to be is left for what needs it.
    const WASTE: usize = 4;

    fn find(&mut self, size: usize, most: usize, evicted: &mut Vec<Segment>) -> Found {
        let fits = |kept: &Kept| (size..=size * Self::WASTE).contains(&kept.segment.len());
        let idle = self.idle.iter().enumerate().filter(|(_, kept)| fits(kept));
        let best = idle.min_by_key(|(_, kept)| kept.segment.len()).map(|(at, _)| at);
        if let Some(kept) = best.and_then(|at| self.idle.remove(at)) {
            return Found::Idle(kept);
        }
        if size <= most && self.phase == Phase::Open {
            while self.bytes + size > most || self.live == u32::MAX {
                let Some(Kept { number, segment }) = self.idle.pop_front() else { break };
                self.forget(number, segment.len());
                evicted.push(segment);
            }
            if self.bytes + size <= most && self.live != u32::MAX {
                let slot = self.live.trailing_ones();
                self.live |= 1 << slot;
                self.bytes += size;
                self.made += 1;
                return Found::Room(Some(Number { slot, generation: self.made }));
            }
        }
        if self.alone == SLOTS {
            return Found::Nothing;
        }
        self.alone += 1;
        Found::Room(None)
    }

    fn end_use(&mut self, number: Option<Number>, size: usize) {
        match number {
            Some(number) => self.forget(number, size),
            None => self.alone -= 1,
        }
    }

    fn forget(&mut self, number: Number, size: usize) {
        self.live &= !(1 << number.slot);
        self.bytes -= size;
    }
}

/// A segment with something in it. It goes back to its stock as this is dropped: then its readers
/// have to be done with it.
#[derive(Debug)]
pub(crate) struct Made {
    stock: Arc<Stock>,
    number: Option<Number>,
    len: usize,
    /// Always there, but while it is dropped.
    segment: Option<Segment>,
}

impl Made {
    /// What names it if it is to be kept by its readers.
    pub(crate) fn number(&self) -> Option<Number> {
        self.number
    }

    /// What its readers are told.
    pub(crate) fn extent(&self) -> Extent {
        let slot = self.number.map_or(Extent::ALONE, |number| number.slot);
        Extent { slot, live: self.stock.live(), len: self.len as u64 }
    }

    /// What its readers are told if they shall not keep it.
    pub(crate) fn extent_alone(&self) -> Extent {
        Extent { slot: Extent::ALONE, ..self.extent() }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.segment.as_ref().map_or(&[], |segment| segment.bytes(self.len))
    }

    /// By what its readers map it.
    pub(crate) fn file(&self) -> Option<&Arc<OwnedFd>> {
        self.segment.as_ref().map(Segment::file)
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        if let Some(segment) = self.segment.take() {
            self.stock.give_back(self.number, segment);
        }
    }
}

/// A size that others of about this length can use, too: at most a quarter more.
fn rounded(len: usize) -> usize {
    const PAGE: usize = 4096;
    let step = (len.checked_next_power_of_two().unwrap_or(len) / 8).max(PAGE);
    len.checked_next_multiple_of(step).unwrap_or(len)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{SLOTS, Stock, rounded};

    const KIB: usize = 1 << 10;

    #[test]
    fn a_size_is_at_most_a_quarter_more_than_its_length() {
        assert_eq!(rounded(64 << 20), 64 << 20);
        for len in (1..5000).map(|i| i * 12_345) {
            assert!((len..=len + (len / 4).max(4096)).contains(&rounded(len)), "{len}");
        }
    }

    #[test]
    fn what_came_back_is_used_again() {
        let stock = Stock::new(1 << 20);
        let first = stock.fill(&[1; 100 * KIB]).unwrap();
        let number = first.number().unwrap();
        assert_ne!(stock.fill(&[2; 100 * KIB]).unwrap().number(), Some(number));
        assert_eq!(first.bytes(), [1; 100 * KIB]);
        drop(first);
        let numbers: Vec<_> = (0..2).map(|_| stock.fill(&[3; 90 * KIB]).unwrap()).collect();
        assert!(numbers.iter().any(|made| made.number() == Some(number)));
    }

    #[test]
    fn no_more_is_kept_than_was_said() {
        let stock = Stock::new(1 << 20);
        for size in [900, 300, 70, 500, 1000, 100] {
            drop(stock.fill(&vec![0; size * KIB]).unwrap());
            let content = stock.lock();
            let idle: usize = content.idle.iter().map(|kept| kept.segment.len()).sum();
            assert!(idle <= 1 << 20 && idle == content.bytes);
            assert_eq!(content.live.count_ones() as usize, content.idle.len());
        }
        let held: Vec<_> = (0..3).map(|_| stock.fill(&vec![0; 500 * KIB]).unwrap()).collect();
        assert_eq!(held.iter().filter(|made| made.number().is_some()).count(), 2);
        drop(held);
        assert_eq!(stock.lock().alone, 0);
        assert!(stock.fill(&vec![0; 2 << 20]).unwrap().number().is_none());
        stock.close();
        let content = stock.lock();
        assert_eq!((content.bytes, content.live), (0, 0));
    }

    #[test]
    fn descriptors_in_use_are_bounded() {
        let stock = Stock::new(0);
        let held: Vec<_> = std::iter::from_fn(|| stock.fill(&vec![0; 300 * KIB])).collect();
        assert_eq!(held.len(), SLOTS);
        drop(held);
        assert!(stock.fill(&vec![0; 300 * KIB]).is_some());
        assert!(stock.fill(&[0; 64 * KIB]).is_none(), "not worth it");
        assert!(Stock::none().fill(&vec![0; 300 * KIB]).is_none());
        drop(Arc::into_inner(stock).unwrap());
    }
}
