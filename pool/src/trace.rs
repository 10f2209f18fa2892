//! What is remembered of a call for those who observe it, or who measure how long calls wait.
//!
//! Most calls have no trace: where nobody observes the pool, one in some tasks is measured.

use std::sync::Arc;
use std::time::{Duration, Instant};

use epilogue_process::entry::AnswerKind;

use crate::error::WorkerLost;
use crate::event::{Event, Outcome, Tasks, WorkerId};
use crate::mailbox::Outcomes;
use crate::observer::Feed;

/// What is remembered of one call.
#[derive(Debug, Clone)]
pub(crate) struct Trace {
    queued: Instant,
    stage: Stage,
    /// How long those of its tasks ran that were answered.
    ran: Duration,
    /// Who is told, if anybody observes the pool.
    feed: Option<Arc<Feed>>,
}

/// How far a call is, as far as was told.
#[derive(Debug, Clone)]
enum Stage {
    Queued,
    /// A worker has it. It may have begun.
    Sent(WorkerId),
    Begun(WorkerId, Instant),
}

impl From<AnswerKind> for Outcome {
    fn from(kind: AnswerKind) -> Self {
        match kind {
            AnswerKind::Value => Self::Done,
            AnswerKind::Panicked => Self::Panicked,
            AnswerKind::Failed => Self::Failed,
            _ => Self::Spoilt,
        }
    }
}

impl Trace {
    pub(crate) fn new(queued: Instant, feed: Option<Arc<Feed>>) -> Box<Self> {
        Box::new(Self { queued, stage: Stage::Queued, ran: Duration::ZERO, feed })
    }

    /// That of tasks which are split off from these, of which none has begun.
    pub(crate) fn of_the_rest(&self) -> Box<Self> {
        let stage = match &self.stage {
            Stage::Queued => Stage::Queued,
            Stage::Sent(worker) | Stage::Begun(worker, _) => Stage::Sent(worker.clone()),
        };
        Box::new(Self { stage, ran: Duration::ZERO, ..self.clone() })
    }

    fn tell(&self, event: Event) {
        if let Some(feed) = &self.feed {
            feed.tell(event);
        }
    }

    /// A worker was sent the call.
    pub(crate) fn sent(&mut self, tasks: Tasks, to: &WorkerId) {
        match &self.stage {
            Stage::Sent(from) | Stage::Begun(from, _) if from != to => {
                let (from, to) = (from.clone(), to.clone());
                self.tell(Event::Moved { tasks, from, to });
            }
            _ => {}
        }
        self.stage = Stage::Sent(to.clone());
    }

    pub(crate) fn is_observed(&self) -> bool {
        self.feed.is_some()
    }

    /// Whether it may have begun, or may do so soon, and was not told to have.
    pub(crate) fn is_to_begin(&self) -> bool {
        self.feed.is_some() && matches!(self.stage, Stage::Sent(_))
    }

    /// The call has begun, so long ago as its worker says: which is not believed to have been before
    /// the call was queued.
    pub(crate) fn begun(&mut self, tasks: Tasks, ago: Option<Duration>) {
        let Stage::Sent(worker) = &self.stage else { return };
        let (worker, now) = (worker.clone(), Instant::now());
        let at = ago.and_then(|ago| now.checked_sub(ago)).map_or(now, |at| at.max(self.queued));
        let waited = at.duration_since(self.queued);
        if self.feed.is_some() {
            self.tell(Event::Started { tasks, worker: worker.clone(), at, waited });
        }
        self.stage = Stage::Begun(worker, at);
    }

    /// How long the next of its tasks to be answered had waited. None if the call has not begun.
    pub(crate) fn waited(&self) -> Option<Duration> {
        match &self.stage {
            Stage::Queued | Stage::Sent(_) => None,
            Stage::Begun(_, at) => Some(at.duration_since(self.queued).saturating_add(self.ran)),
        }
    }

    /// Some of its tasks were answered, which took so long.
    pub(crate) fn answered(&mut self, took: Duration) {
        self.ran = self.ran.saturating_add(took);
    }

    /// Tasks of it have their outcomes.
    pub(crate) fn ended(&self, tasks: Tasks, outcomes: &Outcomes) {
        if self.feed.is_none() {
            return;
        }
        match outcomes {
            Outcomes::Answers(reply) => {
                let each = reply.nanos / u64::from(reply.count.max(1));
                let ran = (each > 0).then(|| Duration::from_nanos(each));
                let mut next = tasks.first;
                let mut kinds = AnswerKind::each(reply).map(Outcome::from).peekable();
                while let Some(outcome) = kinds.next() {
                    let mut count = 1;
                    while kinds.next_if_eq(&outcome).is_some() {
                        count += 1;
                    }
                    self.tell_end(Tasks::new(tasks.job, next, count), outcome, ran);
                    next += count;
                }
            }
            Outcomes::Answer(parcel) => {
                self.tell_end(tasks, AnswerKind::of(parcel).into(), None);
            }
            Outcomes::Failed { error, .. } => self.tell_end(tasks, Outcome::from(error), None),
        }
    }

    fn tell_end(&self, tasks: Tasks, outcome: Outcome, ran: Option<Duration>) {
        let (worker, waited) = match &self.stage {
            Stage::Queued | Stage::Sent(_) => (None, None),
            Stage::Begun(worker, _) => (Some(worker.clone()), self.waited()),
        };
        self.tell(Event::Ended { tasks, outcome, worker, waited, ran });
    }

    /// The task was asked to return.
    pub(crate) fn asked_to_stop(&self, tasks: Tasks) {
        if let Stage::Sent(worker) | Stage::Begun(worker, _) = &self.stage {
            self.tell(Event::AskedToStop { tasks, worker: worker.clone() });
        }
    }

    /// Its worker died during it, and it is to be begun again.
    pub(crate) fn begin_anew(&mut self, tasks: Tasks, lost: &WorkerLost) {
        if self.feed.is_some() {
            self.tell(Event::Retried { tasks, lost: lost.clone() });
        }
        (self.queued, self.stage, self.ran) = (Instant::now(), Stage::Queued, Duration::ZERO);
    }
}
