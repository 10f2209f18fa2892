//! The signals that end this process well.
//!
//! The handler saves the coverage data and leaves the rest to embed's thread. What it may do is
//! little: `HANDLER.md` lists every call.
//!
//! # Invariants
//! 1. A signal is handled from the first call for it until the process ends, in copies too.
//! 2. A previous handler is called once for each signal that we were given, after the finalizers.
//! 3. What was ignored stays ignored.

use std::ffi::c_int;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};

use nix::errno::Errno;

use crate::coverage;
use crate::error::SignalError;
use crate::exit;
use crate::served::{self, Default};
use crate::state::{lock, state};
use crate::stop;
use crate::sys::action::{self, Delivery, Previous, SIGNALS, Stack};
use crate::sys::inbox::Inbox;
use crate::sys::mask::{self, AllBlocked, Mask};
use crate::sys::per_process::PerProcess;
use crate::sys::thread::Thread;

/// The signals that have our handler. A copy made by `fork` has the same.
static HANDLED: [AtomicBool; SIGNALS] = [const { AtomicBool::new(false) }; SIGNALS];

static DESK: PerProcess<Desk> = PerProcess::new();

/// Where handlers leave signals, and whether somebody collects them.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) inbox: Inbox,
    is_served: AtomicBool,
    interrupts: AtomicU32,
    /// The thread that stands in for ours, or zero. Its number and what a handler leaves are
    /// written and read in one order by all: see `attendant`.
    attendant: AtomicI32,
    /// The first signal that is to end in death, or zero: an exit under way must end in it, too.
    death: AtomicI32,
    install: Mutex<()>,
}

impl Desk {
    fn new() -> Self {
        let inbox = Inbox::new();
        // In a copy made by `fork`: its original's handlers are there.
        (1..).take(SIGNALS - 1).filter(|signal| is_handled(*signal)).for_each(|signal| {
            inbox.prepare(signal);
        });
        Self {
            inbox,
            is_served: AtomicBool::new(false),
            interrupts: AtomicU32::new(0),
            attendant: AtomicI32::new(0),
            death: AtomicI32::new(0),
            install: Mutex::new(()),
        }
    }

    /// Has a thread that will call [`Desk::attend`] stand in for ours, which is not started. None
    /// where that runs already.
    pub(crate) fn promise_attendant() -> Option<&'static Self> {
        let desk = DESK.get_or_init(Self::new);
        (!desk.is_served.swap(true, Ordering::AcqRel)).then_some(desk)
    }

    /// Takes notice of the attendant, and starts embed's thread if a signal has come: then the
    /// attendant's work is done.
    pub(crate) fn attend(&'static self, thread: libc::pid_t) -> bool {
        if self.attendant.load(Ordering::Relaxed) != thread {
            self.attendant.store(thread, Ordering::SeqCst);
        }
        if !self.inbox.has_any() {
            return false;
        }
        // The attendant's own mask, which lets in none, says nothing of the program's.
        if self.start_thread(Some(Mask::none())).is_err() {
            // No more threads: then here.
            served::serve_all(self, state());
            return false;
        }
        self.attendant.store(0, Ordering::SeqCst);
        true
    }

    /// Whether this thread is the attendant.
    fn is_attended_here(&self) -> bool {
        self.attendant.load(Ordering::Relaxed) == action::this_thread()
    }

    /// Has the attendant look, if there is one. Async-signal-safe.
    fn call_attendant(&self) {
        let thread = self.attendant.load(Ordering::SeqCst);
        if thread != 0 && thread != action::this_thread() {
            action::interrupt(thread);
        }
    }

    /// The mask of the `program` is this thread's, if no other one is.
    fn start_thread(&'static self, program: Option<Mask>) -> io::Result<()> {
        // It must not get a signal that the program wants on its own threads.
        let blocked = AllBlocked::new();
        let program = program.unwrap_or_else(|| blocked.before());
        Thread::start(c"epilogue-embed", (self, state(), program), |(desk, state, program)| {
            served::collect(desk, state, *program)
        })
        .map(drop)
    }

    /// The next `SIGINT` is the first again.
    pub(crate) fn forget_interrupts(&self) {
        self.interrupts.store(0, Ordering::Relaxed);
    }
}

/// Ends this process well on `SIGTERM`: [`cleanup_on_signal`] for the usual request to stop.
///
/// # Errors
///
/// As for [`cleanup_on_signal`].
///
/// # Examples
///
/// ```
/// epilogue_embed::cleanup_on_sigterm()?;
/// # Ok::<(), epilogue_embed::SignalError>(())
/// ```
pub fn cleanup_on_sigterm() -> Result<(), SignalError> {
    cleanup_on_signal(libc::SIGTERM)
}

