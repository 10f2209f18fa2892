//! Which signals a thread lets in.

use std::ffi::c_int;
use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::time::Duration;

/// Blocks every signal in this thread for as long as it lives.
#[derive(Debug)]
pub(crate) struct AllBlocked {
    before: libc::sigset_t,
    /// A mask belongs to a thread, and so does the guard.
    _thread: std::marker::PhantomData<*const ()>,
}

impl AllBlocked {
    pub(crate) fn new() -> Self {
        let before = set_mask(libc::SIG_SETMASK, &full());
        Self { before, _thread: std::marker::PhantomData }
    }

    /// The mask that the thread had.
    pub(crate) fn before(&self) -> Mask {
        Mask(self.before)
    }
}

/// A mask, which another thread can take over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mask(libc::sigset_t);

impl Mask {
    /// One that lets every signal in.
    pub(crate) fn none() -> Self {
        Self(none())
    }

    /// Gives this thread the mask, with those let in that `wanted` names, and returns the one before.
    pub(crate) fn take_over(self, wanted: impl Fn(c_int) -> bool) -> Self {
        Self(set_mask(libc::SIG_SETMASK, &without(self.0, wanted)))
    }
}

impl Drop for AllBlocked {
    fn drop(&mut self) {
        set_mask(libc::SIG_SETMASK, &self.before);
    }
}

/// Blocks every signal in this thread but those that `wanted` names.
pub(crate) fn let_in_only(wanted: impl Fn(c_int) -> bool) {
    set_mask(libc::SIG_SETMASK, &all_but(wanted));
}

fn all_but(wanted: impl Fn(c_int) -> bool) -> libc::sigset_t {
    without(full(), wanted)
}

fn without(mut set: libc::sigset_t, wanted: impl Fn(c_int) -> bool) -> libc::sigset_t {
    for signal in (1..=libc::SIGRTMAX()).filter(|signal| wanted(*signal)) {
        // SAFETY: an initialized set; an unknown number is an error without effect.
        unsafe { libc::sigdelset(&mut set, signal) };
    }
    set
}

/// Waits until a descriptor is readable or at its end, or `timeout` is over, and tells which are:
/// none after a signal. Those that `wanted` names, and no others, are let in during the wait.
pub(crate) fn wait_letting_in<const N: usize>(
    descriptors: [c_int; N],
    timeout: Option<Duration>,
    wanted: impl Fn(c_int) -> bool,
) -> io::Result<[bool; N]> {
    let mut polled = descriptors.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
    let timeout = timeout.map(|left| libc::timespec {
        tv_sec: libc::time_t::try_from(left.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: left.subsec_nanos().into(),
    });
    let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
    let (places, mask) = (polled.as_mut_ptr(), all_but(wanted));
    // SAFETY: `polled` has N places; the time, which may be null, and the mask live through the
    // call.
    match unsafe { libc::ppoll(places, N as libc::nfds_t, timeout, &mask) } {
        -1 => match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::Interrupted => Ok([false; N]),
            error => Err(error),
        },
        _ => Ok(polled.map(|place| place.revents != 0)),
    }
}

/// Lets `signal` in on this thread. Async-signal-safe.
pub(crate) fn unblock(signal: c_int) {
    set_mask(libc::SIG_UNBLOCK, &only(signal));
}

/// Lets those in on this thread, too, that `wanted` names, and returns the mask before.
pub(crate) fn let_in(wanted: impl Fn(c_int) -> bool) -> Mask {
    Mask(set_mask(libc::SIG_UNBLOCK, &all_but(|signal| !wanted(signal))))
}

/// Runs `work` with those let in on this thread, too, that `wanted` names. Async-signal-safe.
pub(crate) fn letting_in<R>(wanted: impl Fn(c_int) -> bool, work: impl FnOnce() -> R) -> R {
    let Mask(before) = let_in(wanted);
    let result = work();
    set_mask(libc::SIG_SETMASK, &before);
    result
}

/// No signal. Async-signal-safe.
fn none() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: the pointer is to a local that the call initializes.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: `sigemptyset` has initialized it and cannot fail.
    unsafe { set.assume_init() }
}

/// This signal and no other. Async-signal-safe.
fn only(signal: c_int) -> libc::sigset_t {
    let mut set = none();
    // SAFETY: an initialized set; an unknown number is an error without effect.
    unsafe { libc::sigaddset(&mut set, signal) };
    set
}

/// Takes `signal` away if it is pending for this thread, which blocks it. A plain system call.
pub(crate) fn take_pending(signal: c_int) {
    let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the set and the time live through the call; a null information is allowed.
    unsafe { libc::sigtimedwait(&only(signal), ptr::null_mut(), &now) };
}

/// Every signal. Async-signal-safe.
pub(crate) fn full() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: the pointer is to a local that the call initializes.
    unsafe { libc::sigfillset(set.as_mut_ptr()) };
    // SAFETY: `sigfillset` has initialized it and cannot fail.
    unsafe { set.assume_init() }
}

/// Changes this thread's mask and returns the one before. Async-signal-safe.
fn set_mask(how: c_int, set: &libc::sigset_t) -> libc::sigset_t {
    let mut before = full();
    // SAFETY: both sets are initialized and live through the call.
    unsafe { libc::pthread_sigmask(how, set, &mut before) };
    before
}
