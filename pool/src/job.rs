//! One map: the calls of one caller that wait for their outcomes together.

use std::collections::HashMap;

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::call::{Index, NO_STATE, Outcome};
use crate::error::Refusal;
use crate::pool::Shared;
use crate::supervisor::Command;

/// The calls of one map, from the side of the thread that waits for them.
///
/// It bounds what is on its way, so the memory of a map is that of its results, however long its
/// input is. Dropping it cancels what has not begun, waits for what has, and frees the state that
/// its calls borrow: nothing of a map goes on behind the back of its caller.
pub(crate) struct Job<'pool> {
    shared: &'pool Shared,
    id: u64,
    state: u64,
    reply_to: Sender<(Index, Outcome)>,
    outcomes: Receiver<(Index, Outcome)>,
    /// The calls without an outcome, with their sizes.
    pending: HashMap<Index, usize>,
    pending_bytes: usize,
}

impl<'pool> Job<'pool> {
    /// How many calls are on their way for each worker, at most.
    const CALLS_A_WORKER: usize = 64;
    /// How many bytes of calls are on their way, at most, if there is more than one.
    const BYTES: usize = 32 << 20;

    /// A job whose calls borrow `state`, in its encoded form.
    pub(crate) fn new(shared: &'pool Shared, state: Option<Vec<u8>>) -> Result<Self, Refusal> {
        shared.check()?;
        let id = shared.number();
        let (reply_to, outcomes) = unbounded();
        let state = match state {
            Some(encoded) => {
                shared.send(Command::Share { id, encoded })?;
                id
            }
            None => NO_STATE,
        };
        let (pending, pending_bytes) = (HashMap::new(), 0);
        Ok(Self { shared, id, state, reply_to, outcomes, pending, pending_bytes })
    }

    /// The number of the state that the calls borrow.
    pub(crate) fn state(&self) -> u64 {
        self.state
    }

    /// Whether another call may be put on its way before an outcome is taken.
    pub(crate) fn has_room(&self) -> bool {
        self.pending.is_empty()
            || (self.pending.len() < Self::CALLS_A_WORKER * self.shared.workers
                && self.pending_bytes < Self::BYTES)
    }

    /// Puts a call on its way.
    pub(crate) fn submit(&mut self, index: Index, payload: Vec<u8>) -> Result<(), Refusal> {
        let len = payload.len();
        self.shared.submit(self.id, self.state, payload, index, self.reply_to.clone())?;
        self.pending.insert(index, len);
        self.pending_bytes += len;
        Ok(())
    }

    /// Waits for the next outcome. None if every call has its own.
    pub(crate) fn next(&mut self) -> Option<(Index, Outcome)> {
        while !self.pending.is_empty() {
            // Every call sends an outcome before it is gone, and we hold a sender ourselves.
            let arrived = self.outcomes.recv().ok()?;
            if let Some(arrived) = self.note(arrived) {
                return Some(arrived);
            }
        }
        None
    }

    /// The next outcome, if it has arrived.
    pub(crate) fn try_next(&mut self) -> Option<(Index, Outcome)> {
        while let Ok(arrived) = self.outcomes.try_recv() {
            if let Some(arrived) = self.note(arrived) {
                return Some(arrived);
            }
        }
        None
    }

    /// A call that the pool refused is gone without having been pending. Its outcome is known.
    fn note(&mut self, (index, outcome): (Index, Outcome)) -> Option<(Index, Outcome)> {
        self.pending_bytes -= self.pending.remove(&index)?;
        Some((index, outcome))
    }

    /// Cancels the calls that have not begun. Their outcomes arrive like all others.
    pub(crate) fn cancel(&self) {
        // A pool that is gone has cancelled them already.
        let _ = self.shared.send(Command::Cancel { job: self.id });
    }
}

impl Drop for Job<'_> {
    fn drop(&mut self) {
        if !self.shared.is_ours() {
            // In a fork: nobody is there who could answer, and the calls are the original's.
            return;
        }
        if !self.pending.is_empty() {
            self.cancel();
            while self.next().is_some() {}
        }
        if self.state != NO_STATE {
            let _ = self.shared.send(Command::Forget { id: self.state });
        }
    }
}
