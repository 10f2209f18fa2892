//! One map: the tasks of one caller that wait for their outcomes together.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use epilogue_process::channel::{Drain, forget_foreign};
use epilogue_process::entry::Request;
use epilogue_process::parcel::Parcel;

use crate::buffers;
use crate::call::{NO_STATE, Which};
use crate::error::Refusal;
use crate::mailbox::{Arrival, Index, Mailbox};
use crate::progress::Progress;
use crate::reader::Need;
use crate::shared::Shared;
use crate::terms::Terms;

/// The tasks of one map, from the side of the thread that waits for them.
///
/// It bounds what is on its way, so the memory of a map is that of its results, however long its
/// input is. Dropping it cancels what has not begun, waits for what has, and frees the state that
/// its tasks borrow: nothing of a map goes on behind the back of its caller.
pub(crate) struct Job<'pool> {
    shared: &'pool Shared,
    id: u64,
    reads: Reads,
    state: u64,
    mailbox: Arc<Mailbox>,
    /// What has arrived there and was not looked at yet.
    arrived: VecDeque<Arrival>,
    /// How many tasks have no outcome.
    pending: usize,
    pending_bytes: usize,
    /// How many bytes go into the next call, if there is more than one task in it.
    call_bytes: usize,
    /// How many calls have been sent and not been heard of.
    calls: usize,
    /// Whether the workers have taken all calls so far, so that none waits in the queue.
    has_room: bool,
    chunk: Chunk,
    terms: Terms,
    /// Who watches it.
    pub(crate) progress: Progress<'pool>,
    /// The channels whose sending end went along with a call, or with the state.
    senders: Vec<u64>,
}

/// Whether the caller of a job sees to it that its tasks get on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reads {
    /// It does nothing else until all is done.
    AllTheTime,
    /// It comes when it needs something. Between that the supervisor does.
    AtTimes,
}

/// How many tasks go into one call.
#[derive(Debug)]
struct Chunk {
    fixed: Option<usize>,
    /// As many as went into the last call.
    last: usize,
    /// The input does not give more than this in a moment.
    most: usize,
}

impl Chunk {
    /// A call shall take about so long: much longer than to send it, and not so long that the
    /// first answers are waited for.
    const TIME: Duration = Duration::from_micros(200);
    /// An input that takes longer than this to fill a call keeps workers waiting.
    const PATIENCE: Duration = Duration::from_micros(100);

    fn next(&mut self, mailbox: &Mailbox) -> usize {
        self.last = match (self.fixed, mailbox.cost().in_time(Self::TIME)) {
            (Some(fixed), _) => fixed,
            // By the first ones it is seen how long they take.
            (None, None) => 1,
            (None, Some(tasks)) => tasks.clamp(1, self.last * 4).min(self.most),
        };
        self.last
    }

    fn filled(&mut self, count: usize, took: Duration) {
        if took > Self::PATIENCE {
            self.most = (count / 4).max(1);
        } else if count >= self.most {
            self.most = self.most.saturating_mul(2);
        }
    }
}

impl<'pool> Job<'pool> {
    /// How many bytes are on their way, at most, if there is more than one task.
    const BYTES: usize = 32 << 20;
    /// What takes less time is shown several at a time.
    const VISIBLE: Duration = Duration::from_millis(1);
    /// How many bytes go into one call, if there is more than one task in it.
    const CALL_BYTES: usize = 48 << 10;
    /// How many items are taken before it is seen how long the call has become.
    const AT_ONCE: usize = 64;

    /// A job whose tasks borrow `state`, in its encoded form.
    pub(crate) fn new(
        shared: &'pool Shared,
        chunk_size: Option<usize>,
        state: Option<Parcel>,
        reads: Reads,
    ) -> Result<Self, Refusal> {
        shared.check()?;
        let mut senders = Vec::new();
        let id = shared.floor().begin_job(reads);
        let state = match state {
            Some(encoded) => {
                senders.extend(encoded.senders());
                shared.note_senders(&encoded);
                shared.floor().share(id, encoded);
                id
            }
            None => NO_STATE,
        };
        let chunk = Chunk { fixed: chunk_size, last: 1, most: usize::MAX };
        let (mailbox, arrived) = (Arc::default(), VecDeque::new());
        let (pending, pending_bytes, calls, has_room) = (0, 0, 0, true);
        let terms = Terms::default();
        Ok(Self {
            shared,
            id,
            reads,
            state,
            mailbox,
            arrived,
            pending,
            pending_bytes,
            call_bytes: Self::CALL_BYTES,
            calls,
            has_room,
            chunk,
            terms,
            progress: Progress::default(),
            senders,
        })
    }

    /// Has its tasks go by these terms. Where each has a clock, each has a call of its own: when an
    /// item begins is said of calls.
    pub(crate) fn by(mut self, terms: Terms) -> Self {
        if terms.need_a_clock() {
            self.chunk.fixed = Some(1);
        }
        self.terms = terms;
        self
    }

    /// The number of the state that the tasks borrow.
    pub(crate) fn state(&self) -> u64 {
        self.state
    }

