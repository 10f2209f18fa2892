//! Tasks that borrow a state of their worker: a model that was loaded, a database that is open.

use std::error::Error;
use std::fmt;

use epilogue_process::Portable;
use epilogue_process::entry::Entry;

use crate::collect::Outcomes;
use crate::error::{SubmitError, TaskError};
use crate::mailbox::Mailbox;
use crate::map::Maps;
use crate::pool::Pool;
use crate::task::{Task, TaskOptions};

impl Pool {
    /// Names a state that each worker has for itself: `build` builds it there, once, before the first
    /// task that borrows it.
    ///
    /// The state may be of any type that is `Send`, for whichever thread ends a worker drops it; it
    /// need not be [`Portable`], for it never travels. A worker keeps its state as long as it
    /// lives, for all maps and tasks that name it; a worker that replaces another one builds its
    /// own. Two calls of this with the same function mean the same state.
    ///
    /// It is dropped as its worker ends, by a finalizer that is registered when it has been built.
    /// So finalizers that were registered later still find it, and what was registered before
    /// outlives it. The [report](crate::WorkerReport) names that finalizer `state`, followed by the
    /// type. A task that has not returned by then keeps the state, which is not dropped, and the
    /// report says so.
    ///
    /// If `build` panics, that is the outcome of the task; the next one tries again. A task that
    /// panics may leave the state half changed: it is dropped, and the next task builds another.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::collections::HashMap;
    /// use epilogue_pool::Pool;
    ///
    /// fn index() -> HashMap<String, usize> {
    ///     let words = ["a", "model", "that", "takes", "long", "to", "load"];
    ///     words.map(String::from).into_iter().zip(0..).collect()
    /// }
    ///
    /// let pool = Pool::new(2)?;
    /// let queries = ["load", "no", "model"].map(String::from);
    /// let found = pool.local(index).map_local(queries, |index, word| index.get(&word).copied())?;
    /// assert_eq!(found, [Some(6), None, Some(1)]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn local<S: Send + 'static>(&self, build: fn() -> S) -> Local<'_, S> {
        self.maps().local(build)
    }

    /// As [`Local::map_local`], for a state that begins as its type's default.
    ///
    /// # Errors
    ///
    /// As [`Pool::map`].
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = epilogue_pool::Pool::new(1)?;
    /// let counts = pool.map_local(["a", "b", "a"].map(String::from), |seen: &mut Vec<_>, word| {
    ///     seen.push(word);
    ///     seen.len()
    /// })?;
    /// assert_eq!(counts, [1, 2, 3]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn map_local<S, I, T, R>(
        &self,
        items: I,
        f: fn(&mut S, T) -> R,
    ) -> Result<Vec<R>, TaskError>
    where
        S: Default + Send + 'static,
        I: IntoIterator<Item = T>,
        T: Portable,
        R: Portable,
    {
        self.maps().map_local(items, f)
    }
}

impl<'pool> Maps<'pool> {
    /// As [`Pool::local`], for work that goes by what was set before: limits of time, retries, the chunk
    /// size.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use epilogue_pool::{Pool, TaskError};
    ///
    /// let pool = Pool::new(1)?;
    /// let limited = pool.task_timeout(Duration::from_millis(100)).local(String::new);
    /// let outcomes = limited.map_local_outcomes([0u64, 1], |_, x| match x {
    ///     0 => loop { std::thread::park() },
    ///     x => x,
    /// })?;
    /// assert!(matches!(outcomes[..], [Err(TaskError::TimedOut), Ok(1)]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn local<S: Send + 'static>(self, build: fn() -> S) -> Local<'pool, S> {
        Local { maps: self, build }
    }

    /// As [`Pool::map_local`], and so are the errors.
    pub fn map_local<S, I, T, R>(self, items: I, f: fn(&mut S, T) -> R) -> Result<Vec<R>, TaskError>
    where
        S: Default + Send + 'static,
        I: IntoIterator<Item = T>,
        T: Portable,
        R: Portable,
    {
        self.local(S::default).map_local(items, f)
    }
}

/// A state that each worker of a pool has for itself; see [`Pool::local`].
pub struct Local<'pool, S> {
    maps: Maps<'pool>,
    build: fn() -> S,
}

impl<S: Send + 'static> Local<'_, S> {
    /// Has its maps put so many items into each call; see [`Pool::chunk_size`].
    #[must_use = "it is the result that has the chunk size"]
    pub fn chunk_size(mut self, chunk_size: usize) -> Self {
        self.maps = self.maps.chunk_size(chunk_size);
        self
    }

    /// As [`Pool::map`], for a function that borrows the state of its worker.
    ///
    /// # Errors
    ///
    /// As [`Pool::map`].
    pub fn map_local<I, T, R>(&self, items: I, f: fn(&mut S, T) -> R) -> Result<Vec<R>, TaskError>
    where
        I: IntoIterator<Item = T>,
        T: Portable,
        R: Portable,
    {
        self.maps.map_to_end(items, Entry::local(self.build, f), None)
    }

    /// As [`Pool::try_map`], for a function that borrows the state of its worker.
    ///
    /// # Errors
    ///
    /// As [`Pool::try_map`].
    pub fn try_map_local<I, T, R, E>(
        &self,
        items: I,
        f: fn(&mut S, T) -> Result<R, E>,
    ) -> Result<Vec<R>, TaskError>
    where
        I: IntoIterator<Item = T>,
        T: Portable,
        R: Portable,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        self.maps.map_to_end(items, Entry::fallible_local(self.build, f), None)
    }

    /// As [`Pool::map_outcomes`], for a function that borrows the state of its worker.
    ///
    /// # Errors
    ///
    /// As [`Pool::map_outcomes`].
    pub fn map_local_outcomes<I, T, R>(
        &self,
        items: I,
        f: fn(&mut S, T) -> R,
    ) -> Result<Vec<Result<R, TaskError>>, TaskError>
    where
        I: IntoIterator<Item = T>,
        T: Portable,
        R: Portable,
    {
        self.maps.run(items, Entry::local(self.build, f), None, Outcomes::default())
    }

    /// As [`Pool::submit`], for a function that borrows the state of its worker.
    ///
    /// # Errors
    ///
    /// As [`Pool::submit`].
    pub fn submit_local<T, R>(
        &self,
        argument: T,
        f: fn(&mut S, T) -> R,
    ) -> Result<Task<R>, SubmitError<T>>
    where
        T: Portable,
        R: Portable,
    {
        let options = TaskOptions { terms: self.maps.terms, ..TaskOptions::default() };
        let entry = Entry::local(self.build, f);
        self.maps.pool.submit_entry(&options, argument, entry, Mailbox::default())
    }
}

impl<S> fmt::Debug for Local<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local").field("maps", &self.maps).finish_non_exhaustive()
    }
}
