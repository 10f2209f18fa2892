//! One function in a process of its own.

use std::marker::PhantomData;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use epilogue_embed::Finalizer;
use epilogue_embed::ending::{self, Cause, Ending};
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::Signal;
use nix::sys::socket::{MsgFlags, recv};
use std::os::fd::AsRawFd;

use crate::child::{Child, Event, Spec, Ties, Work, timeout};
use crate::codec::Limits;
use crate::end::End;
use crate::entry::{Entry, answer, ask};
use crate::error::{JoinError, StartError, StopError};
use crate::link::{Link, Order};
use crate::portable::Portable;
use crate::status::ExitStatus;
use crate::sys::pidfd::{self, Wait};

/// One function in a process of its own, and the handle to wait for it.
///
/// # Shutdown
///
/// Dropping the handle joins: it waits until the function has returned and the process has run
/// its finalizers and ended. While a panic unwinds, dropping stops it instead, within the grace
/// period. A handle that is leaked, or lives in a static, is joined as this program exits.
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
#[derive(Debug)]
#[must_use = "dropping a process waits for it"]
pub struct Process<R> {
    running: Running,
    limits: Limits,
    result: PhantomData<fn() -> R>,
}

impl<R> Process<R> {
    /// Starts a process that calls `f` with `argument`.
    ///
    /// When this returns, the process is up and has its argument. What travels is the function,
    /// not a closure's captures: pass what it needs as `argument`.
    ///
    /// # Errors
    ///
    /// [`StartError`]; then nothing of the process is left.
    pub fn start<T>(argument: T, f: fn(T) -> R) -> Result<Self, StartError>
    where
        T: Portable,
        R: Portable,
    {
        Process::builder().start(argument, f)
    }

    pub(crate) fn start_with<T>(
        spec: &Spec,
        argument: &T,
        f: fn(T) -> R,
    ) -> Result<Self, StartError>
    where
        T: Portable,
        R: Portable,
    {
        let mut call = Vec::new();
        Entry::plain(f)?.write(&mut call);
        ask(argument, &mut call, &spec.limits)?;
        let running = Running::start(spec, call)?;
        Ok(Self { running, limits: spec.limits.clone(), result: PhantomData })
    }

    /// Its process id. Once it has ended and been joined, the number may mean another process.
    pub fn id(&self) -> u32 {
        self.running.child.id()
    }

    /// The name that it was started with.
    pub fn name(&self) -> &str {
        self.running.child.name()
    }

    /// Waits until the function has returned and the process has ended; gives what it returned.
    ///
    /// When this returns, the process has run its finalizers and been reaped.
    ///
    /// # Errors
    ///
    /// [`JoinError`] says why there is no value; also then the process has ended.
    pub fn join(mut self) -> Result<R, JoinError>
    where
        R: Portable,
    {
        if !self.running.is_ours() {
            return Err(JoinError::NotParent);
        }
        let (answered, end) = self.running.wait();
        match answered {
            Answered::Reply(reply) => Ok(answer(&reply, &self.limits)?),
            Answered::Broken(why) => Err(JoinError::Protocol(why)),
            Answered::Nothing => Err(end.status.into()),
        }
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
    pub fn terminate(mut self) -> Result<End, StopError> {
        if !self.running.is_ours() {
            return Err(StopError::NotParent);
        }
        self.running.child.stop(None, Work::Abandon);
        Ok(self.running.wait().1)
    }
}

/// What came of the one call.
#[derive(Debug)]
enum Answered {
    Nothing,
    Reply(Vec<u8>),
    Broken(String),
}

/// A child with its one call, without the type of its result.
#[derive(Debug)]
struct Running {
    child: Child,
    at_exit: Option<Finalizer>,
    owner: u32,
    ended: bool,
}

impl Running {
    fn start(spec: &Spec, call: Vec<u8>) -> Result<Self, StartError> {
        let mut child = Child::start(spec, serve_one)?;
        child.wire().call(0, &call);
        child.finish();
        child.wait_until_up()?;
        let ties = Arc::clone(child.ties());
        let name = format!("epilogue: join process {}", child.name());
        let at_exit = ending::register(name, move |ending| end_with_program(&ties, ending));
        Ok(Self { child, at_exit: Some(at_exit), owner: std::process::id(), ended: false })
    }

    /// Whether this process started it, rather than a fork of that.
    fn is_ours(&self) -> bool {
        self.owner == std::process::id()
    }

    /// Waits until the child has ended.
    fn wait(&mut self) -> (Answered, End) {
        let mut answered = Answered::Nothing;
        loop {
            match self.child.wait_event(None) {
                Some(Event::Reply { payload, .. }) => {
                    answered = Answered::Reply(payload);
                    self.child.drained();
                }
                Some(Event::Broken(error)) => answered = Answered::Broken(error.to_string()),
                Some(Event::Hello | Event::Refused(_)) => {}
                Some(Event::Ended(_)) | None => break,
            }
        }
        self.ended = true;
        if let Some(at_exit) = self.at_exit.take() {
            at_exit.cancel();
        }
        (answered, self.child.end())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // In a fork the child is the business of the process that started it.
        if self.ended || !self.is_ours() {
            return;
        }
        if thread::panicking() {
            self.child.stop(None, Work::Abandon);
        }
        self.wait();
    }
}

/// The main function of such a child: one call, one answer.
fn serve_one(link: Link) {
    while let Some(order) = link.next() {
        let Order::Call(call) = order else { continue };
        if !link.claim(&call) {
            continue;
        }
        link.reply(&call, |reply| match Entry::read(&call.payload) {
            Some((entry, argument)) => entry.run(argument, None, link.limits(), reply),
            None => Entry::reject(reply),
        });
    }
}

/// Joins a child whose handle nobody will drop any more: it was leaked, or is in a static.
///
/// A program that exits grants it all the time it needs; one that is ended by a signal stops it
/// within what is left of its own time.
fn end_with_program(ties: &Ties, ending: &Ending) {
    match ending.cause() {
        Cause::Exit => drain_until_end(ties, None),
        // A signal, `cleanup`, or our own parent's request: time is short.
        _ => {
            let begin = Instant::now();
            let kill_at = ending.remaining().map(|left| begin + left * 4 / 5);
            let signal = |signal: Signal| pidfd::send_signal(ties.pidfd.as_fd(), signal as i32);
            // One that has ended already needs no signal.
            let _ = signal(Signal::SIGTERM);
            let _ = signal(Signal::SIGCONT);
            drain_until_end(ties, kill_at);
            let _ = signal(Signal::SIGKILL);
        }
    }
    let _ = pidfd::wait(ties.pidfd.as_fd(), Wait::Block);
}

/// Waits for the child's end or for `until`, and throws away what it writes: nobody reads it any
/// more, and a child whose reply does not fit the socket's buffer would never end.
fn drain_until_end(ties: &Ties, until: Option<Instant>) {
    let mut room = vec![0; 64 * 1024];
    let mut open = true;
    while until.is_none_or(|until| Instant::now() < until) {
        let mut fds = vec![PollFd::new(ties.pidfd.as_fd(), PollFlags::POLLIN)];
        if open {
            fds.push(PollFd::new(ties.stream.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut fds, timeout(until)) {
            Ok(_) if fds[0].any().unwrap_or(true) => return,
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(_) => return,
        }
        let read = recv(ties.stream.as_raw_fd(), &mut room, MsgFlags::MSG_DONTWAIT);
        open = open && !matches!(read, Ok(0) | Err(nix::errno::Errno::ECONNRESET));
    }
}

impl From<&End> for ExitStatus {
    fn from(end: &End) -> Self {
        end.status
    }
}