    /// How many tasks have no outcome, and how many bytes these have, about.
    pub(crate) fn pending(&self) -> (usize, usize) {
        (self.pending, self.pending_bytes)
    }

    /// Whether another call may be put on its way before an outcome is taken. What waits in the
    /// queue, and not with a worker, is not done while the input takes its time.
    pub(crate) fn has_room(&self) -> bool {
        self.pending == 0 || (self.has_room && self.pending_bytes < Self::BYTES)
    }

    /// Fills a call with as many tasks as should go together, by what `add` says of each.
    pub(crate) fn fill<E>(
        &mut self,
        head: &[u8],
        mut add: impl FnMut(&mut Request, usize) -> Result<More, E>,
    ) -> Result<Request, (Request, E)> {
        let mut bytes = buffers::take(head.len() + size_of::<u64>());
        bytes.extend_from_slice(head);
        let mut request = Request::new(bytes);
        let count = self.chunk.next(&self.mailbox);
        let begin = (count > 1).then(Instant::now);
        let has_room =
            |request: &Request| request.count() == 0 || request.bytes() < self.call_bytes;
        while (request.count() as usize) < count && has_room(&request) {
            let most = (count - request.count() as usize).min(Self::AT_ONCE);
            match add(&mut request, most) {
                Ok(More::Yes) => {}
                Ok(More::No) => break,
                Err(error) => return Err((request, error)),
            }
        }
        if let Some(begin) = begin {
            self.chunk.filled(request.count() as usize, begin.elapsed());
        }
        Ok(request)
    }

    /// Lets no more than so many bytes go into a call, if there is more than one task in it.
    pub(crate) fn bound_calls(&mut self, bytes: usize) {
        self.call_bytes = bytes.min(Self::CALL_BYTES);
    }

    /// Puts tasks on their way.
    pub(crate) fn submit(&mut self, first: Index, request: Request) -> Result<(), Refusal> {
        let (count, bytes) = (request.count() as usize, request.bytes());
        if !request.parcel().senders().is_empty() {
            self.senders.extend(request.parcel().senders());
            forget_foreign(&mut self.senders);
        }
        let submitted = self.shared.submit(
            &self.terms,
            Some(self.id),
            self.state,
            request,
            first,
            &self.mailbox,
        )?;
        self.has_room = submitted.has_room;
        self.pending += count;
        self.calls += 1;
        self.pending_bytes += bytes;
        Ok(())
    }

    /// Waits for the next outcomes. None if every task has its own, and in a copy made by `fork`, as by what
    /// decodes an outcome: they are the original's.
    pub(crate) fn next(&mut self) -> Option<Arrival> {
        if self.pending == 0 || !self.shared.is_ours() {
            return None;
        }
        if let Some(arrival) = self.try_next() {
            return Some(arrival);
        }
        // What the tasks send to receivers here, or they might wait for us as we wait for them.
        let _drain = Drain::start(&self.senders);
        // Who watches sees each task that is worth to be seen.
        let is_watched = self.progress.is_shown()
            && self.mailbox.cost().of(1).is_none_or(|each| each > Self::VISIBLE);
        let need = if is_watched { Need::Each } else { Need::Many(self.calls / 4) };
        self.shared.wait(&self.mailbox, need, None);
        self.try_next()
    }

    /// The next outcomes, if some have arrived.
    pub(crate) fn try_next(&mut self) -> Option<Arrival> {
        if self.arrived.is_empty() {
            self.mailbox.take_all(&mut self.arrived);
        }
        let arrival = self.arrived.pop_front()?;
        // A job has room for as many bytes as there are tasks without an outcome.
        let done = arrival.count().min(self.pending);
        self.pending_bytes -= self.pending_bytes / self.pending.max(1) * done;
        self.pending -= done;
        self.calls = self.calls.saturating_sub(1);
        if self.pending == 0 {
            self.pending_bytes = 0;
        }
        self.has_room = true;
        self.progress.advance(&arrival);
        Some(arrival)
    }

    /// Cancels the tasks that have not begun. Their outcomes arrive like all others. In a fork they are
    /// the original's, with its workers' memory.
    pub(crate) fn cancel(&self) {
        if !self.shared.is_ours() {
            return;
        }
        let mut floor = self.shared.floor();
        // What runs is waited for. Should its worker die, it is not begun again.
        self.mailbox.begin_no_more();
        floor.cancel(Which::Job(self.id));
    }
}

/// Whether an input gave something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum More {
    Yes,
    No,
}

impl Drop for Job<'_> {
    fn drop(&mut self) {
        if !self.shared.is_ours() {
            // In a fork: nobody is there who could answer, and the tasks are the original's.
            return;
        }
        if self.pending > 0 {
            self.cancel();
            while self.next().is_some() {}
        }
        let mut floor = self.shared.floor();
        if self.state != NO_STATE {
            floor.forget(self.state);
        }
        floor.end_job(self.reads);
        self.shared.leave(&mut floor);
    }
}
