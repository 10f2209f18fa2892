//! One function in a process of its own, and the handle to wait for it.

mod future;

use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use crate::awaiting::Waiter;
use crate::child::{Child, Spec, Ties};
use crate::codec::Limits;
use crate::end::End;
use crate::entry::{Entry, Request, answer, only_answer};
use crate::error::{JoinError, StartError, StopError};
use crate::output::Output;
use crate::portable::Portable;
use crate::running::{Answered, Running, SharedRunning, lock};
use crate::sandbox::SandboxLevel;
use crate::segment::Stock;
use crate::wait::sealed::{Handle, Sealed};

/// One function in a process of its own, and the handle to wait for it.
///
/// # Shutdown
///
/// Dropping the handle joins: it waits until the function has returned and the process has run
/// its finalizers and ended. While a panic unwinds, dropping stops it instead, within the grace
/// period. A handle that is leaked, or lives in a static, is joined as this program exits.
/// [`Process::detach`] is the only way to let go of one.
///
/// # Awaiting
///
/// A handle is a future of what [`Process::join`] returns. It needs no runtime of any kind: a
/// thread waits for the process and wakes the task; if none can be started, the poll waits itself.
/// Polled again after its value was given, it gives [`JoinError::AlreadyJoined`].
///
/// # Examples
///
/// ```
/// use epilogue_process::Process;
///
/// let process = Process::start(String::from("bob"), |name| format!("hello {name}"))?;
/// assert_eq!(process.join()?, "hello bob");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "dropping a process waits for it"]
pub struct Process<R> {
    running: SharedRunning,
    /// What needs no lock.
    ties: Arc<Ties>,
    waiting: Waiting,
    id: u32,
    name: String,
    sandbox: Option<SandboxLevel>,
    limits: Limits,
    result: PhantomData<fn() -> R>,
}

/// Who waits for the process, besides its handle.
#[derive(Debug)]
enum Waiting {
    Nobody,
    /// A thread, on behalf of a task that awaits the handle.
    Task(Waiter),
    /// A thread that reaps it: the handle let go.
    Reaper,
}

impl<R> Process<R> {
    /// Starts a process that calls `f` with `argument`.
    ///
    /// When this returns, the process is up and has its argument. What travels is the function, not
    /// a closure's captures: pass what it needs as `argument`. What it returns travels back as it
    /// is, also a `Result`: so its error has to be [`Portable`], which `std::io::Error` is not.
    ///
    /// # Errors
    ///
    /// [`StartError`]; then nothing of the process is left.
    ///
    /// # Examples
    ///
    /// ```
    /// use epilogue_process::Process;
    ///
    /// let process = Process::start((2u64, 3u64), |(a, b)| a * b)?;
    /// assert_eq!(process.join()?, 6);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn start<T>(argument: T, f: fn(T) -> R) -> Result<Self, StartError>
    where
        T: Portable,
        R: Portable,
    {
        Process::builder().start(argument, f)
    }

    pub(crate) fn start_with<T>(spec: &Spec, argument: T, f: fn(T) -> R) -> Result<Self, StartError>
    where
        T: Portable,
        R: Portable,
    {
        let mut head = Vec::new();
        Entry::plain(f)?.write(&mut head);
        let mut call = Request::new(head);
        call.push(&argument, &spec.limits, &Stock::none())?;
        let started = Running::start(spec, &call);
        // Before what was packed: until that is gone, a receiver in it is known to be leaving.
        drop(argument);
        drop(call);
        let (running, ties) = started?;
        let (id, sandbox) = {
            let running = lock(&running);
            (running.id(), running.child().and_then(Child::sandbox).cloned())
        };
        Ok(Self {
            ties,
            id,
            sandbox,
            name: spec.name.clone(),
            running,
            waiting: Waiting::Nobody,
            limits: spec.limits.clone(),
            result: PhantomData,
        })
    }

    /// Its process id. Once it has ended and been joined, the number may mean another process.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The name that it was started with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How much of its sandbox the kernel enforces. None if it has no sandbox.
    pub fn sandbox(&self) -> Option<&SandboxLevel> {
        self.sandbox.as_ref()
    }

