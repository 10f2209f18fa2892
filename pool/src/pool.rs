//! The pool as its owner sees it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Sender, bounded};
use epilogue_embed::ending::{self, Cause, Ending};
use epilogue_embed::{Finalizer, on_stop};
use epilogue_process::channel::{Drain, forget_foreign};
use epilogue_process::child::Work;
use epilogue_process::entry::{Entry, ask};
use epilogue_process::parcel::Parcel;
use epilogue_process::{Limits, Portable};

use nix::sys::resource::{Resource, getrlimit};

use crate::bell::Bell;
use crate::builder::Builder;
use crate::call::{Call, Index, NO_STATE, Outcome, head};
use crate::error::{BuildError, CloseError, Refusal, SubmitError};
use crate::report::Report;
use crate::supervisor::{Command, Supervisor};
use crate::task::Task;

/// A number of worker processes, and one queue of tasks for them.
///
/// # Shutdown
///
/// Dropping a pool closes it, as [`Pool::close`] does: it waits until all tasks that were
/// submitted are done and all workers have ended. While a panic unwinds, dropping cancels what has
/// not begun and stops the workers within the grace period. A pool in a static, or one that was
/// leaked, is closed as the program exits.
///
/// In a process that was forked from the one that owns it, a pool refuses everything with an
/// error, and dropping it does nothing.
///
/// # Examples
///
/// ```
/// let pool = epilogue_pool::Pool::new(2)?;
/// let lengths = pool.map(["a", "bb"].map(String::from), |word| word.len())?;
/// assert_eq!(lengths, [1, 2]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    at_exit: Mutex<Option<Finalizer>>,
}

/// What the pool's handle and the hook that runs at exit have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    commands: Sender<Command>,
    bell: Arc<Bell>,
    supervision: Mutex<Supervision>,
    /// Set once, by whoever closes the pool or finds that it cannot go on.
    closed: Arc<OnceLock<Refusal>>,
    owner: u32,
    pub(crate) limits: Limits,
    pub(crate) workers: usize,
    next: AtomicU64,
    /// The channels whose sending end went along with a task, and that are received here.
    senders: Mutex<Vec<u64>>,
}

#[derive(Debug)]
enum Supervision {
    Running(JoinHandle<Report>),
    Ended(Result<Report, CloseError>),
}

impl Pool {
    /// Starts a pool of `workers` processes.
    ///
    /// When this returns, every worker has been started and the first is up.
    ///
    /// # Errors
    ///
    /// [`BuildError`]; then nothing of the pool is left.
    pub fn new(workers: usize) -> Result<Self, BuildError> {
        Self::builder().workers(workers).start()
    }

    /// Sets how the pool is started: how many workers, its name, its times, its limits.
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn start(builder: Builder) -> Result<Self, BuildError> {
        if builder.workers == 0 {
            return Err(BuildError::NoWorkers);
        }
        // Found out now, not by the thousandth start.
        let most = most_workers();
        if builder.workers > most {
            return Err(BuildError::TooManyWorkers { workers: builder.workers, most });
        }
        let at = |step| move |source| BuildError::System { step, source };
        let bell = Arc::new(Bell::new().map_err(at("making an eventfd"))?);
        let closed = Arc::new(OnceLock::new());
        let (commands, receiver) = crossbeam_channel::unbounded();
        let (started, up) = bounded(1);
        let (limits, workers) = (builder.spec.limits.clone(), builder.workers);
        let name = format!("epilogue: close pool {}", builder.spec.name);
        let supervisor =
            Supervisor::new(builder, receiver, Arc::clone(&bell), Arc::clone(&closed), started);
        let thread = thread::Builder::new().name("epilogue-pool".into());
        let thread = thread.spawn(|| supervisor.watch()).map_err(at("starting a thread"))?;
        let supervision = Mutex::new(match up.recv() {
            Ok(Ok(())) => Supervision::Running(thread),
            Ok(Err(error)) => {
                // The thread ends when all that it had started is gone.
                let _ = thread.join();
                return Err(BuildError::Worker(error));
            }
            Err(_) => {
                let message =
                    join(thread).map_or_else(|error| error.to_string(), |_| String::new());
                return Err(BuildError::Supervisor { message });
            }
        });
        let shared = Shared {
            commands,
            bell,
            supervision,
            closed,
            owner: std::process::id(),
            limits,
            workers,
            next: AtomicU64::new(NO_STATE + 1),
            senders: Mutex::default(),
        };
        let shared = Arc::new(shared);
        let hook = Arc::clone(&shared);
        let at_exit = ending::register(name, move |ending| hook.end_with_program(ending));
        Ok(Self { shared, at_exit: Mutex::new(Some(at_exit)) })
    }

