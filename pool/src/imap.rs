//! Lazy maps: iterators that take from their input as they are taken from, so it may be endless.
//!
//! # Invariants
//!
//! 1. Of what was taken from the input, no more waits for the consumer than the bounds say, by count
//!    and by bytes: those count from the moment an item is taken until its outcome is given.
//! 2. There is always room for one: nothing is too long to be taken alone.
//! 3. An iterator borrows its pool, which cannot be dropped before it. Dropping it half-way cancels
//!    what has not begun and waits for what has, as every job does.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::iter::FusedIterator;
use std::num::NonZero;

use epilogue_process::entry::Entry;
use epilogue_process::{Limits, Portable};

use crate::call::{NO_STATE, head};
use crate::collect::{Collect, GoOn, outcomes};
use crate::error::{Refusal, TaskError};
use crate::job::{Job, Reads};
use crate::mailbox::{Arrival, Index, Outcomes};
use crate::map::{Input, Maps, fence};
use crate::pool::Pool;

impl Pool {
    /// Like [`Pool::map_outcomes`], as an iterator: outcomes in the order of the items, as they are
    /// asked for. The input may be endless.
    ///
    /// Nothing is taken from the input before the first outcome is asked for. From then on it is
    /// read ahead, so that the workers have something to do while the outcomes are made use of; how
    /// far is bounded by [`Imap::ahead`] and [`Imap::ahead_bytes`].
    ///
    /// Items are taken, and outcomes are given, in the calls of `next` only. So while the input
    /// waits for something, no outcome is given. An input that waits for the outcome of an item
    /// that it gave before needs `ahead(1)`: then no item is taken before the outcome of the last
    /// one was given.
    ///
    /// Dropping the iterator half-way cancels what has not begun, and waits for what has.
    ///
    /// # Errors
    ///
    /// Each item has its own; see [`TaskError`]. If the pool is closed meanwhile, that is the outcome
    /// of the items that it did not take, and no more are taken. If the input panics, or the pool was
    /// closed from the start, that is one more outcome, after all others.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = epilogue_pool::Pool::new(2)?;
    /// let mut squares = pool.imap(0u64.., |x| x * x);
    /// let big = squares.find(|square| !matches!(square, Ok(..1000)));
    /// assert_eq!(big.transpose()?, Some(1024));
    /// # drop(squares);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// The pool cannot go away before it:
    ///
    /// ```compile_fail,E0505
    /// let pool = epilogue_pool::Pool::new(2)?;
    /// let mut squares = pool.imap(0u64.., |x| x * x);
    /// drop(pool);
    /// squares.next();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn imap<I, T, R>(&self, items: I, f: fn(T) -> R) -> Imap<'_, I::IntoIter, R>
    where
        I: IntoIterator<Item = T>,
        T: Portable,
        R: Portable,
    {
        self.maps().imap(items, f)
    }

    /// Like [`Pool::imap`], in the order in which the workers are done: no outcome waits for that
    /// of an item before it, unless a worker began them together. It does so with items that take
    /// less than some microseconds, by those before them; see [`Builder::chunk_size`].
    ///
    /// [`Builder::chunk_size`]: crate::Builder::chunk_size
    ///
    /// To know which item an outcome belongs to, return that along with it.
    ///
    /// # Errors
    ///
    /// As [`Pool::imap`].
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = epilogue_pool::Pool::new(2)?;
    /// for outcome in pool.imap_unordered(["b", "a"].map(String::from), |name| (name.len(), name)) {
    ///     let (length, name) = outcome?;
    ///     println!("{name}: {length}");
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn imap_unordered<I, T, R>(
        &self,
        items: I,
        f: fn(T) -> R,
    ) -> ImapUnordered<'_, I::IntoIter, R>
    where
        I: IntoIterator<Item = T>,
        T: Portable,
        R: Portable,
    {
        self.maps().imap_unordered(items, f)
    }
}

impl<'pool> Maps<'pool> {
    /// As [`Pool::imap`].
    pub fn imap<I, T, R>(self, items: I, f: fn(T) -> R) -> Imap<'pool, I::IntoIter, R>
    where
        I: IntoIterator<Item = T>,
        T: Portable,
        R: Portable,
    {
        Imap(Stream::new(self, items, f, InOrder::default()))
    }

    /// As [`Pool::imap_unordered`].
    pub fn imap_unordered<I, T, R>(
        self,
        items: I,
        f: fn(T) -> R,
    ) -> ImapUnordered<'pool, I::IntoIter, R>
    where
        I: IntoIterator<Item = T>,
        T: Portable,
        R: Portable,
    {
        ImapUnordered(Stream::new(self, items, f, AsTheyCome::default()))
    }
}

/// The outcomes of [`Pool::imap`].
#[must_use = "iterators are lazy: nothing is taken from the input before an outcome is asked for"]
pub struct Imap<'pool, I: Iterator, R>(Stream<'pool, I, R, InOrder>);

