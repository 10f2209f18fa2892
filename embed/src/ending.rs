//! For libraries built on this crate: hooks that are told why the process ends, and the ways out
//! that a worker takes when its parent asks.
//!
//! Programs rarely need these; [`finalizer`](crate::finalizer()) and
//! [`cleanup_on_signal`](crate::cleanup_on_signal) are their doors.

use std::borrow::Cow;
use std::ffi::{OsString, c_int};
use std::time::Duration;

use crate::finalizer::{self, Finalizer};
use crate::registry::{Kind, Reach};
use crate::report::FinalizerEnd;
use crate::state::state;
use crate::sys::action;
use crate::{coverage, exit, signals, stop};

pub use crate::attendant::Attendant;
pub use crate::stop::StopReason;

/// Why a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// It returned from `main` or called `exit`.
    Exit,
    /// It called [`cleanup`](crate::cleanup()), [`exit`](crate::exit()), [`exit_now`](crate::exit_now()) or
    /// [`exec`](crate::exec()).
    Cleanup,
    /// A handled signal of this number arrived.
    Signal(c_int),
    /// Its parent asked, or is gone.
    Parent,
}

/// The ending that a hook runs in.
#[derive(Debug, Clone, Copy)]
pub struct Ending {
    cause: Cause,
    reach: Reach,
}

impl Ending {
    pub(crate) fn new(cause: Cause, reach: Reach) -> Self {
        Self { cause, reach }
    }

    /// Why the process ends.
    pub fn cause(&self) -> Cause {
        self.cause
    }

    /// Whether this program may go on after it: it called [`cleanup`](crate::cleanup()); or
    /// [`exec`](crate::exec()), which may fail; or the signal does not end it, since it had a handler before
    /// this crate's, or its default action is not to end a process.
    ///
    /// # Examples
    ///
    /// ```
    /// use epilogue_embed::{self as embed, ending};
    /// ending::register("keep what is needed again", |ending| assert!(ending.may_go_on()));
    /// assert!(embed::cleanup().is_complete());
    /// ```
    pub fn may_go_on(&self) -> bool {
        self.reach != Reach::All
    }

    /// Whether the thread of that number (the kernel's) waits for this ending: it is the one that ends the
    /// process, or has called [`exit`](crate::exit()) or the standard library's while another one does. It
    /// never goes on, so a hook that waited for it, as by a join, would wait for ever.
    ///
    /// Of the standard library's it is known by what the kernel says that it sleeps in, on Linux with x86_64 or
    /// aarch64.
    ///
    /// # Examples
    ///
    /// ```
    /// use epilogue_embed::{self as embed, ending};
    /// ending::register("join the others", |ending| {
    ///     // This one: its number is the process's in the main thread of a program.
    ///     let exits = std::thread::spawn(std::process::id).join().unwrap_or(0) as i32;
    ///     println!("the main thread waits for this: {}", ending.is_awaited_by(exits));
    /// });
    /// assert!(embed::cleanup().is_complete());
    /// ```
    pub fn is_awaited_by(&self, thread: libc::pid_t) -> bool {
        state().gate.is_left_by(thread) || action::is_paused(thread)
    }

    /// How much time all that is left to run has together; `None` where there is no deadline.
    pub fn remaining(&self) -> Option<Duration> {
        remaining()
    }

    /// Asks those that [can be asked](register_asked) and run next, up to the first that is a
    /// finalizer, each once. For a hook that is about to wait: theirs end meanwhile. While a finalizer runs
    /// nobody is asked, for it may need them, unless the deadline has left that behind.
    ///
    /// # Examples
    ///
    /// ```
    /// use epilogue_embed::{self as embed, ending};
    /// let (told, asked) = std::sync::mpsc::channel();
    /// ending::register_asked("a", move |_| told.send(()).unwrap(), |_| ());
    /// ending::register("b", move |ending| {
    ///     ending.ask_next();
    ///     assert!(asked.try_recv().is_ok());
    /// });
    /// assert!(embed::cleanup().is_complete());
    /// ```
    pub fn ask_next(&self) {
        state().registry.ask_next(self);
    }
}

