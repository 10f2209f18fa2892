//! For tests: copies of this process.

#![expect(unsafe_code, reason = "a test that forks")]

/// Whether `work` returns in a copy that is made now, while other threads are where they are.
#[cfg(test)]
pub(crate) fn ends_well_in_a_copy(work: impl FnOnce()) -> bool {
    // SAFETY: the copy does what is being tested, and ends.
    match unsafe { libc::fork() } {
        0 => {
            // A hang is a death.
            // SAFETY: an integer.
            unsafe { libc::alarm(20) };
            // A panic that got out would end this thread, the only one here: a success.
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            super::process::exit_now(i32::from(ended.is_err()))
        }
        copy => {
            // It is the copy's.
            std::mem::forget(work);
            let copy = nix::unistd::Pid::from_raw(copy);
            let status = nix::sys::wait::waitpid(copy, None);
            status == Ok(nix::sys::wait::WaitStatus::Exited(copy, 0))
        }
    }
}

/// A copy of this process that does nothing, has nothing open, and ends by signals only: `deaf`, by
/// `SIGKILL` only.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn idle(deaf: bool) -> std::io::Result<crate::server::Born> {
    use nix::sys::signal::{SigSet, SigmaskHow, Signal};

    // The handlers that this process has are none of the copy's, and it has them at first.
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    // SAFETY: the copy makes system calls only, which take no lock that another thread had.
    let pid = match unsafe { libc::fork() } {
        -1 => {
            let error = std::io::Error::last_os_error();
            before.thread_set_mask()?;
            return Err(error);
        }
        0 => {
            // If this process ends sooner, so does the copy.
            let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
            let _ = super::process::close_from(0);
            for signal in [Signal::SIGTERM, Signal::SIGALRM] {
                let action = if deaf { libc::SIG_IGN } else { libc::SIG_DFL };
                // SAFETY: the default, or to ignore, installs no code.
                unsafe { libc::signal(signal as i32, action) };
            }
            let _ = SigSet::empty().thread_set_mask();
            loop {
                nix::unistd::pause();
            }
        }
        pid => pid,
    };
    before.thread_set_mask()?;
    let pidfd = super::pidfd::open(pid)?;
    Ok(crate::server::Born { pid, pidfd })
}