/// The outcomes of [`Pool::imap_unordered`].
#[must_use = "iterators are lazy: nothing is taken from the input before an outcome is asked for"]
pub struct ImapUnordered<'pool, I: Iterator, R>(Stream<'pool, I, R, AsTheyCome>);

impl<I: Iterator, R> Imap<'_, I, R> {
    /// Sets how many items may be ahead of the consumer: taken, and their outcomes not given. At
    /// least 1; by default 512 for each worker.
    pub fn ahead(mut self, items: usize) -> Self {
        self.0.bounds.items = items.max(1);
        self
    }

    /// Sets how many bytes the arguments and outcomes that are ahead of the consumer may have
    /// together, in their encoded form. 32 MiB by default. Outcomes that have not arrived are taken
    /// to be as long as those before were on average. One item is always let through, however long
    /// it is.
    pub fn ahead_bytes(mut self, bytes: usize) -> Self {
        self.0.bounds.bytes = bytes;
        self
    }
}

impl<I: Iterator, R> ImapUnordered<'_, I, R> {
    /// As [`Imap::ahead`].
    pub fn ahead(mut self, items: usize) -> Self {
        self.0.bounds.items = items.max(1);
        self
    }

    /// As [`Imap::ahead_bytes`].
    pub fn ahead_bytes(mut self, bytes: usize) -> Self {
        self.0.bounds.bytes = bytes;
        self
    }
}

impl<I: Iterator<Item: Portable>, R: Portable> Iterator for Imap<'_, I, R> {
    type Item = Result<R, TaskError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next()
    }
}

impl<I: Iterator<Item: Portable>, R: Portable> Iterator for ImapUnordered<'_, I, R> {
    type Item = Result<R, TaskError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next()
    }
}

impl<I: Iterator<Item: Portable>, R: Portable> FusedIterator for Imap<'_, I, R> {}

impl<I: Iterator<Item: Portable>, R: Portable> FusedIterator for ImapUnordered<'_, I, R> {}

impl<I: Iterator, R> fmt::Debug for Imap<'_, I, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.describe("Imap", f)
    }
}

impl<I: Iterator, R> fmt::Debug for ImapUnordered<'_, I, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.describe("ImapUnordered", f)
    }
}

/// How far the input is read ahead.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    items: usize,
    bytes: usize,
    /// How many tasks are on their way while nobody knows how long their outcomes are.
    untried: usize,
}

/// What both kinds of lazy maps are.
struct Stream<'pool, I: Iterator, R, O> {
    maps: Maps<'pool>,
    /// None once there is nothing more to be done.
    work: Option<Work<'pool, I>>,
    stock: Stock<O>,
    /// Outcomes that are to be given next.
    current: VecDeque<Result<R, TaskError>>,
    /// How many of the stock's bytes are theirs.
    current_bytes: usize,
    /// How many were given.
    given: usize,
    bounds: Bounds,
    /// What comes after all outcomes.
    error: Option<TaskError>,
}

struct Work<'pool, I> {
    job: Job<'pool>,
    head: Vec<u8>,
    input: Input<I>,
}

impl<'pool, I: Iterator, R, O: Order> Stream<'pool, I, R, O> {
    const ITEMS_EACH: usize = 512;
    const BYTES: usize = 32 << 20;
    const UNTRIED_EACH: usize = 2;

    fn new<T: Portable>(
        maps: Maps<'pool>,
        items: impl IntoIterator<IntoIter = I, Item = T>,
        f: fn(T) -> R,
        order: O,
    ) -> Self
    where
        R: Portable,
    {
        let begin = || {
            let entry = Entry::plain(f)?;
            let size = maps.chunk_size.map(NonZero::get);
            let mut job = Job::new(maps.pool, size, None, Reads::AtTimes)?.by(maps.terms);
            job.progress = maps.progress;
            let input = Input::endless(fence(|| items.into_iter())?);
            Ok(Work { job, head: head(entry, NO_STATE), input })
        };
        let (work, error) = match begin() {
            Ok(work) => (Some(work), None),
            Err::<_, Refusal>(refusal) => (None, Some(refusal.into())),
        };
        let workers = match work {
            Some(_) => maps.pool.floor().wanted(),
            None => 1,
        };
        let bounds = Bounds {
            items: workers * Self::ITEMS_EACH,
            bytes: Self::BYTES,
            untried: workers * Self::UNTRIED_EACH,
        };
        let stock = Stock { order, bytes: 0, seen: 0, seen_bytes: 0 };
        let (current, current_bytes, given) = (VecDeque::new(), 0, 0);
        Self { maps, work, stock, current, current_bytes, given, bounds, error }
    }

    fn next(&mut self) -> Option<Result<R, TaskError>>
    where
        I::Item: Portable,
        R: Portable,
    {
        while self.current.is_empty() {
            if !self.refill() {
                // Here all that was on its way has its outcome, and nothing is left to be waited for.
                self.work = None;
                return self.error.take().map(Err);
            }
        }
        self.given += 1;
        self.current.pop_front()
    }

