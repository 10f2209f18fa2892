//! A call on its way: one task or more, and where their outcomes go.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use epilogue_process::entry::{Entry, Request};
use epilogue_process::parcel::Parcel;
use epilogue_process::ring::Reply;

use crate::buffers;
use crate::course::{Course, Verdict};
use crate::error::{Refusal, TaskError, WorkerLost};
use crate::event::{Tasks, WorkerId};
use crate::mailbox::{Arrival, Index, Mailbox, Outcomes};
use crate::scope::Tally;
use crate::terms::Terms;
use crate::trace::Trace;

/// No state: the number that calls carry which borrow none.
pub(crate) const NO_STATE: u64 = 0;

/// Which calls are meant.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Which<'a> {
    All,
    Job(u64),
    Scope(&'a Arc<Tally>),
}

impl Which<'_> {
    pub(crate) fn has(self, call: &Call) -> bool {
        match self {
            Self::All => true,
            Self::Job(job) => call.job == job,
            Self::Scope(tally) => call.mailbox.is_of(tally),
        }
    }
}

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
    late: Late,
    /// How it goes, if there are terms for it.
    pub(crate) course: Option<Box<Course>>,
    /// What is remembered of it, if it is measured or anybody observes it.
    trace: Option<Box<Trace>>,
}

/// Which items' answers are on their way over the socket. Hardly a call has any, and each is moved a
/// few times: so they are not in it.
#[derive(Debug, Default)]
#[expect(clippy::box_collection, reason = "a set takes three words")]
struct Late(Option<Box<BTreeSet<u32>>>);

impl Late {
    fn add(&mut self, items: Range<u32>) {
        if !items.is_empty() {
            self.0.get_or_insert_default().extend(items);
        }
    }

    fn remove(&mut self, item: u32) -> Result<(), Unasked> {
        let is_late = self.0.as_mut().is_some_and(|items| items.remove(&item));
        if is_late { Ok(()) } else { Err(Unasked) }
    }

    fn take(&mut self) -> impl Iterator<Item = u32> + use<> {
        self.0.take().into_iter().flat_map(|items| *items)
    }

    fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |items| items.len())
    }
}

/// What a worker said does not fit what it was asked.
#[derive(Debug)]
pub(crate) struct Unasked;

impl Call {
    #[inline]
    pub(crate) fn new(
        id: u64,
        job: u64,
        state: u64,
        request: Request,
        mailbox: Arc<Mailbox>,
        first: Index,
    ) -> Self {
        let (late, course, trace) = (Late::default(), None, None);
        Self { id, job, state, request, mailbox, first, answered: 0, late, course, trace }
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
        self.late.add(self.answered..first);
        self.answered = end;
        if reply.nanos > 0 {
            self.mailbox.cost().note(count, reply.nanos);
        }
        match self.verdict() {
            // It came too late, however little.
            Some(verdict) => self.fail_range(first..end, verdict.into()),
            None => self.put(first, Outcomes::Answers(reply)),
        }
        Ok(())
    }

    /// Gives one task its answer, which came over the socket.
    pub(crate) fn answer_one(&mut self, index: u32, payload: Parcel) -> Result<(), Unasked> {
        if index >= self.answered && index < self.count() {
            self.late.add(self.answered..index);
            self.answered = index + 1;
        } else {
            self.late.remove(index)?;
        }
        match self.verdict() {
            Some(verdict) => self.fail_range(index..index + 1, verdict.into()),
            None => self.put(index, Outcomes::Answer(payload)),
        }
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
        let mut rest = Self::new(id, self.job, self.state, request, mailbox, first);
        rest.course = self.course.as_ref().map(|course| Box::new(course.of_the_rest()));
        rest.trace = self.trace.as_ref().map(|trace| trace.of_the_rest());
        Some(rest)
    }

    /// Has it go by these terms, if they say anything.
    pub(crate) fn go_by(&mut self, terms: &Terms) {
        if terms.are_none() {
            return;
        }
        let mut terms = *terms;
        if self.request.parcel().moves() {
            // What is handed over to a worker is gone with it.
            terms.retries = None;
        }
        self.course = Some(Box::new(Course::new(terms, Instant::now())));
    }

    /// Whether its tasks began before, in a worker that died: they are to be begun again.
    pub(crate) fn began_before(&self) -> bool {
        self.course.as_ref().is_some_and(|course| course.began_before())
    }

    /// Why its tasks get no value, whatever comes of them.
    pub(crate) fn verdict(&self) -> Option<Verdict> {
        self.course.as_ref()?.verdict()
    }