    /// Hands a task to the pool: `f` is called with `argument` in a worker.
    ///
    /// When this returns, the task is queued and will have exactly one outcome.
    ///
    /// # Errors
    ///
    /// [`SubmitError`] gives the argument back, and says why the pool did not take it.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = epilogue_pool::Pool::new(1)?;
    /// let task = pool.submit(21u64, |x| x * 2)?;
    /// assert_eq!(task.join()?, 42);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn submit<T, R>(&self, argument: T, f: fn(T) -> R) -> Result<Task<R>, SubmitError<T>>
    where
        T: Portable,
        R: Portable,
    {
        match self.try_submit(&argument, f) {
            Ok(task) => Ok(task),
            Err(reason) => Err(SubmitError { value: argument, reason }),
        }
    }

    fn try_submit<T, R>(&self, argument: &T, f: fn(T) -> R) -> Result<Task<R>, Refusal>
    where
        T: Portable,
        R: Portable,
    {
        self.shared.check()?;
        let head = head(Entry::plain(f)?, NO_STATE);
        let payload = ask(argument, head, &self.shared.limits).map_err(Refusal::Encode)?;
        let senders = payload.senders().to_vec();
        let (reply_to, outcome) = bounded(1);
        let job = self.shared.number();
        self.shared.submit(job, NO_STATE, payload, 0, reply_to)?;
        Ok(Task::new(outcome, self.shared.limits.clone(), senders))
    }

    /// Finishes what was submitted, ends the workers, and returns the proof of it.
    ///
    /// From the moment of this call the pool takes no new tasks. When it returns, every task has
    /// its outcome, and every worker has run its finalizers and been reaped. Calling it again
    /// returns the same report.
    ///
    /// # Errors
    ///
    /// [`CloseError`]; see there.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = epilogue_pool::Pool::new(2)?;
    /// let task = pool.submit((), |()| std::process::id())?;
    /// let report = pool.close()?;
    /// assert!(report.is_clean());
    /// assert_eq!(report.done, 1);
    /// task.join()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn close(&self) -> Result<Report, CloseError> {
        self.end(Command::Close)
    }

    /// Cancels what has not begun, stops the workers within the grace period, and returns the
    /// proof of it.
    ///
    /// The tasks that run have two fifths of the grace period to return; their values count. When
    /// this returns, every task has its outcome, and every worker has ended and been reaped.
    ///
    /// # Errors
    ///
    /// [`CloseError`]; see there.
    pub fn terminate(&self) -> Result<Report, CloseError> {
        self.end(Command::Terminate { limit: None, work: Work::Finish })
    }

    fn end(&self, command: Command) -> Result<Report, CloseError> {
        if !self.shared.is_ours() {
            return Err(CloseError::NotOwner);
        }
        let report = self.shared.end(command);
        // Now there is nothing left to do at exit.
        if let Some(hook) = self.at_exit.lock().unwrap_or_else(PoisonError::into_inner).take() {
            hook.cancel();
        }
        report
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // In a fork the workers are the business of the process that owns the pool.
        if self.shared.is_ours() {
            // Errors have no reader here. `close` returns them.
            let _ = if thread::panicking() { self.terminate() } else { self.close() };
        }
    }
}

impl Shared {
    pub(crate) fn is_ours(&self) -> bool {
        self.owner == std::process::id()
    }

    /// Whether this process owns the pool, rather than being a fork of the one that does.
    pub(crate) fn require_owner(&self) -> Result<(), Refusal> {
        if self.is_ours() { Ok(()) } else { Err(Refusal::Forked) }
    }

