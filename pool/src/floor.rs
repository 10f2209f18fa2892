//! The floor: all that a pool knows of its workers and its queue, and what it decides from that.
//!
//! Nothing here blocks, and nobody's code runs: it is a state machine behind one lock. The supervisor
//! tells it what happened to workers, callers hand it their calls, and whoever waits for an outcome
//! has it take what workers have answered. `tests/models` runs it like this, over children that are threads.
//!
//! # Invariants
//!
//! 1. A task is in the queue, or with one worker, or has its outcome.
//! 2. A worker's death touches the one task that it had begun.
//! 3. Whoever sleeps and has to know of an answer is told: the reader by the doorbell, the
//!    supervisor over the socket; see [`Floor::tune`].

mod deaths;
mod ending;
mod reading;
mod staffing;
mod work;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, OnceLock};

use crossbeam_channel::Sender;
use epilogue_process::StartError;
use epilogue_process::bell::Bell;
use epilogue_process::parcel::Parcel;
use epilogue_process::ring::Patience;

pub(crate) use self::reading::Reader;
#[cfg(test)]
pub(crate) use self::staffing::tests::{floor_of_one, floor_of_two, floor_with};
#[cfg(test)]
pub(crate) use self::work::send;
use crate::call::{Call, NO_STATE, Which};
use crate::deadline::Alarm;
use crate::ends::Deadline;
use crate::error::{Refusal, TaskError};
use crate::event::Event as Told;
use crate::hiring::Hiring;
use crate::intensity::Intensity;
use crate::job::Reads;
use crate::mailbox::Mailbox;
use crate::member::Member;
use crate::observer::Feed;
use crate::recycling::Recycling;
use crate::report::Report;
use crate::size::Size;
use crate::stall::OnStall;
use crate::stats::Times;
use crate::vigil::Vigil;
use crate::wakes::Wakes;

/// How far a pool is on its way down. Phases only ever move forward.
#[derive(Debug)]
pub(crate) enum Phase {
    /// No worker is up yet, and somebody waits to hear of the first.
    Starting(Sender<Result<(), StartError>>),
    Running,
    /// No new calls: those that there are get done, or the pool stops at the deadline.
    Draining {
        deadline: Option<Deadline>,
    },
    /// No calls at all: the workers are on the ladder.
    Stopping,
}

/// Whether maps go on sending calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// None has for a while: it is the supervisor who sees to it that no worker is idle while calls
    /// wait with another.
    Still,
    /// They do, and take answers as often as they have to. The alarm is set to look again.
    Moving,
    /// They did when it was last looked. The alarm is set to look once more.
    Slowing,
}

#[derive(Debug)]
pub(crate) struct Floor {
    pub(crate) phase: Phase,
    pub(crate) members: Vec<Member>,
    pub(crate) queue: VecDeque<Call>,
    pub(crate) states: BTreeMap<u64, Parcel>,
    pub(crate) report: Report,
    hired: u64,
    hiring: Hiring,
    pub(crate) intensity: Intensity,
    /// When limits of time are looked at.
    pub(crate) alarm: Alarm,
    /// When workers are looked at that do not get on.
    pub(crate) vigil: Vigil,
    size: Size,
    recycling: Recycling,
    /// How many missing workers the supervisor was told of.
    told_to_hire: usize,
    next: u64,
    /// How many jobs there are whose callers read again and again.
    readers: usize,
    pace: Pace,
    /// Whether a worker has been asked to tell of its answers.
    is_tuned: bool,
    closed: Arc<OnceLock<Refusal>>,
    pub(crate) reader: Reader,
    /// Those who wait for an outcome while another one reads.
    pub(crate) followers: Vec<Arc<Mailbox>>,
    pub(crate) patience: Patience,
    /// Wakes the supervisor.
    pub(crate) bell: Arc<Bell>,
    /// Wakes the reader.
    pub(crate) news: Arc<Bell>,
    /// Those who wait without a thread.
    pub(crate) wakes: Arc<Wakes>,
    /// Who is told of what happens, if anybody observes the pool.
    pub(crate) feed: Option<Arc<Feed>>,
    pub(crate) times: Times,
}

impl Floor {
    pub(crate) fn new(
        name: String,
        (size, recycling): (Size, Recycling),
        closed: Arc<OnceLock<Refusal>>,
        started: Sender<Result<(), StartError>>,
        [bell, news]: [Arc<Bell>; 2],
    ) -> Self {
        Self {
            phase: Phase::Starting(started),
            members: Vec::new(),
            queue: VecDeque::new(),
            states: BTreeMap::new(),
            report: Report::new(name),
            hired: 0,
            hiring: Hiring::default(),
            intensity: Intensity::default(),
            alarm: Alarm::default(),
            vigil: Vigil::new(Vigil::DEFAULT, OnStall::default()),
            size,
            recycling,
            told_to_hire: 0,
            next: NO_STATE + 1,
            readers: 0,
            pace: Pace::Still,
            is_tuned: false,
            closed,
            reader: Reader::None,
            followers: Vec::new(),
            patience: Patience::default(),
            bell,
            news,
            wakes: Arc::default(),
            feed: None,
            times: Times::default(),
        }
    }

