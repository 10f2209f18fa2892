//! A pool whose number of workers changes while it runs.

use crate::error::{Refusal, ResizeError};
use crate::pool::Pool;
use crate::size::most_workers;

impl Pool {
    /// Sets how many workers there are from here on. That number is fixed:
    /// [`Builder::min_workers`](crate::Builder::min_workers) and
    /// [`Builder::idle_timeout`](crate::Builder::idle_timeout) have no effect any more.
    ///
    /// This does not wait for workers to come or go. If some are missing, they are being started
    /// when it returns. If there are too many, those with the least to do take no more tasks, and
    /// leave when they have answered what they have begun; what they have not begun goes to others.
    ///
    /// # Errors
    ///
    /// [`ResizeError`]; then the number is what it was.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = epilogue_pool::Pool::new(1)?;
    /// pool.resize(2)?;
    /// assert_eq!(pool.map(0..10u64, |x| x + 1)?.len(), 10);
    /// pool.resize(1)?;
    /// let report = pool.close()?;
    /// assert_eq!((report.done, report.lost), (10, 0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn resize(&self, workers: usize) -> Result<(), ResizeError> {
        let most = most_workers();
        if workers == 0 {
            return Err(ResizeError::NoWorkers);
        }
        if workers > most {
            return Err(ResizeError::TooManyWorkers { workers, most });
        }
        let shared = self.shared();
        shared.require_owner()?;
        let mut floor = shared.floor();
        // Under the lock: whoever closes comes after this, or is seen here.
        shared.check()?;
        floor.resize(workers);
        Ok(())
    }
}

impl From<Refusal> for ResizeError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}