    /// Whether the process has ended, so that joining it returns at once. Never blocks.
    ///
    /// In a fork of the process that started it: whether it was known to have ended before the fork.
    ///
    /// # Examples
    ///
    /// ```
    /// use epilogue_process::Process;
    ///
    /// let process = Process::start((), |()| ())?;
    /// while !process.is_finished() {
    ///     // There is something better to do meanwhile.
    ///     std::thread::yield_now();
    /// }
    /// process.join()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn is_finished(&self) -> bool {
        match self.running.try_lock() {
            Ok(mut running) => {
                // A fork of the process that started it would take away what the original is to read.
                if self.running.is_ours() {
                    running.look();
                }
                running.has_ended()
            }
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner().has_ended(),
            // Another thread waits for it.
            Err(TryLockError::WouldBlock) => false,
        }
    }

    /// Waits until the function has returned and the process has ended; gives what it returned.
    ///
    /// When this returns, the process has ended and been reaped, after its finalizers unless it
    /// died or was killed.
    ///
    /// # Errors
    ///
    /// [`JoinError`] says why there is no value. Also then the process has ended, but for
    /// [`JoinError::NotParent`], in a fork of the process that started it.
    ///
    /// # Examples
    ///
    /// ```
    /// use epilogue_process::{JoinError, Process};
    ///
    /// let process: Process<u8> = Process::start(7, |code| std::process::exit(code))?;
    /// assert!(matches!(process.join(), Err(JoinError::Exited(7))));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn join(self) -> Result<R, JoinError>
    where
        R: Portable,
    {
        self.wait(None)?;
        self.take()
    }

    /// Like [`Process::join`], with what the process wrote where that was captured; see
    /// [`Builder::stdout`](crate::Builder::stdout).
    ///
    /// # Examples
    ///
    /// ```
    /// use epilogue_process::{Process, Stdio};
    ///
    /// let process = Process::builder().stdout(Stdio::Capture).start((), |()| println!("hello"))?;
    /// assert_eq!(process.join_output().stdout, b"hello\n");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn join_output(self) -> Output<R>
    where
        R: Portable,
    {
        let result = self.wait(None).and_then(|_| self.take());
        let (stdout, stderr) = match result {
            Err(JoinError::NotParent) => (Vec::new(), Vec::new()),
            _ => lock(&self.running).captured(),
        };
        Output { result, stdout, stderr }
    }

    /// Gives what the function returned if the process has ended; never blocks.
    ///
    /// `None` means that it runs. Once the value was given, it is gone.
    ///
    /// # Errors
    ///
    /// As [`Process::join`]; [`JoinError::AlreadyJoined`] after the value was given.
    ///
    /// # Examples
    ///
    /// ```
    /// use epilogue_process::{JoinError, Process};
    ///
    /// let mut process = Process::start(2u64, |x| x + 2)?;
    /// let value = loop {
    ///     if let Some(value) = process.try_join()? {
    ///         break value;
    ///     }
    ///     std::thread::yield_now();
    /// };
    /// assert_eq!(value, 4);
    /// assert!(matches!(process.try_join(), Err(JoinError::AlreadyJoined)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_join(&mut self) -> Result<Option<R>, JoinError>
    where
        R: Portable,
    {
        self.join_timeout(Duration::ZERO)
    }

    /// Waits until the process has ended, or until `timeout` has passed; then `None`.
    ///
    /// # Errors
    ///
    /// As [`Process::try_join`].
    ///
    /// # Examples
    ///
    /// ```
    /// use epilogue_process::Process;
    /// use std::time::Duration;
    ///
    /// let mut process = Process::start(2u64, |x| x * x)?;
    /// assert_eq!(process.join_timeout(Duration::from_secs(60))?, Some(4));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn join_timeout(&mut self, timeout: Duration) -> Result<Option<R>, JoinError>
    where
        R: Portable,
    {
        // A time beyond the clock's end is no limit.
        let ended = match Instant::now().checked_add(timeout) {
            Some(deadline) => self.wait(Some(deadline))?,
            None => self.wait(None)?,
        };
        if ended { self.take().map(Some) } else { Ok(None) }
    }

    /// Stops the process and waits for it: the request, `SIGTERM`, then `SIGKILL`, all within the
    /// grace period.
    ///
    /// The function is abandoned where it is, and the finalizers begin at once. When this
    /// returns, the process has been reaped, and what it returned, if it had, is lost.
    ///
    /// # Errors
    ///
    /// [`StopError::NotParent`] in a fork of the process that started it.
    ///
    /// # Examples
    ///
    /// ```
    /// use epilogue_process::{Process, Rung};
    ///
    /// let process: Process<()> = Process::start((), |()| loop { std::thread::park() })?;
    /// let end = process.terminate()?;
    /// assert_eq!(end.rung, Rung::Stop);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn terminate(self) -> Result<End, StopError> {
        self.end(Running::stop)
    }

    /// Kills the process and waits for it. Its finalizers do not run, and coverage data is lost:
    /// [`Process::terminate`] is for all but emergencies.
    ///
    /// # Errors
    ///
    /// [`StopError::NotParent`] in a fork of the process that started it.
    ///
    /// # Examples
    ///
    /// ```
    /// use epilogue_process::{Process, Rung};
    ///
    /// let process: Process<()> = Process::start((), |()| loop { std::thread::park() })?;
    /// let end = process.kill()?;
    /// assert_eq!((end.rung, end.status.signal()), (Rung::Kill, Some(9)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn kill(self) -> Result<End, StopError> {
        self.end(Running::kill)
    }

    fn end(self, how: fn(&mut Running)) -> Result<End, StopError> {
        if !self.running.is_ours() {
            return Err(StopError::NotParent);
        }
        let mut running = lock(&self.running);
        // What has ended by itself was not brought to its end, and is not to be told as if it had been.
        running.advance();
        how(&mut running);
        running.wait(None);
        running.end().cloned().ok_or(StopError::NotParent)
    }

    /// Lets go of the process: it goes on, its value is thrown away, and a thread reaps it.
    ///
    /// As this program ends, the process is treated like one whose handle was leaked: an exit waits
    /// for it, and a signal that is handled stops it. If the program is killed, the process ends by
    /// itself right after that.
    ///
    /// # Examples
    ///
    /// ```
    /// use epilogue_process::Process;
    ///
    /// Process::start((), |()| println!("whenever this is"))?.detach();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn detach(mut self) {
        // A thread of a fork's would take away what the original is to read.
        if !self.running.is_ours() {
            return;
        }
        let running = Arc::clone(&self.running);
        let thread = thread::Builder::new().name("epilogue-reap".into());
        let reaper = thread.spawn(move || lock(&running).wait(None));
        if reaper.is_err() {
            // Without a thread it is reaped as the program exits, where a hook waits for it.
            std::mem::forget(Arc::clone(&self.running));
        }
        self.waiting = Waiting::Reaper;
    }

    /// Waits until `deadline`; whether the process has ended.
    fn wait(&self, deadline: Option<Instant>) -> Result<bool, JoinError> {
        if !self.running.is_ours() {
            return Err(JoinError::NotParent);
        }
        let mut running = lock(&self.running);
        running.look();
        Ok(running.wait(deadline))
    }

    /// What came of a process that has ended.
    fn take(&self) -> Result<R, JoinError>
    where
        R: Portable,
    {
        let mut running = lock(&self.running);
        if running.was_taken() {
            return Err(JoinError::AlreadyJoined);
        }
        match running.take() {
            Some((Answered::Here(reply), _)) => Ok(only_answer(&reply, &self.limits)?),
            Some((Answered::Alone(reply), _)) => Ok(answer(reply, &self.limits)?),
            Some((Answered::Broken(why), _)) => Err(JoinError::Protocol(why)),
            Some((Answered::Nothing, end)) => Err(JoinError::of_end(&end)),
            None => Err(JoinError::Unknown),
        }
    }
}