    /// Its worker died during it. What is left of it, to be begun again under that number; or why it
    /// is not.
    pub(crate) fn lost(&mut self, loss: WorkerLost, id: u64) -> Result<Self, TaskError> {
        let Some(course) = &mut self.course else { return Err(TaskError::WorkerLost(loss)) };
        if self.late.len() > 0 || self.mailbox.begins_no_more() || !course.retries() {
            return Err(course.give_up(loss));
        }
        course.begin_anew(loss.clone(), Instant::now());
        let mut rest = self.split_off(self.answered, id);
        if let Some(rest) = &mut rest {
            let tasks = rest.tasks();
            rest.trace.iter_mut().for_each(|trace| trace.begin_anew(tasks, &loss));
        }
        rest.ok_or(TaskError::WorkerLost(loss))
    }

    /// Gives all tasks that have no outcome this one; how many that are.
    pub(crate) fn fail(mut self, error: TaskError) -> usize {
        let left = self.left();
        self.fail_in_place(error);
        left
    }

    fn fail_in_place(&mut self, error: TaskError) {
        for index in self.late.take() {
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
        let arrival = Arrival { first: self.first + index as usize, outcomes };
        if let Some(trace) = &self.trace {
            let tasks = Tasks::new(self.job, arrival.first, arrival.count());
            trace.ended(tasks, &arrival.outcomes);
        }
        self.mailbox.put(arrival);
    }

    // What is remembered of it.

    /// Has it remembered how it goes.
    pub(crate) fn remember(&mut self, trace: Option<Box<Trace>>) {
        self.trace = trace;
    }

    pub(crate) fn is_traced(&self) -> bool {
        self.trace.is_some()
    }

    /// Whether somebody is told of it.
    pub(crate) fn is_observed(&self) -> bool {
        self.trace.as_ref().is_some_and(|trace| trace.is_observed())
    }

    /// All of its tasks.
    pub(crate) fn whole(&self) -> Tasks {
        Tasks::new(self.job, self.first, self.count() as usize)
    }

    /// Its tasks that have no outcome, if none comes late.
    fn tasks(&self) -> Tasks {
        let answered = self.answered as usize;
        Tasks::new(self.job, self.first + answered, self.count() as usize - answered)
    }

    /// Whether somebody is to be told once it begins.
    pub(crate) fn is_to_begin(&self) -> bool {
        self.trace.as_ref().is_some_and(|trace| trace.is_to_begin())
    }

    pub(crate) fn sent(&mut self, worker: &WorkerId) {
        let tasks = self.tasks();
        self.trace.iter_mut().for_each(|trace| trace.sent(tasks, worker));
    }

    /// It has begun, so long ago as its worker says.
    pub(crate) fn begun(&mut self, ago: Option<Duration>) {
        let tasks = self.tasks();
        self.trace.iter_mut().for_each(|trace| trace.begun(tasks, ago));
    }

    pub(crate) fn asked_to_stop(&self) {
        self.trace.iter().for_each(|trace| trace.asked_to_stop(self.tasks()));
    }

    /// How long those of its tasks had waited that were just answered, and took so long.
    pub(crate) fn waited(&mut self, took: Duration) -> Option<Duration> {
        let trace = self.trace.as_mut()?;
        let waited = trace.waited();
        trace.answered(took);
        waited
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.fail_in_place(Refusal::Closed.into());
        buffers::give_back(std::mem::take(&mut self.request.parcel_mut().bytes));
    }
}

/// Begins a call: the entry, then the number of the state that it borrows.
pub(crate) fn head(entry: Entry, state: u64) -> Vec<u8> {
    let mut payload = Vec::with_capacity(64);
    entry.write(&mut payload);
    payload.extend_from_slice(&state.to_le_bytes());
    entry.write_build(&mut payload);
    payload
}

/// Whether a worker has to say when a call begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Timing {
    Untimed,
    Timed,
}

/// Set in the number of the state where a call is timed. Numbers never come that far.
const TIMED: u64 = 1 << 63;

/// Has the worker say when this call begins.
pub(crate) fn time(payload: &mut [u8]) {
    if let Some((state, _)) = payload[Entry::BYTES..].split_first_chunk_mut() {
        *state = (u64::from_le_bytes(*state) | TIMED).to_le_bytes();
    }
}

/// Splits a payload into what [`head`] wrote and the encoded arguments.
pub(crate) fn split(payload: &[u8]) -> Option<(Entry, u64, Timing, &[u8])> {
    let (entry, rest) = Entry::read(payload)?;
    let (state, argument) = rest.split_first_chunk()?;
    let state = u64::from_le_bytes(*state);
    let timing = if state & TIMED == 0 { Timing::Untimed } else { Timing::Timed };
    Some((entry, state & !TIMED, timing, argument))
}
