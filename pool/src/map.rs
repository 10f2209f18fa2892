//! The maps: one function for many items, in the order of the items.

use std::error::Error;
use std::panic::{self, AssertUnwindSafe};

use epilogue_process::entry::{Entry, ForeignFunction, answer, ask};
use epilogue_process::{Limits, Portable, Side};

use crate::call::head;
use crate::error::{Refusal, TaskError};
use crate::job::Job;
use crate::pool::Pool;

/// What an error of one task means for the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OnError {
    /// It ends the map.
    End,
    /// It is that task's outcome.
    GoOn,
}

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
        self.map_to_end(items, Entry::plain(f), None)
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
        self.map_to_end(items, Entry::fallible(f), None)
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
        self.run(items, Entry::plain(f), None, OnError::GoOn)
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
        let mut encoded = Vec::new();
        ask(state, &mut encoded, &self.shared().limits)
            .map_err(|error| TaskError::Encode { side: Side::Argument, error })?;
        self.map_to_end(items, Entry::with_state(f), Some(encoded))
    }

    fn map_to_end<I, T, R>(
        &self,
        items: I,
        entry: Result<Entry, ForeignFunction>,
        state: Option<Vec<u8>>,
    ) -> Result<Vec<R>, TaskError>
    where
        I: IntoIterator<Item = T>,
        T: Portable,
        R: Portable,
    {
        let mut outcomes = self.run(items, entry, state, OnError::End)?;
        // A map that ended early cancelled the rest. Those are not why it ended.
        let is_cause = |outcome: &Result<R, TaskError>| {
            !matches!(outcome, Ok(_) | Err(TaskError::Cancelled { begun: false }))
        };
        if let Some(cause) = outcomes.iter().position(is_cause) {
            outcomes.swap(0, cause);
        }
        outcomes.into_iter().collect()
    }

    fn run<I, T, R>(
        &self,
        items: I,
        entry: Result<Entry, ForeignFunction>,
        state: Option<Vec<u8>>,
        on_error: OnError,
    ) -> Result<Vec<Result<R, TaskError>>, TaskError>
    where
        I: IntoIterator<Item = T>,
        T: Portable,
        R: Portable,
    {
        let entry = entry.map_err(Refusal::from)?;
        let limits = &self.shared().limits;
        let mut job = Job::new(self.shared(), state)?;
        let mut input = Input::new(items)?;
        let mut outcomes: Vec<Option<Result<R, TaskError>>> = Vec::new();
        loop {
            // What has arrived comes first: after an error no further item is taken, however long
            // the iterator takes to give it.
            let arrived = match input.ended || !job.has_room() {
                true => job.next(),
                false => job.try_next(),
            };
            let failed = if let Some((index, outcome)) = arrived {
                let outcome = outcome.and_then(|reply| Ok(answer(&reply, limits)?));
                let failed = outcome.is_err();
                if let Some(slot) = outcomes.get_mut(index) {
                    *slot = Some(outcome);
                }
                failed
            } else if input.ended {
                break;
            } else if let Some(item) = input.next()? {
                // The iterator may have forked, and goes on in the copy as well.
                self.shared().require_owner()?;
                let submitted = submit(&mut job, outcomes.len(), entry, &item, limits);
                let failed = submitted.is_err();
                outcomes.push(submitted.err().map(Err));
                failed
            } else {
                false
            };
            input.end_if(on_error == OnError::End && failed, &job);
        }
        Ok(outcomes.into_iter().flatten().collect())
    }
}

/// Puts one item on its way. An item that cannot go has its outcome.
fn submit<T: Portable>(
    job: &mut Job<'_>,
    index: usize,
    entry: Entry,
    item: &T,
    limits: &Limits,
) -> Result<(), TaskError> {
    let mut payload = head(entry, job.state());
    ask(item, &mut payload, limits)
        .map_err(|error| TaskError::Encode { side: Side::Argument, error })?;
    Ok(job.submit(index, payload)?)
}

/// The items of a map: guarded against what an iterator of somebody else's may do.
struct Input<I> {
    items: I,
    taken: usize,
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
        Ok(Self { items, taken: 0, ended: false, ended_early: false })
    }

    /// The next item. What is on its way when this fails ends as the job is dropped.
    fn next(&mut self) -> Result<Option<I::Item>, Refusal> {
        if self.ended {
            return Ok(None);
        }
        let item = fence(|| self.items.next())?;
        self.ended = item.is_none();
        self.taken += 1;
        if self.taken > Self::MAX_ITEMS {
            return Err(Refusal::Endless);
        }
        Ok(item)
    }

    fn end_if(&mut self, failed: bool, job: &Job<'_>) {
        if failed && !self.ended_early {
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