/// Which process it is, and none of the bytes that it sent.
impl<R> fmt::Debug for Process<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("Process");
        text.field("id", &self.id).field("name", &self.name).finish_non_exhaustive()
    }
}

impl<R> Drop for Process<R> {
    fn drop(&mut self) {
        if matches!(self.waiting, Waiting::Reaper) || !self.running.is_ours() {
            return;
        }
        let mut running = lock(&self.running);
        if !running.has_ended() {
            if thread::panicking() {
                running.stop();
            }
            running.wait(None);
        }
    }
}

impl<R> Sealed for Process<R> {
    fn handle(&self) -> Handle<'_> {
        Handle(&self.running)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use nix::sys::wait::{Id, WaitPidFlag, waitid};
    use nix::unistd::Pid;

    use super::*;
    use crate::channel;
    use crate::sys::copy::ends_well_in_a_copy;
    use crate::wait_any;

    #[test]
    fn a_copy_that_is_made_while_another_thread_has_a_process_is_not_its_parent_and_waits_for_nothing()
     {
        let ways: [fn(Process<()>); 7] = [
            drop,
            |process| assert!(matches!(process.join(), Err(JoinError::NotParent))),
            |process| assert!(matches!(process.kill(), Err(StopError::NotParent))),
            |process| assert_eq!(wait_any(&[&process]), Some(0)),
            |process| assert!(!process.is_finished()),
            Process::detach,
            |process| {
                let polled = pin!(process).poll(&mut Context::from_waker(Waker::noop()));
                assert!(matches!(polled, Poll::Ready(Err(JoinError::NotParent))));
            },
        ];
        for way in ways {
            let parked = |()| loop {
                thread::park()
            };
            let mut process = Some(Process::start((), parked).unwrap());
            let running = process.as_ref().map(|process| Arc::clone(&process.running)).unwrap();
            let mut held = lock(&running);
            // By reference: the original's is let go of below.
            let ended = ends_well_in_a_copy(|| process.take().into_iter().for_each(way));
            held.kill();
            held.wait(None);
            drop(held);
            assert!(ended);
        }
    }

    #[test]
    fn a_copy_knows_what_has_ended_before_it_and_reads_nothing_that_the_original_is_to_read() {
        let process = Process::start((), |()| ()).unwrap();
        while !process.is_finished() {
            thread::yield_now();
        }
        assert!(ends_well_in_a_copy(|| assert!(process.is_finished())));
        process.join().unwrap();

        let (sender, receiver) = channel::<u64>().unwrap();
        let (told, may_end) = channel::<()>().unwrap();
        let process = Process::start((sender, may_end), |(sender, may_end)| {
            may_end.recv().unwrap();
            sender.send(7).unwrap();
        });
        let process = process.unwrap();
        // The start would reap one that has ended by the time that it is seen to be up.
        told.send(()).unwrap();
        // Its message is there, and nobody here has looked.
        let id = Id::Pid(Pid::from_raw(process.id() as i32));
        waitid(id, WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).unwrap();
        assert!(ends_well_in_a_copy(|| assert!(!process.is_finished())));
        assert_eq!(receiver.recv().unwrap(), 7);
        process.join().unwrap();
    }
}
