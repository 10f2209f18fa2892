//! How a map runs: items are taken from its input and put on their way, and outcomes are taken as
//! they arrive. The maps themselves are in [`maps`](crate::maps).

use std::borrow::Borrow;
use std::num::NonZero;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;

use epilogue_process::child::Original;
use epilogue_process::entry::{Entry, ForeignFunction, Request};
use epilogue_process::parcel::Parcel;
use epilogue_process::{EncodeError, Portable, Side};

use crate::call::head;
use crate::collect::{Collect, GoOn, Values};
use crate::error::{Refusal, TaskError};
use crate::job::{Job, More, Reads};
use crate::mailbox::{Arrival, Outcomes as Arrived};
use crate::progress::Progress;
use crate::shared::Shared;
use crate::terms::Terms;

/// A pool whose maps put a certain number of items into each call, or go by certain terms.
#[derive(Debug, Clone, Copy)]
pub struct Maps<'pool> {
    pub(crate) pool: &'pool Arc<Shared>,
    pub(crate) chunk_size: Option<NonZero<usize>>,
    pub(crate) terms: Terms,
    pub(crate) progress: Progress<'pool>,
}

impl Maps<'_> {
    pub(crate) fn map_to_end<I, T, R>(
        self,
        items: I,
        entry: Result<Entry, ForeignFunction>,
        state: Option<Parcel>,
    ) -> Result<Vec<R>, TaskError>
    where
        I: IntoIterator<Item: Borrow<T>>,
        T: Portable,
        R: Portable,
    {
        let Values { values, cause } =
            self.run::<_, T, _, _>(items, entry, state, Values::default())?;
        match cause {
            Some((_, error)) => Err(error),
            None => Ok(values.into_vec()),
        }
    }

    pub(crate) fn run<I, T, R, C>(
        self,
        items: I,
        entry: Result<Entry, ForeignFunction>,
        state: Option<Parcel>,
        mut collected: C,
    ) -> Result<C::Whole, TaskError>
    where
        I: IntoIterator<Item: Borrow<T>>,
        T: Portable,
        R: Portable,
        C: Collect<R>,
    {
        let entry = entry.map_err(Refusal::from)?;
        let (pool, limits) = (self.pool, &self.pool.limits);
        let size = self.chunk_size.map(NonZero::get);
        let mut job = Job::new(pool, size, state, Reads::AllTheTime)?.by(self.terms);
        job.progress = self.progress;
        let head = head(entry, job.state());
        let mut input = Input::new(items)?;
        if self.progress.is_shown() {
            self.progress.expect(fence(|| input.items.size_hint())?);
        }
        loop {
            // What has arrived comes first: after an error no further item is taken, however long
            // the iterator takes to give it.
            let arrived = match input.ended || !job.has_room() {
                true => job.next(),
                false => job.try_next(),
            };
            let go_on = if let Some(arrival) = arrived {
                collected.take(arrival, limits)
            } else if input.ended {
                pool.require_owner()?;
                return Ok(collected.whole());
            } else {
                self.send::<_, T, _, _>(&mut job, &head, &mut input, &mut collected)?
            };
            if go_on == GoOn::No {
                input.end_early(&job);
            }
        }
    }

    /// Takes items from the input, as many as go together, and puts them on their way.
    pub(crate) fn send<I, T, R, C>(
        self,
        job: &mut Job<'_>,
        head: &[u8],
        input: &mut Input<I>,
        collected: &mut C,
    ) -> Result<GoOn, TaskError>
    where
        I: Iterator<Item: Borrow<T>>,
        T: Portable,
        C: Collect<R>,
    {
        let first = input.given;
        let mut alone = None;
        let filled = job.fill(head, |request, most| {
            if Request::takes_several::<T>() {
                let filled = input.fill::<T>(request, most, self.pool.owner());
                return filled.map_err(Failed::Input);
            }
            let Some(item) = input.next().map_err(Failed::Input)? else { return Ok(More::No) };
            // The iterator may have forked, and goes on in the copy as well.
            self.pool.require_owner().map_err(Failed::Input)?;
            match request.push(item.borrow(), &self.pool.limits, &self.pool.stock) {
                Ok(None) if !request.parcel().is_full() => Ok(More::Yes),
                Ok(other) => {
                    alone = other;
                    Ok(More::No)
                }
                Err(error) => Err(Failed::Item(error)),
            }
        });
        // The iterator may have forked where it ends, and a value where it is written.
        self.pool.require_owner()?;
        let (request, failed) = match filled {
            Ok(request) => (request, None),
            Err((request, failed)) => (request, Some(failed)),
        };
        let mut go_on = GoOn::Yes;
        let mut index = first;
        let mut submit = |request: Request| {
            let count = request.count() as usize;
            if count > 0
                && let Err(refusal) = job.submit(index, request)
            {
                let outcomes = Arrived::Failed { count, error: refusal.into() };
                let arrival = Arrival { first: index, outcomes };
                self.progress.advance(&arrival);
                go_on = collected.take(arrival, &self.pool.limits);
            }
            index += count;
        };
        submit(request);
        alone.into_iter().for_each(submit);
        match failed {
            None => Ok(go_on),
            Some(Failed::Input(refusal)) => Err(refusal.into()),
            Some(Failed::Item(error)) => {
                let error = TaskError::Encode { side: Side::Argument, error };
                let outcomes = Arrived::Failed { count: 1, error };
                let arrival = Arrival { first: index, outcomes };
                self.progress.advance(&arrival);
                Ok(collected.take(arrival, &self.pool.limits))
            }
        }
    }
}

