//! Everything that can go wrong in a pool, by the operation that fails.

use std::fmt;

use epilogue_process::entry::ForeignFunction;
use epilogue_process::{
    DecodeError, EncodeError, ExitStatus, Failure, Fault, Panic, Side, StartError,
};

/// Why a pool was not started. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A pool without workers would never do anything.
    #[error("a pool needs at least one worker")]
    NoWorkers,
    /// A worker that may do no task would never do anything.
    #[error("a worker has to be allowed at least one task: max_tasks_per_worker(0) allows none")]
    NoTasks,
    /// There would be more workers at least than at most.
    #[error("there cannot be at least {min} workers and at most {max}")]
    NoSize {
        /// What [`Builder::min_workers`](crate::Builder::min_workers) was given.
        min: usize,
        /// What [`Builder::workers`](crate::Builder::workers) was given.
        max: usize,
    },
    /// A worker could not be started.
    #[error("a worker of the pool did not start: {0}")]
    Worker(#[source] StartError),
    /// There are more workers than this process may have descriptors for.
    #[error(
        "{workers} workers need more descriptors than this process may have, which is enough for \
         {most}: raise the limit (ulimit -n), or ask for fewer"
    )]
    TooManyWorkers {
        /// How many were asked for.
        workers: usize,
        /// How many there can be at most.
        most: usize,
    },
    /// The pool's own thread panicked, which is a bug of this crate. Its workers were killed.
    #[error("the pool's supervisor panicked, and nothing of the pool is left: {message}")]
    Supervisor {
        /// The panic's message.
        message: String,
    },
    /// The operating system refused a step.
    #[error("{step} failed: {source}; nothing was started")]
    System {
        /// What was being done.
        step: &'static str,
        /// What the operating system said.
        source: std::io::Error,
    },
}

/// Why the number of a pool's workers was not changed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ResizeError {
    /// A pool without workers would never do anything.
    #[error("a pool needs at least one worker: close it, if there is nothing to do")]
    NoWorkers,
    /// There would be more workers than this process may have descriptors for.
    #[error(
        "{workers} workers need more descriptors than this process may have, which is enough for \
         {most}: raise the limit (ulimit -n), or ask for fewer"
    )]
    TooManyWorkers {
        /// How many were asked for.
        workers: usize,
        /// How many there can be at most.
        most: usize,
    },
    /// The pool is closed, or not this process's.
    #[error(transparent)]
    Refused(Refusal),
}

/// Why a task has no value.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    /// The task panicked. Its worker lives on.
    #[error("the task {0}")]
    Panicked(Panic),
    /// The task returned an error. Its worker lives on.
    #[error(transparent)]
    Failed(Failure),
    /// Its worker died during the task, which is not tried again: it may have had effects.
    #[error(transparent)]
    WorkerLost(WorkerLost),
    /// Each worker that began it died during it, as often as it may be tried. It is not tried again.
    #[error(transparent)]
    Poisoned(Poisoned),
    /// It took longer than it was allowed to. Its worker was ended: nothing of it runs any more.
    #[error("the task took longer than it was allowed to, and its worker was ended")]
    TimedOut,
    /// It waited longer than it was allowed to, and did not begin, or not again after its worker
    /// had died.
    #[error("the task waited longer to begin than it was allowed to")]
    Expired,
    /// It was cancelled before it was done: by its handle, as its map or scope ended early, or as
    /// the pool ended.
    #[error("the task was cancelled {}", if *.begun { "after it had begun" } else { "before it began" })]
    Cancelled {
        /// Whether it may have had effects. If not, it never began.
        begun: bool,
    },
    /// The argument could not be encoded, and was not sent; or the task is done, but its result
    /// could not be encoded.
    #[error("{side} cannot be sent: {error}")]
    Encode {
        /// Which of the two it was.
        side: Side,
        /// What was wrong with it.
        error: EncodeError,
    },
    /// The argument, or the result, could not be decoded where it arrived.
    #[error("{side} cannot be read: {error}")]
    Decode {
        /// Which of the two it was.
        side: Side,
        /// What was wrong with it.
        error: DecodeError,
    },
    /// The pool did not take the task, or gave up while it waited: it never began, unless it was to
    /// be [begun again](crate::Builder::retries). Or this process is a fork of the pool's, and
    /// cannot know.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The task's outcome was given before, and is given once.
    #[error("the outcome of this task has been given already")]
    AlreadyJoined,
}