/// Like [`finalizer`](crate::finalizer()), on the same list, but the closure is told why the
/// process ends.
///
/// Where the program exits by itself ([`Cause::Exit`]) it runs outside the deadline, which stands
/// still meanwhile: a pool finishes its queue, however long that takes. In every other ending it
/// counts like all finalizers.
///
/// # Examples
///
/// ```
/// use epilogue_embed::{self as embed, ending::{self, Cause}};
/// ending::register("close the pool", |ending| assert_eq!(ending.cause(), Cause::Cleanup));
/// assert!(embed::cleanup().is_complete());
/// ```
pub fn register(
    name: impl Into<Cow<'static, str>>,
    work: impl FnOnce(&Ending) + Send + 'static,
) -> Finalizer {
    finalizer::add(name.into(), Kind::Hook, None, Box::new(work))
}

/// Like [`register`], for what takes time to end: one that runs before it may [ask](Ending::ask_next) it
/// to begin, and `ask` is called then, at most once. It must not wait; `work` does that in its turn,
/// whether it was asked or not.
///
/// # Examples
///
/// ```
/// use epilogue_embed::{self as embed, ending};
/// // Nobody runs before it who would ask.
/// ending::register_asked("end it", |_| unreachable!(), |_| ());
/// assert!(embed::cleanup().is_complete());
/// ```
pub fn register_asked(
    name: impl Into<Cow<'static, str>>,
    ask: impl FnOnce(&Ending) + Send + 'static,
    work: impl FnOnce(&Ending) + Send + 'static,
) -> Finalizer {
    finalizer::add(name.into(), Kind::Hook, Some(Box::new(ask)), Box::new(work))
}

/// Like [`register`], but runs after all that others have registered by then, and only in an ending after
/// which this program does not go on: not in a [`cleanup`](crate::cleanup()), nor for a signal that was
/// handled before. An [`exec`](crate::exec()) that fails comes after it.
///
/// # Examples
///
/// ```
/// use epilogue_embed::{self as embed, ending};
/// ending::register_last("say goodbye", |_| ());
/// embed::finalizer("save", || {});
/// let ran = embed::cleanup();
/// assert_eq!((ran.finalizers().len(), ran.finalizers()[0].name()), (1, "save"));
/// ```
pub fn register_last(
    name: impl Into<Cow<'static, str>>,
    work: impl FnOnce(&Ending) + Send + 'static,
) -> Finalizer {
    finalizer::add(name.into(), Kind::Last, None, Box::new(work))
}

/// The ends of the finalizers that have run in this process so far, in the order they ran: of more than a
/// thousand, the last thousand.
///
/// # Examples
///
/// ```
/// use epilogue_embed::{self as embed, ending};
/// embed::finalizer("say goodbye", || assert_eq!(ending::finished()[0].name(), "save"));
/// embed::finalizer("save", || {});
/// assert!(embed::cleanup().is_complete());
/// ```
pub fn finished() -> Vec<FinalizerEnd> {
    state().registry.ended()
}

/// Makes [`stop_requested`](crate::stop_requested) true and calls the
/// [`on_stop`](crate::on_stop) callbacks on this thread, if nobody has asked before. What takes all
/// the time it needs as the process exits by itself goes by the deadline from now on.
///
/// # Examples
///
/// ```
/// use epilogue_embed::{self as embed, ending::{self, StopReason}};
/// ending::request_stop(StopReason::Parent);
/// assert!(embed::stop_requested());
/// ```
pub fn request_stop(reason: StopReason) {
    let state = state();
    if !state.gate.is_open() {
        // Before the callbacks, which look at the clock.
        state.deadline.hurry();
    }
    signals::letting_in_faults(|| stop::request(reason));
}

