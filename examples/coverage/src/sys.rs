//! What a program does that copies itself by hand.
#![expect(unsafe_code, reason = "fork and _exit have no safe wrapper")]

use nix::unistd::{ForkResult, Pid};

use crate::ledger;

/// Copies this process. `None` in the copy.
///
/// # Errors
///
/// That of the kernel.
pub fn fork() -> nix::Result<Option<Pid>> {
    let parent = std::process::id();
    ledger::note_fork();
    // SAFETY: the program that calls this has one thread, so no lock is held by another.
    Ok(match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Some(child),
        ForkResult::Child => {
            ledger::note_copy(parent);
            None
        }
    })
}

/// Ends this process as copies are told to: no hook of the C library runs.
pub fn exit_at_once(code: i32) -> ! {
    // SAFETY: always sound.
    unsafe { libc::_exit(code) }
}
