//! Many tasks, in the order in which they are done.

use std::fmt;
use std::iter::FusedIterator;
use std::sync::{Arc, Weak};

use epilogue_process::channel::{Drain, forget_foreign};
use epilogue_process::child::this_process;
use epilogue_process::{Limits, Portable};

use crate::collect::outcomes;
use crate::error::{Refusal, TaskError};
use crate::mailbox::{Arrival, Mailbox, Outcomes};
use crate::pool::Pool;
use crate::reader::Need;
use crate::shared::Shared;
use crate::task::Task;
use crate::wakes::Presence;

/// Gives the outcomes of tasks in the order in which they are done, each with the position that its
/// task had. The tasks may be of several pools, and of one that has ended.
///
/// Dropping the iterator lets the remaining tasks go, as dropping their handles does: they are done,
/// and their values are thrown away.
///
/// # Examples
///
/// ```
/// let pool = epilogue_pool::Pool::new(2)?;
/// let names = ["a", "bb", "ccc"].map(String::from);
/// let tasks = pool.submit_all(names.clone(), |name| name.len())?;
/// for (position, length) in epilogue_pool::as_completed(tasks) {
///     println!("{} has {} bytes", names[position], length?);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn as_completed<R>(tasks: impl IntoIterator<Item = Task<R>>) -> AsCompleted<R> {
    let common = Arc::new(Mailbox::default());
    let mut pools: Vec<Weak<Shared>> = Vec::new();
    let tasks: Vec<_> = tasks.into_iter().map(Some).collect();
    for (position, task) in tasks.iter().enumerate() {
        let Some(task) = task else { continue };
        if let Err(error) = task.require_open() {
            let outcomes = Outcomes::Failed { count: 1, error };
            common.put(Arrival { first: position, outcomes });
            continue;
        }
        task.mailbox.forward(&common, position);
        if !pools.iter().any(|pool| pool.ptr_eq(&task.pool)) {
            pools.push(task.pool.clone());
        }
    }
    AsCompleted { left: tasks.len(), open_from: 0, tasks, common, pools, owner: this_process() }
}

impl Pool {
    /// As [`as_completed`]; the tasks may be of other pools as well.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = epilogue_pool::Pool::new(2)?;
    /// let tasks = pool.submit_all(0..10u64, |x| x * x)?;
    /// let sum = pool.as_completed(tasks).map(|(_, square)| square).sum::<Result<u64, _>>()?;
    /// assert_eq!(sum, 285);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn as_completed<R>(&self, tasks: impl IntoIterator<Item = Task<R>>) -> AsCompleted<R> {
        as_completed(tasks)
    }
}

/// The outcomes of tasks in the order in which they are done; see [`as_completed`].
#[must_use = "iterators are lazy: dropping this one lets the tasks go"]
pub struct AsCompleted<R> {
    /// Those whose outcome was not given.
    tasks: Vec<Option<Task<R>>>,
    left: usize,
    /// Before this one, all were given.
    open_from: usize,
    /// Where all outcomes arrive.
    common: Arc<Mailbox>,
    pools: Vec<Weak<Shared>>,
    /// In a copy made by `fork` nothing arrives, and who had the mailbox's lock did not come along.
    owner: u32,
}

impl<R: Portable> AsCompleted<R> {
    fn wait(&self) {
        let pools: Vec<_> = self.pools.iter().filter_map(Weak::upgrade).collect();
        let open = self.tasks.iter().flatten();
        let mut senders = open.flat_map(|task| task.senders.iter().copied()).collect();
        forget_foreign(&mut senders);
        // What the tasks send to receivers here, or they might wait for us as we wait for them.
        let _drain = Drain::start(&senders);
        match pools.as_slice() {
            // All outcomes have arrived.
            [] => {}
            [pool] => pool.wait(&self.common, Need::Each, None),
            several => {
                // One can read for one pool only: here the pools' own threads do.
                let _present: Vec<_> =
                    several.iter().map(|pool| Presence::new(&pool.wakes)).collect();
                several.iter().for_each(|pool| pool.attend());
                self.common.sleep(None);
            }
        }
    }

    fn give(
        &mut self,
        position: usize,
        outcome: Result<R, TaskError>,
    ) -> (usize, Result<R, TaskError>) {
        self.left = self.left.saturating_sub(1);
        self.tasks[position] = None;
        (position, outcome)
    }
}

impl<R: Portable> Iterator for AsCompleted<R> {
    type Item = (usize, Result<R, TaskError>);

    fn next(&mut self) -> Option<Self::Item> {
        let later = self.tasks.get(self.open_from..)?;
        let first = self.open_from + later.iter().position(Option::is_some)?;
        self.open_from = first;
        if self.owner != this_process() {
            return Some(self.give(first, Err(Refusal::Forked.into())));
        }
        if self.common.is_empty() {
            self.wait();
        }
        let Some(Arrival { first: position, outcomes: arrived }) = self.common.take() else {
            // The pools are gone, and have left outcomes everywhere.
            return Some(self.give(first, Err(Refusal::Closed.into())));
        };
        let limits =
            self.tasks[position].as_ref().map_or_else(Limits::default, |task| task.limits.clone());
        let mut outcome = Err(Refusal::Closed.into());
        outcomes(arrived, &limits, |one| outcome = one);
        Some(self.give(position, outcome))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<R: Portable> ExactSizeIterator for AsCompleted<R> {}

impl<R: Portable> FusedIterator for AsCompleted<R> {}

impl<R> fmt::Debug for AsCompleted<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsCompleted").field("left", &self.left).finish_non_exhaustive()
    }
}