/// Cleans up and exits with `code`, from any thread while the others go on.
///
/// Two threads never both end a process: where another is on its way out, this one waits until the
/// process is gone, so `code` is the first caller's. A finalizer that calls this ends there, as if
/// it had returned; with `panic = "abort"` it cannot, see [Limits](crate#limits).
///
/// # Examples
///
/// ```no_run
/// use epilogue_embed::ending::{self, Cause};
/// ending::leave(0, Cause::Parent);
/// ```
pub fn leave(code: c_int, cause: Cause) -> ! {
    exit::leave(code, cause)
}

/// As [`leave`], but the finalizers run on this thread instead of one of their own, which saves its
/// start. For a thread of a library's that has nothing of the program's on its stack: a finalizer
/// finds no lock taken and no thread-local borrowed.
///
/// # Examples
///
/// ```no_run
/// use epilogue_embed::ending::{self, Cause};
/// ending::leave_here(0, Cause::Exit);
/// ```
pub fn leave_here(code: c_int, cause: Cause) -> ! {
    exit::leave_here(code, cause)
}

/// Promises that a thread will [`wait`](Attendant::wait) for as long as this process goes on, and
/// stand in for embed's own, which is started when a signal has come and not before.
///
/// To be called before the first signal is handled: later there is a thread already, and the
/// attendant only waits.
///
/// # Examples
///
/// ```
/// use epilogue_embed::{self as embed, ending};
/// use std::os::fd::AsFd;
/// use std::time::Duration;
///
/// let mut attendant = ending::attendant();
/// embed::cleanup_on_sigterm()?;
/// let (readable, _writer) = std::io::pipe().unwrap();
/// let waited = attendant.wait([readable.as_fd()], Some(Duration::ZERO)).unwrap();
/// assert_eq!(waited, [false]);
/// # Ok::<(), embed::SignalError>(())
/// ```
pub fn attendant() -> Attendant {
    Attendant::new()
}

/// Leaves the finalizers of the current and of every later ending no more than `time` from now.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// epilogue_embed::ending::set_deadline_at_most(Duration::from_secs(60));
/// ```
pub fn set_deadline_at_most(time: Duration) {
    state().deadline.at_most(time);
}

/// Has the kernel kill this process if no ending begins within `patience` and as much time as the
/// finalizers have, whatever keeps it from that. The ending's own clock replaces this one; one that runs
/// already is left alone.
///
/// # Examples
///
/// ```no_run
/// use std::time::Duration;
/// use epilogue_embed::ending::{self, Cause};
/// ending::expect_within(Duration::from_secs(1));
/// // What may wait for a lock that nobody gives back.
/// ending::leave(0, Cause::Parent);
/// ```
pub fn expect_within(patience: Duration) {
    state().deadline.start_before(patience);
}

/// How much time is left until the deadline of the ending that goes on, or [is expected](expect_within).
/// `None` where there is neither, and while the clock stands still.
///
/// # Examples
///
/// ```
/// use epilogue_embed::ending;
/// assert_eq!(ending::remaining(), None);
/// ```
pub fn remaining() -> Option<Duration> {
    state().deadline.remaining()
}

/// How long the finalizers of an ending that begins now have together. If that is nothing, each is
/// skipped.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use epilogue_embed::ending;
/// epilogue_embed::set_deadline(Duration::from_secs(60));
/// ending::set_deadline_at_most(Duration::from_secs(5));
/// assert!(ending::granted() <= Duration::from_secs(5));
/// ```
pub fn granted() -> Duration {
    state().deadline.granted()
}

/// What `LLVM_PROFILE_FILE` is to be in a process that this one starts, where it is `value` here.
///
/// A relative name stays what it was in the directory at the first call into this crate. A name
/// that the processes would share gets the pid of each: the coverage runtime appends without a lock.
/// In a build without coverage, and in continuous mode (`%c`), it is `value`.
///
/// # Examples
///
/// ```
/// use epilogue_embed::ending::coverage_file_of_child;
/// assert_eq!(coverage_file_of_child("/tmp/app-%p.profraw".into()), "/tmp/app-%p.profraw");
/// ```
pub fn coverage_file_of_child(value: OsString) -> OsString {
    coverage::file_of_child(value)
}
