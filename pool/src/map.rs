//! The maps: one function for many items, in the order of the items.

use std::error::Error;
use std::num::NonZero;
use std::panic::{self, AssertUnwindSafe};

use epilogue_process::entry::{Entry, ForeignFunction, ask};
use epilogue_process::parcel::Parcel;
use epilogue_process::{EncodeError, Portable, Side};

use crate::call::head;
use crate::collect::{Collect, GoOn, Outcomes, Values};
use crate::error::{Refusal, TaskError};
use crate::job::{Job, More};
use crate::mailbox::{Arrival, Outcomes as Arrived};
use crate::pool::{Pool, Shared};
use crate::terms::Terms;

impl Pool {
    /// Calls `f` with every item, in the workers; gives the values in the order of the items.
    ///
    /// Items are taken from the iterator as workers get to them, so it may be long and lazy. The
    /// first error ends the map: what has not begun is cancelled, and when this returns, all that
    /// had begun has come to its end.
    ///
    /// # Errors
    ///
    /// [`TaskError`]: that of the first item, in their order, of those that had one; or
    /// [`TaskError::Refused`] if the pool is closed or the iterator panics or has no end.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = epilogue_pool::Pool::new(2)?;
    /// let squares: Vec<u64> = pool.map(0..1000u64, |x| x * x)?;
    /// assert_eq!(squares[999], 998_001);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn map<I, T, R>(&self, items: I, f: fn(T) -> R) -> Result<Vec<R>, TaskError>
    where
        I: IntoIterator<Item = T>,
        T: Portable,
        R: Portable,
    {
        self.maps().map(items, f)
    }

    /// Like [`Pool::map`], for a function that may fail. Any error with a message will do: the
    /// message travels, with those of its sources, so the type need not.
    ///
    /// # Errors
    ///
    /// As [`Pool::map`]; an error of the function is [`TaskError::Failed`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::path::PathBuf;
    ///
    /// let pool = epilogue_pool::Pool::new(2)?;
    /// let paths = [PathBuf::from("/"), PathBuf::from("/no/such/file")];
    /// let sizes = pool.try_map(paths, |p: PathBuf| std::fs::metadata(p).map(|m| m.len()));
    /// assert!(sizes.unwrap_err().to_string().contains("No such file"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_map<I, T, R, E>(
        &self,
        items: I,
        f: fn(T) -> Result<R, E>,
    ) -> Result<Vec<R>, TaskError>
    where
        I: IntoIterator<Item = T>,
        T: Portable,
        R: Portable,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        self.maps().try_map(items, f)
    }

    /// Like [`Pool::map`], but an error is the outcome of its task only: one outcome an item,
    /// whatever happens.
    ///
    /// # Errors
    ///
    /// [`TaskError::Refused`] if the pool is closed from the start, or the iterator panics or has no
    /// end. If the pool is closed meanwhile, that is the outcome of each item that it did not take.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = epilogue_pool::Pool::new(2)?;
    /// let outcomes = pool.map_outcomes([0u64, 1], |x| {
    ///     if x == 0 {
    ///         std::process::abort();
    ///     }
    ///     x
    /// })?;
    /// assert!(outcomes[0].as_ref().unwrap_err().to_string().contains("SIGABRT"));
    /// assert_eq!(*outcomes[1].as_ref().unwrap(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn map_outcomes<I, T, R>(
        &self,
        items: I,
        f: fn(T) -> R,
    ) -> Result<Vec<Result<R, TaskError>>, TaskError>
    where
        I: IntoIterator<Item = T>,
        T: Portable,
        R: Portable,
    {
        self.maps().map_outcomes(items, f)
    }

    /// Like [`Pool::map`], with a state that every call borrows: what a closure would capture.
    ///
    /// The state is sent once to each worker, not once with each task.
    ///
    /// # Errors
    ///
    /// As [`Pool::map`]; [`TaskError::Encode`] if the state cannot be encoded.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = epilogue_pool::Pool::new(2)?;
    /// let scale = 3u64;
    /// let scaled = pool.map_with(&scale, [1, 2], |scale, x: u64| scale * x)?;
    /// assert_eq!(scaled, [3, 6]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn map_with<S, I, T, R>(
        &self,
        state: &S,
        items: I,
        f: fn(&S, T) -> R,
    ) -> Result<Vec<R>, TaskError>
    where
        S: Portable + 'static,
        I: IntoIterator<Item = T>,
        T: Portable,
        R: Portable,
    {
        self.maps().map_with(state, items, f)
    }

    /// Has the maps that are called on the result put so many items into each call; see
    /// [`Builder::chunk_size`](crate::Builder::chunk_size). With 0, as many as take a moment.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = epilogue_pool::Pool::new(2)?;
    /// let squares: Vec<u64> = pool.chunk_size(1).map(0..1000u64, |x| x * x)?;
    /// assert_eq!(squares[999], 998_001);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn chunk_size(&self, chunk_size: usize) -> Maps<'_> {
        Maps { chunk_size: NonZero::new(chunk_size), ..self.maps() }
    }

    pub(crate) fn maps(&self) -> Maps<'_> {
        let pool = self.shared();
        Maps { pool, chunk_size: pool.chunk_size, terms: pool.terms }
    }
}