impl From<Fault> for TaskError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Panicked(panic) => Self::Panicked(panic),
            Fault::Failed(failure) => Self::Failed(failure),
            Fault::Argument(error) => Self::Decode { side: Side::Argument, error },
            Fault::Result(error) => Self::Encode { side: Side::Result, error },
            Fault::Reply(error) => Self::Decode { side: Side::Result, error },
            _ => Self::Refused(Refusal::ForeignFunction(ForeignFunction)),
        }
    }
}

/// How a worker was lost during a task.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerLost {
    /// The worker's name.
    pub worker: String,
    /// The process id that it had.
    pub pid: u32,
    /// How it ended.
    pub status: ExitStatus,
    /// Whether the task had begun: always, since one that had not is given to another worker.
    pub begun: bool,
    /// What else is known, such as that the worker broke the protocol and was killed.
    pub detail: Option<String>,
}

impl fmt::Display for WorkerLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { worker, pid, status, .. } = self;
        write!(f, "worker {worker} (pid {pid}) was lost during the task: {status}")?;
        match &self.detail {
            Some(detail) => write!(f, "; {detail}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for WorkerLost {}

/// A task that was declared to be idempotent, and that ended each worker it was tried in.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Poisoned {
    /// How often it was begun.
    pub attempts: u32,
    /// How each of these workers ended; the last eight, if there are more.
    pub ends: Vec<WorkerLost>,
}

impl fmt::Display for Poisoned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let omitted = self.attempts as usize - self.ends.len().min(self.attempts as usize);
        write!(f, "the task ended each of the {} workers that began it:", self.attempts)?;
        if omitted > 0 {
            write!(f, " {omitted} others,")?;
        }
        for (position, WorkerLost { pid, status, .. }) in self.ends.iter().enumerate() {
            let comma = if position == 0 { "" } else { "," };
            write!(f, "{comma} pid {pid} {status}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Poisoned {}

/// Why a pool did not take a task, or gave up while it waited.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The pool is closed.
    #[error("the pool is closed: start a new one, or close it later")]
    Closed,
    /// The pool's workers kept dying: before they did anything, or more often than
    /// [`Builder::restart_intensity`](crate::Builder::restart_intensity) allows. So it gave up.
    #[error("the pool is broken, its workers kept ending: {cause}")]
    Broken {
        /// What became of the last one.
        cause: String,
    },
    /// This process was forked from the one that owns the pool, and has no workers.
    #[error("this process is a fork of the one that owns the pool: start a pool here")]
    Forked,
    /// The function cannot be named for a worker.
    #[error(transparent)]
    ForeignFunction(#[from] ForeignFunction),
    /// The task refers to shared memory or a channel, and its worker is reached by bytes only.
    #[error("shared memory and channels cannot travel to a worker that is reached by bytes only")]
    BytesOnly,
    /// The input never ends, so its results would never fit in a `Vec`.
    #[error("the input has no end: bound it, for example with take(n)")]
    Endless,
    /// The input iterator panicked. What it had given was cancelled or done.
    #[error("the input iterator panicked: {message}")]
    InputPanicked {
        /// The panic's message.
        message: String,
    },
    /// The argument cannot be encoded.
    #[error("the argument cannot be sent: {0}")]
    Encode(EncodeError),
}

/// The pool did not take the task. The argument was not sent, and is returned.
pub struct SubmitError<T> {
    /// The argument.
    pub value: T,
    /// Why it was not taken.
    pub reason: Refusal,
}

impl<T> SubmitError<T> {
    /// The argument.
    pub fn into_value(self) -> T {
        self.value
    }
}

impl<T> fmt::Debug for SubmitError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubmitError").field("reason", &self.reason).finish_non_exhaustive()
    }
}

impl<T> fmt::Display for SubmitError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

impl<T> std::error::Error for SubmitError<T> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.reason)
    }
}

/// Why a pool could not be closed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CloseError {
    /// Another process owns it (this one was forked from that); only an owner can close it.
    #[error("this process is a fork of the one that owns the pool, which alone can close it")]
    NotOwner,
    /// The pool was ended by a waker that the pool's own thread had called. That thread cannot wait
    /// for its own end, so this returns before the pool has ended. It ends all the same, as it was
    /// told to; another thread that closes it waits for that, and so does the program's exit.
    #[error("the pool's own thread was to wait for its own end; the pool ends when that goes on")]
    OnOwnThread,
    /// The pool's own thread panicked, which is a bug of this crate. Its workers were killed.
    #[error("the pool's supervisor panicked, and its workers were killed: {message}")]
    Supervisor {
        /// The panic's message.
        message: String,
    },
}
