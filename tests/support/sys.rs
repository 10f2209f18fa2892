//! The system calls that neither std nor nix offers. Each block holds one call.
#![expect(unsafe_code, reason = "these calls have no safe wrapper in std or nix")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use nix::libc;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

/// Opens a descriptor that names the process `pid` for good, or fails if there is none.
pub fn pidfd_open(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: takes two integers and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made `fd` for this call; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Sends `signal` to the process behind `pidfd`, or fails if it has been reaped.
pub fn pidfd_signal(pidfd: BorrowedFd<'_>, signal: Signal) -> io::Result<()> {
    let (fd, signal) = (pidfd.as_raw_fd(), signal as libc::c_int);
    let info = ptr::null::<libc::siginfo_t>();
    // SAFETY: `fd` is borrowed, so it stays open during the call; a null `info` is allowed.
    match unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, info, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Ends this process with `code` at once: no `atexit` handler, no destructor, no flush.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: always sound; that nothing is cleaned up is what a fixture asks for.
    unsafe { libc::_exit(code) }
}

/// Gives `signal` its default action: a shell that starts us in the background has us ignore some,
/// which our programs would inherit.
pub fn reset(signal: Signal) {
    // SAFETY: the default action is no code of ours.
    unsafe { libc::signal(signal as libc::c_int, libc::SIG_DFL) };
}

/// Runs `handler` when this process leaves through `exit`.
pub fn at_exit(handler: extern "C" fn()) {
    // SAFETY: `handler` is a function of this program, which is never unloaded.
    let refused = unsafe { libc::atexit(handler) };
    assert_eq!(refused, 0, "atexit has no room left");
}

/// Sets a limit of another process, both the soft and the hard one.
pub fn limit(pid: Pid, resource: nix::sys::resource::Resource, limit: u64) -> io::Result<()> {
    let new = libc::rlimit { rlim_cur: limit, rlim_max: limit };
    // SAFETY: reads `new`, which lives through the call; a null `old` is allowed.
    match unsafe { libc::prlimit(pid.as_raw(), resource as _, &new, ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sets an environment variable of this process, which has one thread.
pub fn set_variable(name: &str, value: &str) {
    // SAFETY: the fixture has no other thread that reads the environment.
    unsafe { std::env::set_var(name, value) };
}
