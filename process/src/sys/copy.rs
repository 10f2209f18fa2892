//! For tests: what becomes of something in a copy of this process.

#![expect(unsafe_code, reason = "a test that forks")]

/// Whether `work` returns in a copy that is made now, while other threads are where they are.
pub(crate) fn ends_well_in_a_copy(work: impl FnOnce()) -> bool {
    // SAFETY: the copy does what is being tested, and ends.
    match unsafe { libc::fork() } {
        0 => {
            // A hang is a death.
            // SAFETY: an integer.
            unsafe { libc::alarm(20) };
            work();
            super::process::exit_now(0)
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
