//! The kernel's timer that ends this process when it does not end by itself.
//!
//! It works where no code of ours can run: with every signal blocked, in a spin, while stopped.

use std::mem::MaybeUninit;
use std::ptr;
use std::time::Duration;

/// A timer of this process that sends it `SIGKILL`. Disarmed until [`KillTimer::arm`].
#[derive(Debug)]
pub(crate) struct KillTimer(libc::timer_t);

// SAFETY: the kernel looks the id up in the process, so every thread may use it.
unsafe impl Send for KillTimer {}

impl KillTimer {
    /// Makes a timer, or `None` where the kernel has no more of them.
    pub(crate) fn new() -> Option<Self> {
        // SAFETY: `sigevent` is plain data for which all zeroes is a valid value.
        let mut event: libc::sigevent = unsafe { MaybeUninit::zeroed().assume_init() };
        event.sigev_notify = libc::SIGEV_SIGNAL;
        event.sigev_signo = libc::SIGKILL;
        let mut id: libc::timer_t = ptr::null_mut();
        // SAFETY: both pointers are to locals that live through the call.
        let made = unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut id) };
        (made == 0).then_some(Self(id))
    }

    /// Kills this process after `time`, in place of what was armed before.
    pub(crate) fn arm(&self, time: Duration) {
        // Zero would disarm the timer.
        self.set(time.max(Duration::from_nanos(1)));
    }

    /// Takes the threat away until the next [`KillTimer::arm`].
    pub(crate) fn disarm(&self) {
        self.set(Duration::ZERO);
    }

    fn set(&self, time: Duration) {
        // SAFETY: `itimerspec` is plain data for which all zeroes is a valid value.
        let mut spec: libc::itimerspec = unsafe { MaybeUninit::zeroed().assume_init() };
        spec.it_value.tv_sec = libc::time_t::try_from(time.as_secs()).unwrap_or(libc::time_t::MAX);
        spec.it_value.tv_nsec = libc::c_long::from(time.subsec_nanos());
        // SAFETY: the id is of a timer that only `drop` deletes; a null old value is allowed.
        unsafe { libc::timer_settime(self.0, 0, &spec, ptr::null_mut()) };
    }
}

impl Drop for KillTimer {
    fn drop(&mut self) {
        // SAFETY: `new` made this timer, and nobody can use `self` after this.
        unsafe { libc::timer_delete(self.0) };
    }
}
