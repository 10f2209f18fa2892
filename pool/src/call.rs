//! A call on its way: its bytes, and where its outcome goes.

use crossbeam_channel::Sender;
use epilogue_process::entry::Entry;

use crate::error::{Refusal, TaskError};

/// What the supervisor hands to whoever waits: an encoded answer, or why there is none.
pub(crate) type Outcome = Result<Vec<u8>, TaskError>;

/// Which of a job's tasks an outcome belongs to.
pub(crate) type Index = usize;

/// No state: the number that calls carry which borrow none.
pub(crate) const NO_STATE: u64 = 0;

/// One task that was submitted and has no outcome yet.
///
/// Its outcome is sent exactly once. A call that is dropped without one never reached the queue:
/// it was on its way as the pool ended. Nobody waits for ever, and no report has to count it.
#[derive(Debug)]
pub(crate) struct Call {
    /// Never reused, so a late reply cannot reach the wrong task.
    pub(crate) id: u64,
    pub(crate) job: u64,
    pub(crate) state: u64,
    pub(crate) payload: Vec<u8>,
    reply_to: Option<(Index, Sender<(Index, Outcome)>)>,
}

impl Call {
    pub(crate) fn new(
        id: u64,
        job: u64,
        state: u64,
        payload: Vec<u8>,
        index: Index,
        reply_to: Sender<(Index, Outcome)>,
    ) -> Self {
        Self { id, job, state, payload, reply_to: Some((index, reply_to)) }
    }

    /// Gives the call its outcome.
    pub(crate) fn resolve(mut self, outcome: Outcome) {
        self.send(outcome);
    }

    fn send(&mut self, outcome: Outcome) {
        if let Some((index, reply_to)) = self.reply_to.take() {
            // Nobody waits for a task whose handle was dropped.
            let _ = reply_to.send((index, outcome));
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.send(Err(Refusal::Closed.into()));
    }
}

/// Begins a call's payload: the entry, then the number of the state that it borrows.
pub(crate) fn head(entry: Entry, state: u64) -> Vec<u8> {
    let mut payload = Vec::with_capacity(64);
    entry.write(&mut payload);
    payload.extend_from_slice(&state.to_le_bytes());
    payload
}

/// Splits a payload into what [`head`] wrote and the encoded argument.
pub(crate) fn split(payload: &[u8]) -> Option<(Entry, u64, &[u8])> {
    let (entry, rest) = Entry::read(payload)?;
    let (state, argument) = rest.split_first_chunk()?;
    Some((entry, u64::from_le_bytes(*state), argument))
}