/// From now on, when `signal` arrives, the coverage data is saved and the finalizers run; then the
/// signal does what it did before.
///
/// That is: the handler that was installed before is called once, on the thread that got the
/// signal; else the default action follows, so that the wait status shows the signal, even if the
/// program exits by itself meanwhile. A signal that is ignored stays ignored. A handler that the
/// program installs *later* replaces this one, as ctrlc's does, or calls it before its own work, as
/// those of signal-hook and tokio do; call [`cleanup`](crate::cleanup) there, or install it first.
///
/// On `SIGABRT`, `SIGSEGV`, `SIGBUS`, `SIGILL`, `SIGFPE`, `SIGTRAP` and `SIGSYS` only the coverage
/// data is saved, as for [`cleanup_on_crash`]: the program's memory is not to be trusted.
///
/// The signal may arrive as soon as this is called, even where the calling thread blocks it:
/// embed's thread lets it in. So register first what must run.
///
/// From any thread, any number of times. The first call starts embed's thread; the handler stays
/// until the process ends, so a library that calls this must not be unloaded.
///
/// # Errors
///
/// [`SignalError`] for a signal that cannot be caught or does not exist, or if the thread cannot be started,
/// or the kernel refuses the handler.
///
/// # Examples
///
/// ```
/// use epilogue_embed::{self as embed, signal::{SIGHUP, SIGKILL}};
/// embed::cleanup_on_signal(SIGHUP)?;
/// assert!(embed::cleanup_on_signal(SIGKILL).is_err());
/// # Ok::<(), embed::SignalError>(())
/// ```
pub fn cleanup_on_signal(signal: c_int) -> Result<(), SignalError> {
    check(signal)?;
    exit::hook();
    match is_crash(signal) {
        true => handle(signal, on_crash, Stack::Apart),
        false => {
            serve().map_err(SignalError::Thread)?;
            handle(signal, on_request, Stack::Own)
        }
    }
}

/// From now on, a crash (`SIGABRT`, `SIGSEGV`, `SIGBUS`, `SIGILL`, `SIGFPE`) saves the coverage
/// data, and then happens as it would have: no finalizer runs, for memory is not to be trusted.
///
/// Previous handlers are called, so Rust's own message on a stack overflow appears. One that
/// recovers must return: if it jumps out of the handler (`siglongjmp`), no later `abort` is measured.
///
/// # Errors
///
/// [`SignalError::Install`] if the kernel refuses a handler.
///
/// # Examples
///
/// ```
/// epilogue_embed::cleanup_on_crash()?;
/// # Ok::<(), epilogue_embed::SignalError>(())
/// ```
pub fn cleanup_on_crash() -> Result<(), SignalError> {
    [libc::SIGABRT, libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE]
        .into_iter()
        .try_for_each(cleanup_on_signal)
}

/// Whether a second `SIGINT` asks to skip the finalizers that are left.
pub(crate) fn is_in_a_hurry() -> bool {
    DESK.get().is_some_and(|desk| desk.interrupts.load(Ordering::Relaxed) > 1)
}

/// Lets in the handled signals on a thread of ours, and no others.
pub(crate) fn let_in_handled() {
    mask::let_in_only(is_handled);
}

/// Lets in the handled signals, too, if this thread is the attendant, which waits no more.
pub(crate) fn let_in_if_attendant() {
    if DESK.get().is_some_and(Desk::is_attended_here) {
        mask::let_in(is_handled);
    }
}

/// Lets in the faults that the program may recover from, for its code on a thread that blocks what it likes.
pub(crate) fn let_in_faults() {
    mask::let_in(may_recover);
}

/// Runs `work`, which is the program's, with the faults let in that the program may recover from.
pub(crate) fn letting_in_faults<R>(work: impl FnOnce() -> R) -> R {
    mask::letting_in(may_recover, work)
}

/// The signal that a normal exit must end in, if one arrived when the exit was under way.
pub(crate) fn deferred_death() -> Option<c_int> {
    let death = DESK.get()?.death.load(Ordering::Acquire);
    (death != 0).then_some(death)
}

/// Has embed's thread in a process that has handlers: a copy made by `fork` starts with none.
pub(crate) fn serve_if_handling() {
    if handles_any() {
        // Without the thread the handler still saves the data and ends the process.
        let _ = serve();
    }
}

/// Whether this process has handlers of ours.
pub(crate) fn handles_any() -> bool {
    HANDLED.iter().any(|handled| handled.load(Ordering::Relaxed))
}

pub(crate) fn is_handled(signal: c_int) -> bool {
    let place = usize::try_from(signal).ok().and_then(|signal| HANDLED.get(signal));
    place.is_some_and(|handled| handled.load(Ordering::SeqCst))
}

fn is_crash(signal: c_int) -> bool {
    let memory = [libc::SIGABRT, libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE];
    memory.contains(&signal) || [libc::SIGTRAP, libc::SIGSYS].contains(&signal)
}

