//! What a pool tells of itself: the events, as who observes it sees them.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{TaskError, WorkerLost};
use crate::note::Note;
use crate::report::WorkerReport;
use crate::stall::Stall;

/// What happened in a pool; see [`Builder::on_event`](crate::Builder::on_event).
///
/// The events of one task come in the order in which they are listed here; those after
/// [`Queued`](Event::Queued) may come once more after [`Retried`](Event::Retried). Tasks that go
/// together are told of together, so one event may be about several: see [`Tasks`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// Tasks were submitted.
    #[non_exhaustive]
    Queued {
        /// Which they are.
        tasks: Tasks,
        /// When that was.
        at: Instant,
    },
    /// Tasks that one worker had not begun were given to another.
    #[non_exhaustive]
    Moved {
        /// Which they are.
        tasks: Tasks,
        /// Who had them.
        from: WorkerId,
        /// Who has them now.
        to: WorkerId,
    },
    /// A worker has begun tasks, one after the other.
    ///
    /// A worker takes its tasks from memory that it shares with the pool, and sends no message as it
    /// begins one. So this is told when the pool looks: as that worker answers something else, within
    /// a quarter of a second otherwise, and at the latest together with the end of the task. The
    /// time is that of the beginning, as the worker says it.
    #[non_exhaustive]
    Started {
        /// Which they are. The first has begun.
        tasks: Tasks,
        /// Who runs them.
        worker: WorkerId,
        /// When the first began.
        at: Instant,
        /// How long the first had waited until then.
        waited: Duration,
    },
    /// A task that runs was asked to return: [`should_stop`](crate::task::should_stop) is true in it.
    #[non_exhaustive]
    AskedToStop {
        /// Which it is.
        tasks: Tasks,
        /// Who runs it.
        worker: WorkerId,
    },
    /// The worker of tasks died, and they are to be begun again: they were declared idempotent.
    #[non_exhaustive]
    Retried {
        /// Which they are.
        tasks: Tasks,
        /// How the worker died.
        lost: WorkerLost,
    },
    /// Tasks have their outcome.
    #[non_exhaustive]
    Ended {
        /// Which they are.
        tasks: Tasks,
        /// What came of each of them.
        outcome: Outcome,
        /// Who ran them. None if they never began, or were to begin again.
        worker: Option<WorkerId>,
        /// How long they had waited before they began. None as for `worker`.
        waited: Option<Duration>,
        /// How long each ran, as the worker measured it: the mean, if they are several. None where
        /// it was not measured: of tasks that take less than 10 µs each, one in eight is.
        ran: Option<Duration>,
    },
    /// A worker is up, and takes tasks.
    #[non_exhaustive]
    WorkerUp {
        /// Who it is.
        worker: WorkerId,
    },
    /// The code of a task has said something, through `tracing`; see `Builder::tracing`.
    #[non_exhaustive]
    Noted {
        /// In which worker.
        worker: WorkerId,
        /// During which tasks: those that went together with the one that said it. They may have
        /// ended meanwhile, for this takes another way than an outcome. None if that was long ago.
        tasks: Option<Tasks>,
        /// What it said.
        note: Box<Note>,
    },
    /// A worker that had something to do did not get on with it.
    #[non_exhaustive]
    Stalled {
        /// Who it is, how it was found, and what was done about it.
        stall: Box<Stall>,
    },
    /// A worker has ended, and been reaped.
    #[non_exhaustive]
    WorkerDown {
        /// Who it was, and how and why it ended.
        report: Box<WorkerReport>,
    },
    /// A worker could not be started at all. It will be tried again, or [`Event::Broken`] follows.
    #[non_exhaustive]
    StartFailed {
        /// Why.
        cause: String,
    },
    /// The pool has given up: its workers kept dying.
    #[non_exhaustive]
    Broken {
        /// What became of the last one.
        cause: String,
    },
    /// So many events are missing here: more had happened than were taken in time.
    #[non_exhaustive]
    Missed {
        /// How many.
        count: u64,
    },
    /// The pool has ended: no event follows.
    Closed,
}

/// Some tasks that went together: of a map as many as travelled in one call, else one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Tasks {
    /// The number of their map, or of the task that was submitted by itself; see
    /// [`Task::id`](crate::Task::id). No other map or task of the pool has it.
    pub job: u64,
    /// The first of them: the position of its item in the input of the map, or 0.
    pub first: usize,
    /// How many they are.
    pub count: usize,
}

