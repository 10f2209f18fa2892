//! The maps: one function for many items, in the order of the items.
//!
//! Each is a method of [`Pool`], where its documentation is, and one of [`Maps`], which it calls.

use std::error::Error;
use std::num::NonZero;

use bytemuck::Pod;
use epilogue_process::entry::{Entry, Part, ask};
use epilogue_process::parcel::Parcel;
use epilogue_process::{Portable, SharedSlice, Side};

use crate::collect::Outcomes;
use crate::error::TaskError;
use crate::map::Maps;
use crate::pool::Pool;
use crate::progress::Progress;

impl Pool {
    /// Calls `f` with every item, in the workers; gives the values in the order of the items.
    ///
    /// Items are taken from the iterator as workers get to them, so it may be long and lazy. The
    /// first error ends the map: what has not begun is cancelled, and when this returns, all that
    /// had begun has come to its end.
    ///
    /// # Errors
    ///
    /// [`TaskError`]: that of the first item, in their order, of those that had one, where that it was
    /// cancelled counts last; or [`TaskError::Refused`] if the pool is closed or the iterator panics
    /// or has no end.
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

    /// Like [`Pool::map`], of items that stay here: each is encoded where it lies, and none is
    /// cloned. The function has an item of its own, as it always does.
    ///
    /// # Errors
    ///
    /// As [`Pool::map`].
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = epilogue_pool::Pool::new(2)?;
    /// let words = vec!["a".to_owned(), "bb".to_owned()];
    /// let lengths = pool.map_ref(&words, |word| word.len())?;
    /// assert_eq!((lengths, words.len()), (vec![1, 2], 2));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn map_ref<'a, I, T, R>(&self, items: I, f: fn(T) -> R) -> Result<Vec<R>, TaskError>
    where
        I: IntoIterator<Item = &'a T>,
        T: Portable + 'a,
        R: Portable,
    {
        self.maps().map_ref(items, f)
    }

    /// Calls `f` with parts of a slice in shared memory, in the workers; gives a value for each
    /// part, in their order. No element is copied on the way: the workers read the same memory.
    ///
    /// A part has as many elements as [`Pool::chunk_size`] or
    /// [`Builder::chunk_size`](crate::Builder::chunk_size) says, the last one fewer if need be;
    /// without either, there are at most eight parts for each worker, equally long but for the
    /// last.
    ///
    /// # Errors
    ///
    /// As [`Pool::map`].
    ///
    /// # Examples
    ///
    /// ```
    /// use epilogue_process::SharedSlice;
    ///
    /// let pool = epilogue_pool::Pool::new(2)?;
    /// let numbers = SharedSlice::copy_from(&(1..=1000).collect::<Vec<u64>>())?;
    /// let sums = pool.map_shared(&numbers, |part| part.iter().sum::<u64>())?;
    /// assert_eq!(sums.iter().sum::<u64>(), 500_500);
    ///
    /// let parts = pool.chunk_size(300).map_shared(&numbers, |part| part.len())?;
    /// assert_eq!(parts, [300, 300, 300, 100]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn map_shared<T, R>(
        &self,
        slice: &SharedSlice<T>,
        f: fn(&[T]) -> R,
    ) -> Result<Vec<R>, TaskError>
    where
        T: Pod,
        R: Portable,
    {
        self.maps().map_shared(slice, f)
    }

    /// Calls `f` with every item, in the workers, for its effects.
    ///
    /// # Errors
    ///
    /// As [`Pool::map`].
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = epilogue_pool::Pool::new(2)?;
    /// let directory = std::env::temp_dir().join(format!("for-each-{}", std::process::id()));
    /// std::fs::create_dir(&directory)?;
    /// let paths = ["a", "b"].map(|name| directory.join(name));
    /// pool.for_each(paths, |path| std::fs::write(path, "written by a worker").expect("a file"))?;
    /// assert_eq!(std::fs::read_dir(&directory)?.count(), 2);
    /// # std::fs::remove_dir_all(&directory)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn for_each<I, T>(&self, items: I, f: fn(T)) -> Result<(), TaskError>
    where
        I: IntoIterator<Item = T>,
        T: Portable,
    {
        self.maps().for_each(items, f)
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
        Maps { pool, chunk_size: pool.chunk_size, terms: pool.terms, progress: Progress::default() }
    }
}

impl Maps<'_> {
    /// As [`Pool::map`], and so are the errors.
    pub fn map<I, T, R>(self, items: I, f: fn(T) -> R) -> Result<Vec<R>, TaskError>
    where
        I: IntoIterator<Item = T>,
        T: Portable,
        R: Portable,
    {
        self.map_to_end::<_, T, _>(items, Entry::plain(f), None)
    }

    /// As [`Pool::try_map`], and so are the errors.
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
        self.map_to_end::<_, T, _>(items, Entry::fallible(f), None)
    }

    /// As [`Pool::map_outcomes`], and so are the errors.
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
        self.run::<_, T, _, _>(items, Entry::plain(f), None, Outcomes::default())
    }

    /// As [`Pool::map_with`], and so are the errors.
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
        let state = self.encode(state)?;
        self.map_to_end::<_, T, _>(items, Entry::with_state(f), Some(state))
    }

    /// As [`Pool::map_ref`], and so are the errors.
    pub fn map_ref<'a, I, T, R>(self, items: I, f: fn(T) -> R) -> Result<Vec<R>, TaskError>
    where
        I: IntoIterator<Item = &'a T>,
        T: Portable + 'a,
        R: Portable,
    {
        self.map_to_end::<_, T, _>(items, Entry::plain(f), None)
    }

    /// As [`Pool::map_shared`], and so are the errors.
    pub fn map_shared<T, R>(
        self,
        slice: &SharedSlice<T>,
        f: fn(&[T]) -> R,
    ) -> Result<Vec<R>, TaskError>
    where
        T: Pod,
        R: Portable,
    {
        const EACH: usize = 8;
        // Before the lock, which nobody gives back in a copy made by `fork` while somebody had it.
        self.pool.require_owner()?;
        let parts = self.pool.floor().wanted() * EACH;
        let part = self.chunk_size.map_or(slice.len().div_ceil(parts).max(1), NonZero::get);
        let state = self.encode(slice)?;
        let parts = (0..slice.len())
            .step_by(part)
            .map(|start| -> Part { (start as u64, part.min(slice.len() - start) as u64) });
        // The size is that of the parts. How many of those go together is seen by their time.
        let maps = Self { chunk_size: None, ..self };
        maps.map_to_end::<_, Part, _>(parts, Entry::of_part(f), Some(state))
    }

    /// As [`Pool::for_each`], and so are the errors.
    pub fn for_each<I, T>(self, items: I, f: fn(T)) -> Result<(), TaskError>
    where
        I: IntoIterator<Item = T>,
        T: Portable,
    {
        // Nothing is as long as many times nothing: the vector has no memory.
        self.map(items, f).map(drop)
    }

    /// Encodes what every task of a map borrows.
    pub(crate) fn encode<S: Portable>(&self, state: &S) -> Result<Parcel, TaskError> {
        ask(state, Vec::new(), &self.pool.limits, &self.pool.stock)
            .map_err(|error| TaskError::Encode { side: Side::Argument, error })
    }
}