/// Whether it tells of what the thread itself has done, and there is a handler: where it is blocked the kernel
/// ends the process all the same. Without a handler it does so anyway, and another thread may wait for one that
/// somebody sends. `abort` lets its own in.
fn may_recover(signal: c_int) -> bool {
    is_crash(signal) && signal != libc::SIGABRT && action::has_handler(signal)
}

fn check(signal: c_int) -> Result<(), SignalError> {
    match signal {
        libc::SIGKILL | libc::SIGSTOP => Err(SignalError::Uncatchable(signal)),
        // It would be taken for a request to end where a thread of ours is interrupted by it.
        action::INTERRUPTION => Err(SignalError::NoSuchSignal(signal)),
        1..32 => Ok(()),
        _ if (libc::SIGRTMIN()..=libc::SIGRTMAX()).contains(&signal) => Ok(()),
        _ => Err(SignalError::NoSuchSignal(signal)),
    }
}

fn handle(signal: c_int, entry: fn(&Delivery), stack: Stack) -> Result<(), SignalError> {
    let desk = DESK.get_or_init(Desk::new);
    let _one_at_a_time = lock(&desk.install);
    if is_handled(signal) {
        return Ok(());
    }
    desk.inbox.prepare(signal);
    let refused = |source| SignalError::Install { signal, source };
    if action::install(signal, entry, stack).map_err(refused)? != Previous::Ignored
        && let Some(handled) = usize::try_from(signal).ok().and_then(|place| HANDLED.get(place))
    {
        // SeqCst: an attendant that is not called, for it had no number yet, sees this as it waits.
        handled.store(true, Ordering::SeqCst);
        // The thread lets the new signal in.
        desk.inbox.nudge();
        desk.call_attendant();
    }
    Ok(())
}

/// Starts embed's thread, once in each process.
fn serve() -> io::Result<()> {
    let desk = DESK.get_or_init(Desk::new);
    // Whoever finds it served is not told that the thread could not be started: one at a time tries.
    let _one_at_a_time = lock(&desk.install);
    if desk.is_served.swap(true, Ordering::AcqRel) {
        return Ok(());
    }
    desk.start_thread(None).inspect_err(|_| desk.is_served.store(false, Ordering::Release))
}

/// The handler of a signal that asks this process to end. Async-signal-safe.
fn on_request(delivery: &Delivery) {
    let errno = Errno::last_raw();
    stop::mark_requested();
    let desk = DESK.get().filter(|desk| desk.is_served.load(Ordering::Acquire));
    match desk.and_then(|desk| desk.inbox.redeem(delivery)) {
        Some(first) => first.call_previous(),
        None => match desk {
            Some(desk) => leave_at(desk, delivery),
            None => save_and_carry_out(delivery),
        },
    }
    Errno::set_raw(errno);
}

fn leave_at(desk: &Desk, delivery: &Delivery) {
    if delivery.signal == libc::SIGINT {
        desk.interrupts.fetch_add(1, Ordering::Relaxed);
    }
    if served::is_deadly(delivery.signal) {
        // In the handler, not on the thread: an exit on another must not slip through between.
        let order = (Ordering::AcqRel, Ordering::Relaxed);
        let _ = desk.death.compare_exchange(0, delivery.signal, order.0, order.1);
    }
    // Nothing is saved for a signal that is one with another, which its ending is to save for: they may
    // come faster than a save, and would keep every thread in its handler, the one that ends us, too.
    if !desk.inbox.put(delivery, coverage::save_in_handler) {
        // A copy that was made as its original installed the handler, and knows nothing of it.
        return save_and_carry_out(delivery);
    }
    desk.call_attendant();
}

/// The handler of a crash. Async-signal-safe.
fn on_crash(delivery: &Delivery) {
    let errno = Errno::last_raw();
    coverage::save_in_handler();
    if is_handled(libc::SIGABRT) && delivery.signal != libc::SIGABRT {
        // Rust's own handler ends in `abort`. The data is saved; a second handler of ours on the
        // small stack for signals would overflow that, too.
        action::without_ours(libc::SIGABRT, || carry_out(delivery));
    } else {
        carry_out(delivery);
    }
    Errno::set_raw(errno);
}

fn save_and_carry_out(delivery: &Delivery) {
    coverage::save_in_handler();
    carry_out(delivery);
}

/// Does what the signal did before us, in its handler.
fn carry_out(delivery: &Delivery) {
    match action::previous(delivery.signal) {
        Previous::Handler => delivery.call_previous(),
        Previous::Default | Previous::Ignored => match served::default_of(delivery.signal) {
            Default::Death => {
                // Another thread may be saving, in a handler of its own.
                coverage::conclude();
                delivery.default_follows();
            }
            // Ours stays for the next one.
            Default::Stop => action::stop_by(delivery.signal),
            Default::Nothing => {}
        },
    }
}