    /// What became of the workers that have ended, and of the tasks.
    pub(crate) fn report(&self) -> &Report {
        &self.report
    }

    /// Tells those who observe the pool, if anybody does.
    pub(crate) fn tell(&self, event: impl FnOnce() -> Told) {
        if let Some(feed) = &self.feed {
            feed.tell(event());
        }
    }

    /// Drops all that there is: workers are killed, tasks are refused.
    pub(crate) fn abandon(&mut self) {
        self.phase = Phase::Stopping;
        self.members.clear();
        self.queue.clear();
        self.tell_reader();
    }

    /// A number that this pool has not used yet.
    pub(crate) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// How many workers there are to be.
    pub(crate) fn wanted(&self) -> usize {
        self.size.wanted()
    }

    // What callers ask for.

    pub(crate) fn submit(&mut self, call: Call) {
        match (&self.phase, self.closed.get()) {
            // It came after the queue was emptied for good.
            (Phase::Stopping, Some(refusal @ Refusal::Broken { .. })) => {
                call.fail(refusal.clone().into());
            }
            (Phase::Stopping, _) => self.drop_call(call),
            // A call that comes while the pool closes was submitted before that.
            (Phase::Starting(_) | Phase::Running | Phase::Draining { .. }, _) => {
                self.alarm.set(call.course.as_ref().and_then(|course| course.first_look()));
                self.hand_on(call);
                match (&self.phase, self.reader) {
                    (Phase::Running, Reader::None) if self.readers > 0 => self.dispatch_for_map(),
                    _ => self.dispatch(),
                }
            }
        }
    }

    /// Whether calls wait for a worker that has room.
    pub(crate) fn is_backed_up(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Keeps a state that later calls borrow.
    pub(crate) fn share(&mut self, id: u64, encoded: Parcel) {
        self.states.insert(id, encoded);
    }

    /// No call will borrow that state any more.
    pub(crate) fn forget(&mut self, id: u64) {
        self.states.remove(&id);
        self.members.iter_mut().for_each(|member| member.forget(id));
        if !self.members.iter().all(|member| member.child.is_flushed()) {
            self.bell.ring();
        }
    }

    /// Cancels those of these tasks that have not begun; how many that are.
    pub(crate) fn cancel(&mut self, which: Which<'_>) -> u64 {
        let before = self.report.cancelled;
        let queued = match which {
            Which::Job(job) if self.is_one_call(job) => self.take_out(job).into_iter().collect(),
            _ => {
                let queue = self.queue.drain(..);
                let (cancelled, kept) = queue.partition::<Vec<_>, _>(|call| which.has(call));
                self.queue = kept.into();
                cancelled
            }
        };
        let taken = queued.into_iter().chain(self.take_back_all(which));
        taken.for_each(|call| self.drop_call(call));
        self.dispatch();
        self.report.cancelled - before
    }

    /// Whether this job is one call, and it is found where it is looked for first: with a worker, or in
    /// the queue at its place, which is in the order of the numbers but for what came back from workers.
    /// To go through all of a queue for each of many tasks would take minutes.
    fn is_one_call(&self, job: u64) -> bool {
        let is_it = |call: &Call| call.id == job && call.job == job;
        self.members.iter().any(|member| member.in_flight.iter().any(|sent| is_it(&sent.call)))
            || self.queue.binary_search_by_key(&job, |call| call.id).is_ok()
    }

    fn take_out(&mut self, call: u64) -> Option<Call> {
        let position = self.queue.binary_search_by_key(&call, |call| call.id).ok()?;
        self.queue.remove(position)
    }

    /// Whether a worker has begun this task and not answered it.
    pub(crate) fn is_running(&mut self, id: u64) -> bool {
        self.members.iter_mut().any(|member| member.has_begun(id))
    }

    /// A job begins; its number.
    pub(crate) fn begin_job(&mut self, reads: Reads) -> u64 {
        self.readers += usize::from(reads == Reads::AllTheTime);
        self.number()
    }

    /// A job has ended.
    pub(crate) fn end_job(&mut self, reads: Reads) {
        self.readers -= usize::from(reads == Reads::AllTheTime);
    }

    fn take_back_all(&mut self, which: Which<'_>) -> Vec<Call> {
        let (next, members) = (&mut self.next, &mut self.members);
        let mut number = || {
            *next += 1;
            *next
        };
        members.iter_mut().flat_map(|member| member.take_back_all(which, &mut number)).collect()
    }

    fn drop_call(&mut self, call: Call) {
        let begun = call.began_before();
        self.report.cancelled += call.fail(TaskError::Cancelled { begun }) as u64;
    }

    // Work.

    // Workers.
}