    /// Whether the pool takes tasks.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        self.require_owner()?;
        match self.closed.get() {
            Some(refusal) => Err(refusal.clone()),
            None => Ok(()),
        }
    }

    /// A number that this pool has not used yet.
    pub(crate) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn submit(
        &self,
        job: u64,
        state: u64,
        payload: Parcel,
        index: Index,
        reply_to: Sender<(Index, Outcome)>,
    ) -> Result<(), Refusal> {
        self.note_senders(&payload);
        let call = Call::new(self.number(), job, state, payload, index, reply_to);
        self.send(Command::Submit(call))
    }

    /// Remembers the channels whose sending end goes along, as long as they are received here.
    pub(crate) fn note_senders(&self, payload: &Parcel) {
        if !payload.senders().is_empty() {
            let mut senders = self.lock_senders();
            senders.extend(payload.senders());
            forget_foreign(&mut senders);
        }
    }

    fn lock_senders(&self) -> MutexGuard<'_, Vec<u64>> {
        self.senders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn send(&self, command: Command) -> Result<(), Refusal> {
        // The supervisor is gone only after the pool was closed, or found to be broken.
        let gone = |_| self.closed.get().cloned().unwrap_or(Refusal::Closed);
        self.commands.send(command).map_err(gone)?;
        self.bell.ring();
        Ok(())
    }

    /// Ends the pool and waits for its end, unless it has ended already.
    fn end(&self, command: Command) -> Result<Report, CloseError> {
        let _ = self.closed.set(Refusal::Closed);
        // Sent before the lock is taken: a stop must reach a pool that another thread closes.
        let _ = self.send(command);
        // What the tasks send to receivers here, or they might wait for us as we wait for them.
        let _drain = Drain::start(&self.lock_senders());
        let mut supervision = self.supervision.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = Supervision::Ended(Err(CloseError::NotOwner));
        let report = match std::mem::replace(&mut *supervision, ended) {
            Supervision::Running(thread) => join(thread),
            Supervision::Ended(report) => report,
        };
        *supervision = Supervision::Ended(report.clone());
        report
    }

    /// Closes a pool whose handle nobody will drop any more: it was leaked, or is in a static.
    fn end_with_program(self: &Arc<Self>, ending: &Ending) {
        // The errors that remain are those of a supervisor that is gone, with all its workers.
        let _ = match (ending.cause(), ending.remaining()) {
            (Cause::Exit, None) => {
                self.stop_on_request(*ending);
                self.end(Command::Close)
            }
            // A signal, `cleanup`, or the request of our own parent: time is short, and a part
            // of it is needed for the finalizers that come after this one.
            (cause, left) => {
                let limit = left.map(|left| left * 4 / 5);
                let work = match cause {
                    // Our own call was abandoned, so nobody is left who would take these values;
                    // at each level of nested pools, waiting for them would take its time anew.
                    Cause::Parent => Work::Abandon,
                    _ => Work::Finish,
                };
                self.end(Command::Terminate { limit, work })
            }
        };
    }

    /// A pool that finishes its queue as the program exits has all the time that it needs, until a
    /// signal arrives: from then on it is as if that had come before.
    fn stop_on_request(self: &Arc<Self>, ending: Ending) {
        let shared = Arc::clone(self);
        on_stop(move |_| {
            // Without a clock that runs, it was an earlier one: the program went on after it.
            if let Some(left) = ending.remaining() {
                let (limit, work) = (Some(left * 4 / 5), Work::Finish);
                // A pool that is gone needs no stop.
                let _ = shared.send(Command::Terminate { limit, work });
            }
        });
    }
}

/// How many workers this process has descriptors for.
fn most_workers() -> usize {
    const EACH: u64 = 3;
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
    usize::try_from(limit / EACH).unwrap_or(usize::MAX)
}

fn join(thread: JoinHandle<Report>) -> Result<Report, CloseError> {
    thread.join().map_err(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
        CloseError::Supervisor { message: text.unwrap_or("(no message)").to_owned() }
    })
}