/// A pool whose maps put a certain number of items into each call, or go by certain terms.
#[derive(Debug, Clone, Copy)]
pub struct Maps<'pool> {
    pool: &'pool Shared,
    pub(crate) chunk_size: Option<NonZero<usize>>,
    pub(crate) terms: Terms,
}

impl Maps<'_> {
    /// As [`Pool::map`].
    ///
    /// # Errors
    ///
    /// As [`Pool::map`].
    pub fn map<I, T, R>(self, items: I, f: fn(T) -> R) -> Result<Vec<R>, TaskError>
    where
        I: IntoIterator<Item = T>,
        T: Portable,
        R: Portable,
    {
        self.map_to_end(items, Entry::plain(f), None)
    }

    /// As [`Pool::try_map`].
    ///
    /// # Errors
    ///
    /// As [`Pool::try_map`].
    pub fn try_map<I, T, R, E>(
        self,
        items: I,
        f: fn(T) -> Result<R, E>,
    ) -> Result<Vec<R>, TaskError>
    where
        I: IntoIterator<Item = T>,
        T: Portable,
        R: Portable,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        self.map_to_end(items, Entry::fallible(f), None)
    }

    /// As [`Pool::map_outcomes`].
    ///
    /// # Errors
    ///
    /// As [`Pool::map_outcomes`].
    pub fn map_outcomes<I, T, R>(
        self,
        items: I,
        f: fn(T) -> R,
    ) -> Result<Vec<Result<R, TaskError>>, TaskError>
    where
        I: IntoIterator<Item = T>,
        T: Portable,
        R: Portable,
    {
        self.run(items, Entry::plain(f), None, Outcomes::default())
    }

    /// As [`Pool::map_with`].
    ///
    /// # Errors
    ///
    /// As [`Pool::map_with`].
    pub fn map_with<S, I, T, R>(
        self,
        state: &S,
        items: I,
        f: fn(&S, T) -> R,
    ) -> Result<Vec<R>, TaskError>
    where
        S: Portable + 'static,
        I: IntoIterator<Item = T>,
        T: Portable,
        R: Portable,
    {
        let encoded = ask(state, Vec::new(), &self.pool.limits)
            .map_err(|error| TaskError::Encode { side: Side::Argument, error })?;
        self.map_to_end(items, Entry::with_state(f), Some(encoded))
    }

    fn map_to_end<I, T, R>(
        self,
        items: I,
        entry: Result<Entry, ForeignFunction>,
        state: Option<Parcel>,
    ) -> Result<Vec<R>, TaskError>
    where
        I: IntoIterator<Item = T>,
        T: Portable,
        R: Portable,
    {
        let Values { values, cause } = self.run(items, entry, state, Values::default())?;
        match cause {
            Some((_, error)) => Err(error),
            None => Ok(values.into_vec()),
        }
    }

    fn run<I, T, R, C>(
        self,
        items: I,
        entry: Result<Entry, ForeignFunction>,
        state: Option<Parcel>,
        mut collected: C,
    ) -> Result<C::Whole, TaskError>
    where
        I: IntoIterator<Item = T>,
        T: Portable,
        R: Portable,
        C: Collect<R>,
    {
        let entry = entry.map_err(Refusal::from)?;
        let (pool, limits) = (self.pool, &self.pool.limits);
        let mut job = Job::new(pool, self.chunk_size.map(NonZero::get), state)?.by(self.terms);
        let head = head(entry, job.state());
        let mut input = Input::new(items)?;
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
                return Ok(collected.whole());
            } else {
                self.send(&mut job, &head, &mut input, &mut collected)?
            };
            if go_on == GoOn::No {
                input.end_early(&job);
            }
        }
    }

    /// Takes items from the input, as many as go together, and puts them on their way.
    fn send<I, T, R, C>(
        self,
        job: &mut Job<'_>,
        head: &[u8],
        input: &mut Input<I>,
        collected: &mut C,
    ) -> Result<GoOn, TaskError>
    where
        I: Iterator<Item = T>,
        T: Portable,
        C: Collect<R>,
    {
        let first = input.given;
        let mut alone = None;
        let filled = job.fill(head, |request| {
            let Some(item) = input.next().map_err(Failed::Input)? else { return Ok(More::No) };
            // The iterator may have forked, and goes on in the copy as well.
            self.pool.require_owner().map_err(Failed::Input)?;
            match request.push(&item, &self.pool.limits) {
                Ok(None) if request.parcel().descriptors().is_empty() => Ok(More::Yes),
                Ok(other) => {
                    alone = other;
                    Ok(More::No)
                }
                Err(error) => Err(Failed::Item(error)),
            }
        });
        let (request, failed) = match filled {
            Ok(request) => (request, None),
            Err((_, Failed::Input(refusal))) => return Err(refusal.into()),
            Err((request, Failed::Item(error))) => (request, Some(error)),
        };
        let mut go_on = GoOn::Yes;
        let mut index = first;
        for request in [Some(request), alone].into_iter().flatten() {
            let count = request.count() as usize;
            if count > 0
                && let Err(refusal) = job.submit(index, request)
            {
                let outcomes = Arrived::Failed { count, error: refusal.into() };
                go_on = collected.take(Arrival { first: index, outcomes }, &self.pool.limits);
            }
            index += count;
        }
        if let Some(error) = failed {
            let error = TaskError::Encode { side: Side::Argument, error };
            let outcomes = Arrived::Failed { count: 1, error };
            go_on = collected.take(Arrival { first: index, outcomes }, &self.pool.limits);
        }
        Ok(go_on)
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
struct Input<I> {
    items: I,
    /// How many items it gave.
    given: usize,
    ended: bool,
    ended_early: bool,
}

impl<I: Iterator> Input<I> {
    /// The most items that a map takes. More results than this do not fit the memory of any
    /// machine that runs us; an iterator that gives more has no end.
    const MAX_ITEMS: usize = u32::MAX as usize;

    fn new(items: impl IntoIterator<IntoIter = I>) -> Result<Self, Refusal> {
        let items = fence(|| items.into_iter())?;
        let (at_least, _) = fence(|| items.size_hint())?;
        if at_least > Self::MAX_ITEMS {
            return Err(Refusal::Endless);
        }
        Ok(Self { items, given: 0, ended: false, ended_early: false })
    }

    /// The next item. What is on its way when this fails ends as the job is dropped.
    #[inline]
    fn next(&mut self) -> Result<Option<I::Item>, Refusal> {
        if self.ended {
            return Ok(None);
        }
        let item = fence(|| self.items.next())?;
        match item {
            Some(_) => self.given += 1,
            None => self.ended = true,
        }
        if self.given > Self::MAX_ITEMS {
            return Err(Refusal::Endless);
        }
        Ok(item)
    }

    /// Takes no more, and cancels what has not begun.
    fn end_early(&mut self, job: &Job<'_>) {
        if !self.ended_early {
            (self.ended, self.ended_early) = (true, true);
            job.cancel();
        }
    }
}

/// Calls code of the caller's iterator; its panic becomes an error.
fn fence<R>(body: impl FnOnce() -> R) -> Result<R, Refusal> {
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
