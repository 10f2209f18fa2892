//! Which signals a thread lets in.

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::ptr;

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
}

impl Drop for AllBlocked {
    fn drop(&mut self) {
        set_mask(libc::SIG_SETMASK, &self.before);
    }
}

/// Blocks every signal in this thread but those that `wanted` names.
pub(crate) fn let_in_only(wanted: impl Fn(c_int) -> bool) {
    let mut set = full();
    for signal in (1..=libc::SIGRTMAX()).filter(|signal| wanted(*signal)) {
        // SAFETY: an initialized set; an unknown number is an error without effect.
        unsafe { libc::sigdelset(&mut set, signal) };
    }
    set_mask(libc::SIG_SETMASK, &set);
}

/// Lets `signal` in on this thread. Async-signal-safe.
pub(crate) fn unblock(signal: c_int) {
    set_mask(libc::SIG_UNBLOCK, &only(signal));
}

/// This signal and no other. Async-signal-safe.
fn only(signal: c_int) -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: the pointer is to a local that the call initializes.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: `sigemptyset` has initialized it and cannot fail.
    let mut set = unsafe { set.assume_init() };
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
