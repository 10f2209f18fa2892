//! A call on its way: one task or more, and where their outcomes go.

use std::ops::Range;
use std::sync::Arc;

use epilogue_process::entry::{Entry, Request};
use epilogue_process::parcel::Parcel;
use epilogue_process::ring::Reply;

use crate::error::{Refusal, TaskError};
use crate::mailbox::{Arrival, Index, Mailbox, Outcomes};

/// No state: the number that calls carry which borrow none.
pub(crate) const NO_STATE: u64 = 0;

/// Tasks that were submitted together and have not all got their outcome.
///
/// Each gets its outcome exactly once. A call that is dropped before never reached the queue: it
/// was on its way as the pool ended. Nobody waits for ever, and no report has to count it.
#[derive(Debug)]
pub(crate) struct Call {
    /// Never reused, so a late reply cannot reach the wrong task.
    pub(crate) id: u64,
    pub(crate) job: u64,
    pub(crate) state: u64,
    pub(crate) request: Request,
    mailbox: Arc<Mailbox>,
    /// Which of the job's tasks the first is.
    first: Index,
    /// So many have an outcome, or will have one that comes late.
    answered: u32,
    /// Of those, the ones whose answer is on its way over the socket.
    late: Vec<u32>,
}

/// What a worker said does not fit what it was asked.
#[derive(Debug)]
pub(crate) struct Unasked;

impl Call {
    pub(crate) fn new(
        id: u64,
        job: u64,
        state: u64,
        request: Request,
        mailbox: Arc<Mailbox>,
        first: Index,
    ) -> Self {
        Self { id, job, state, request, mailbox, first, answered: 0, late: Vec::new() }
    }

    /// How many tasks it has, those included that have their outcome.
    pub(crate) fn count(&self) -> u32 {
        self.request.count()
    }

    /// How many have an outcome, or will have one that comes late.
    pub(crate) fn answered(&self) -> u32 {
        self.answered
    }

    /// How many have no outcome.
    pub(crate) fn left(&self) -> usize {
        (self.count() - self.answered) as usize + self.late.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.request.bytes()
    }

    pub(crate) fn mailbox(&self) -> &Mailbox {
        &self.mailbox
    }

    /// Gives some tasks their answers.
    pub(crate) fn answer(&mut self, reply: Reply) -> Result<(), Unasked> {
        let (first, count) = (reply.first, reply.count);
        let end = first.checked_add(count).ok_or(Unasked)?;
        if first < self.answered || end > self.count() {
            return Err(Unasked);
        }
        // What it passed over comes over the socket.
        self.late.extend(self.answered..first);
        self.answered = end;
        if reply.nanos > 0 {
            self.mailbox.cost().note(count, reply.nanos);
        }
        self.put(first, Outcomes::Answers(reply));
        Ok(())
    }

    /// Gives one task its answer, which came over the socket.
    pub(crate) fn answer_one(&mut self, index: u32, payload: Parcel) -> Result<(), Unasked> {
        if index >= self.answered && index < self.count() {
            self.late.extend(self.answered..index);
            self.answered = index + 1;
        } else {
            let late = self.late.iter().position(|&other| other == index).ok_or(Unasked)?;
            self.late.swap_remove(late);
        }
        self.put(index, Outcomes::Answer(payload));
        Ok(())
    }

    /// Takes the tasks from `end` on out, as a call of its own.
    pub(crate) fn split_off(&mut self, end: u32, id: u64) -> Option<Self> {
        let end = end.max(self.answered);
        if end >= self.count() {
            return None;
        }
        let first = self.first + end as usize;
        let request = self.request.split_off(end);
        let mailbox = Arc::clone(&self.mailbox);
        Some(Self::new(id, self.job, self.state, request, mailbox, first))
    }

    /// Gives all tasks that have no outcome this one; how many that are.
    pub(crate) fn fail(mut self, error: TaskError) -> usize {
        let left = self.left();
        self.fail_in_place(error);
        left
    }

    fn fail_in_place(&mut self, error: TaskError) {
        for index in std::mem::take(&mut self.late) {
            self.fail_range(index..index + 1, error.clone());
        }
        let rest = self.answered..self.count();
        self.answered = self.count();
        self.fail_range(rest, error);
    }

    fn fail_range(&self, range: Range<u32>, error: TaskError) {
        if !range.is_empty() {
            self.put(range.start, Outcomes::Failed { count: range.len(), error });
        }
    }

    fn put(&self, index: u32, outcomes: Outcomes) {
        self.mailbox.put(Arrival { first: self.first + index as usize, outcomes });
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.fail_in_place(Refusal::Closed.into());
    }
}

/// Begins a call: the entry, then the number of the state that it borrows.
pub(crate) fn head(entry: Entry, state: u64) -> Vec<u8> {
    let mut payload = Vec::with_capacity(64);
    entry.write(&mut payload);
    payload.extend_from_slice(&state.to_le_bytes());
    payload
}

/// Splits a payload into what [`head`] wrote and the encoded arguments.
pub(crate) fn split(payload: &[u8]) -> Option<(Entry, u64, &[u8])> {
    let (entry, rest) = Entry::read(payload)?;
    let (state, argument) = rest.split_first_chunk()?;
    Some((entry, u64::from_le_bytes(*state), argument))
}