/// Why a call was not filled.
enum Failed {
    /// The input gives nothing any more.
    Input(Refusal),
    /// An item cannot go.
    Item(EncodeError),
}

/// The items of a map: guarded against what an iterator of somebody else's may do.
pub(crate) struct Input<I> {
    items: I,
    /// How many items it gave.
    pub(crate) given: usize,
    pub(crate) ended: bool,
    ended_early: bool,
    /// It gives no more than so many for now.
    pub(crate) bound: usize,
    /// More than this is no end.
    most: usize,
}

impl<I: Iterator> Input<I> {
    /// The most items that a map takes. More results than this do not fit the memory of any
    /// machine that runs us; an iterator that gives more has no end.
    const MAX_ITEMS: usize = u32::MAX as usize;

    pub(crate) fn new(items: impl IntoIterator<IntoIter = I>) -> Result<Self, Refusal> {
        let items = fence(|| items.into_iter())?;
        let (at_least, _) = fence(|| items.size_hint())?;
        if at_least > Self::MAX_ITEMS {
            return Err(Refusal::Endless);
        }
        Ok(Self { most: Self::MAX_ITEMS, ..Self::endless(items) })
    }

    /// One that may go on for ever.
    pub(crate) fn endless(items: I) -> Self {
        let (bound, most) = (usize::MAX, usize::MAX);
        Self { items, given: 0, ended: false, ended_early: false, bound, most }
    }

    /// The next item. What is on its way when this fails ends as the job is dropped.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<I::Item>, Refusal> {
        if self.ended || self.given >= self.bound {
            return Ok(None);
        }
        let item = fence(|| self.items.next())?;
        match item {
            Some(_) => self.given += 1,
            None => self.ended = true,
        }
        if self.given > self.most {
            return Err(Refusal::Endless);
        }
        Ok(item)
    }

    /// Puts numbers into a call, `most` or fewer, behind one fence. Whether it may give more.
    #[inline]
    fn fill<T: Portable>(
        &mut self,
        request: &mut Request,
        most: usize,
        owner: Original,
    ) -> Result<More, Refusal>
    where
        I::Item: Borrow<T>,
    {
        let most =
            most.min(self.bound - self.given).min((self.most - self.given).saturating_add(1));
        if self.ended || most == 0 {
            return Ok(More::No);
        }
        let (items, before) = (&mut self.items, request.count());
        let filled = fence(|| {
            let mut numbers = request.numbers::<T>(most);
            for _ in 0..most {
                let Some(item) = items.next() else { return Ok(More::No) };
                numbers.push(item.borrow());
                // The iterator may have forked, and goes on in the copy as well.
                if !owner.is_here() {
                    return Err(Refusal::Forked);
                }
            }
            Ok(More::Yes)
        });
        self.given += (request.count() - before) as usize;
        let more = filled.flatten()?;
        self.ended = more == More::No;
        if self.given > self.most { Err(Refusal::Endless) } else { Ok(more) }
    }

    /// Takes no more, and cancels what has not begun.
    pub(crate) fn end_early(&mut self, job: &Job<'_>) {
        if !self.ended_early {
            (self.ended, self.ended_early) = (true, true);
            job.cancel();
        }
    }
}

/// Calls code of the caller's iterator; its panic becomes an error.
pub(crate) fn fence<R>(body: impl FnOnce() -> R) -> Result<R, Refusal> {
    panic::catch_unwind(AssertUnwindSafe(body)).map_err(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
        let message = text.unwrap_or("(a payload that is not text)").to_owned();
        // The payload is the caller's, and its `Drop` may panic again.
        if let Err(second) = panic::catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            std::mem::forget(second);
        }
        Refusal::InputPanicked { message }
    })
}