    /// Gets the next outcomes; false if there are no more.
    fn refill(&mut self) -> bool
    where
        I::Item: Portable,
        R: Portable,
    {
        let Some(work) = &mut self.work else { return false };
        if let Err(refusal) = self.maps.pool.require_owner() {
            self.error = Some(refusal.into());
            return false;
        }
        self.stock.bytes -= std::mem::take(&mut self.current_bytes);
        let limits = &self.maps.pool.limits;
        loop {
            while let Some(arrival) = work.job.try_next() {
                self.stock.put(arrival);
            }
            let next = self.stock.order.take();
            // The workers get something to do before the consumer does: it may take its time.
            let room = work.room(&self.stock, self.given, self.bounds);
            if room > 0 {
                work.input.bound = work.input.given.saturating_add(room);
                let used = work.job.pending().1 + self.stock.bytes;
                work.job.bound_calls(self.bounds.bytes.saturating_sub(used).max(1));
                let Work { job, head, input } = work;
                let sent = self.maps.send::<_, I::Item, R, _>(job, head, input, &mut self.stock);
                work.input.ended |= !matches!(sent, Ok(GoOn::Yes));
                // What was taken before has its outcome first.
                self.error = sent.err();
                if next.is_none() {
                    continue;
                }
            }
            if let Some(arrival) = next {
                self.current_bytes = arrival.bytes();
                outcomes(arrival.outcomes, limits, |one| self.current.push_back(one));
                return true;
            }
            match work.job.next() {
                Some(arrival) => self.stock.put(arrival),
                None => return false,
            }
        }
    }

    fn describe(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(name).field("given", &self.given).finish_non_exhaustive()
    }
}

impl<I> Work<'_, I> {
    /// How many items may be taken from the input now.
    fn room(&self, stock: &Stock<impl Order>, given: usize, bounds: Bounds) -> usize
    where
        I: Iterator,
    {
        let ahead = self.input.given - given;
        if self.input.ended || !self.job.has_room() {
            return 0;
        }
        let (pending, pending_bytes) = self.job.pending();
        let room = match stock.each_bytes() {
            None => bounds.untried.saturating_sub(pending),
            Some(each) => {
                let used = pending_bytes + stock.bytes + pending.saturating_mul(each);
                bounds.bytes.saturating_sub(used).div_ceil(each.max(1))
            }
        };
        let room = room.max(usize::from(ahead == 0));
        room.min(bounds.items.saturating_sub(ahead))
    }
}

/// What has arrived and was not given.
struct Stock<O> {
    order: O,
    bytes: usize,
    /// How many outcomes have arrived so far, and how many bytes they had.
    seen: usize,
    seen_bytes: usize,
}

impl<O: Order> Stock<O> {
    fn put(&mut self, arrival: Arrival) {
        self.bytes += arrival.bytes();
        self.seen += arrival.count();
        self.seen_bytes += arrival.bytes();
        self.order.put(arrival);
    }

    /// How many bytes an outcome has. None as long as nothing is known.
    fn each_bytes(&self) -> Option<usize> {
        (self.seen > 0).then(|| self.seen_bytes / self.seen)
    }
}

impl<R, O: Order> Collect<R> for Stock<O> {
    type Whole = ();

    fn take(&mut self, arrival: Arrival, _: &Limits) -> GoOn {
        // A pool that takes no more would let an endless input go on for nothing.
        let go_on = match &arrival.outcomes {
            Outcomes::Failed { error: TaskError::Refused(_), .. } => GoOn::No,
            Outcomes::Failed { .. } | Outcomes::Answers(_) | Outcomes::Answer(_) => GoOn::Yes,
        };
        self.put(arrival);
        go_on
    }

    fn whole(self) {}
}

/// In which order arrivals are given.
trait Order {
    fn put(&mut self, arrival: Arrival);

    fn take(&mut self) -> Option<Arrival>;
}

/// In that of the items.
#[derive(Debug, Default)]
struct InOrder {
    next: Index,
    later: BTreeMap<Index, Outcomes>,
}

impl Order for InOrder {
    fn put(&mut self, Arrival { first, outcomes }: Arrival) {
        self.later.insert(first, outcomes);
    }

    fn take(&mut self) -> Option<Arrival> {
        let outcomes = self.later.remove(&self.next)?;
        let arrival = Arrival { first: self.next, outcomes };
        self.next += arrival.count();
        Some(arrival)
    }
}

/// In that in which they came.
#[derive(Debug, Default)]
struct AsTheyCome(VecDeque<Arrival>);

impl Order for AsTheyCome {
    fn put(&mut self, arrival: Arrival) {
        self.0.push_back(arrival);
    }

    fn take(&mut self) -> Option<Arrival> {
        self.0.pop_front()
    }
}