impl Tasks {
    pub(crate) fn new(job: u64, first: usize, count: usize) -> Self {
        Self { job, first, count }
    }

    /// The positions of their items.
    pub fn range(&self) -> Range<usize> {
        self.first..self.first + self.count
    }
}

impl fmt::Display for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { job, first, count } = self;
        match count {
            1 => write!(f, "task {job}.{first}"),
            _ => write!(f, "tasks {job}.{first}-{}", first + count.saturating_sub(1)),
        }
    }
}

/// Which worker it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct WorkerId {
    /// Its name, which `ps` shows.
    pub name: Arc<str>,
    /// Its process id. Once it has ended, the number may mean another process.
    pub pid: u32,
}

impl WorkerId {
    pub(crate) fn new(name: &str, pid: u32) -> Self {
        Self { name: name.into(), pid }
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.name, self.pid)
    }
}

/// What came of a task, in a word; whoever joins it has the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// It has a value.
    Done,
    /// It panicked.
    Panicked,
    /// It returned an error.
    Failed,
    /// Its argument could not be read, or its result could not be sent.
    Spoilt,
    /// Its worker died during it.
    Lost,
    /// Each worker that began it died during it, as often as it may be tried.
    Poisoned,
    /// It took longer than it was allowed to.
    TimedOut,
    /// It waited longer than it was allowed to, and did not begin, or not again.
    Expired,
    /// It was cancelled.
    Cancelled,
    /// The pool did not take it, or gave up while it waited.
    Refused,
}

impl From<&TaskError> for Outcome {
    fn from(error: &TaskError) -> Self {
        match error {
            TaskError::Panicked(_) => Self::Panicked,
            TaskError::Failed(_) => Self::Failed,
            TaskError::WorkerLost(_) => Self::Lost,
            TaskError::Poisoned(_) => Self::Poisoned,
            TaskError::TimedOut => Self::TimedOut,
            TaskError::Expired => Self::Expired,
            TaskError::Cancelled { .. } => Self::Cancelled,
            TaskError::Encode { .. } | TaskError::Decode { .. } => Self::Spoilt,
            TaskError::Refused(_) | TaskError::AlreadyJoined => Self::Refused,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Done => "done",
            Self::Panicked => "panicked",
            Self::Failed => "failed",
            Self::Spoilt => "spoilt",
            Self::Lost => "lost with its worker",
            Self::Poisoned => "lost with every worker that tried",
            Self::TimedOut => "timed out",
            Self::Expired => "waited too long",
            Self::Cancelled => "cancelled",
            Self::Refused => "refused",
        })
    }
}

/// One line, without a full stop.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Queued { tasks, .. } => write!(f, "{tasks} queued"),
            Self::Moved { tasks, from, to } => write!(f, "{tasks} moved from {from} to {to}"),
            Self::Started { tasks, worker, waited, .. } => {
                write!(f, "{tasks} started in {worker}, waited {waited:.1?}")
            }
            Self::AskedToStop { tasks, worker } => {
                write!(f, "{tasks} asked to return, in {worker}")
            }
            Self::Retried { tasks, lost } => write!(f, "{tasks} to be tried again: {lost}"),
            Self::Ended { tasks, outcome, worker, waited, ran } => {
                write!(f, "{tasks} {outcome}")?;
                worker.iter().try_for_each(|worker| write!(f, ", in {worker}"))?;
                waited.iter().try_for_each(|waited| write!(f, ", waited {waited:.1?}"))?;
                ran.iter().try_for_each(|ran| write!(f, ", ran {ran:.1?}"))
            }
            Self::WorkerUp { worker } => write!(f, "worker {worker} is up"),
            Self::Noted { worker, tasks, note } => {
                let Note { level, target, message, fields, .. } = &**note;
                tasks.iter().try_for_each(|tasks| write!(f, "{tasks} in "))?;
                write!(f, "{worker}: {level} {target}: {message} {fields}")
            }
            Self::Stalled { stall } => stall.fmt(f),
            Self::WorkerDown { report } => write!(f, "worker {report}"),
            Self::StartFailed { cause } => write!(f, "a worker did not start: {cause}"),
            Self::Broken { cause } => write!(f, "the pool gave up: {cause}"),
            Self::Missed { count } => write!(f, "{count} events were not taken in time"),
            Self::Closed => f.write_str("the pool has ended"),
        }
    }
}
