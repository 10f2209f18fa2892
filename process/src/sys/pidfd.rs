//! A descriptor that means one process for ever: no signal or wait through it can reach another.

#![expect(unsafe_code, reason = "the pidfd system calls have no safe wrapper")]

use std::ffi::{c_int, c_void};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};
use std::{io, mem, ptr};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::status::ExitStatus;
use crate::usage::Usage;
use crate::waiting::wait_for;

/// When a kill that the kernel has refused is tried again.
pub(crate) const AGAIN: Duration = Duration::from_millis(20);

/// Opens a descriptor for `pid`, which must not have been reaped: afterwards it may be another.
pub(crate) fn open(pid: libc::pid_t) -> io::Result<OwnedFd> {
    // SAFETY: two integers; the kernel reports a pid that does not exist as an error.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as c_int) })
}

/// Sends `signal`, or fails with `ESRCH` if the process has ended.
pub(crate) fn send_signal(pidfd: BorrowedFd<'_>, signal: c_int) -> io::Result<()> {
    send(pidfd, signal, 0)
}

/// `PIDFD_SIGNAL_PROCESS_GROUP`, since Linux 6.9.
const TO_ITS_GROUP: c_int = 1 << 2;

/// Sends `signal` to the group that the process leads, or led: to no other, whoever has its number by
/// now. `ESRCH` if nobody is in it.
pub(crate) fn signal_group(pidfd: BorrowedFd<'_>, signal: c_int) -> io::Result<()> {
    send(pidfd, signal, TO_ITS_GROUP)
}

/// Whether the number of a process that has ended still means it, or the group that it led: it was not
/// reaped, or somebody is left in that group.
pub(crate) fn keeps_number(pidfd: BorrowedFd<'_>) -> bool {
    is_to_be_reaped(pidfd) || signal_group(pidfd, 0).is_ok()
}

fn send(pidfd: BorrowedFd<'_>, signal: c_int, flags: c_int) -> io::Result<()> {
    let (call, fd, info) = (libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), ptr::null::<c_void>());
    // SAFETY: the descriptor is borrowed, so it stays open; a null `info` is allowed.
    match unsafe { libc::syscall(call, fd, signal, info, flags) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Kills the process; false if the kernel refuses that and it runs on. Who waits for its end then
/// tries again, since nothing else may bring it about.
pub(crate) fn kill(pidfd: BorrowedFd<'_>) -> bool {
    send_signal(pidfd, libc::SIGKILL).is_ok() || has_ended(pidfd)
}

/// Kills the process and blocks until it has ended. It is not reaped.
pub(crate) fn end(pidfd: BorrowedFd<'_>) {
    while !kill(pidfd) {
        wait_for(&mut [PollFd::new(pidfd, PollFlags::POLLIN)], Some(Instant::now() + AGAIN));
    }
    await_end(pidfd);
}

/// Whether the process has ended, reaped or not.
pub(crate) fn has_ended(pidfd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(pidfd, PollFlags::POLLIN)];
    match poll(&mut fds, PollTimeout::ZERO) {
        Ok(ready) => ready == 1,
        // A process that may have nothing open may not even ask for one descriptor.
        Err(_) => peek(pidfd, libc::WNOHANG),
    }
}

/// Blocks until the process has ended. It is not reaped.
pub(crate) fn await_end(pidfd: BorrowedFd<'_>) {
    let mut fds = [PollFd::new(pidfd, PollFlags::POLLIN)];
    loop {
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) => return,
            Err(Errno::EINTR) => {}
            Err(_) => {
                peek(pidfd, 0);
                return;
            }
        }
    }
}

/// Whether a child has ended, and nobody has reaped it yet.
pub(crate) fn is_to_be_reaped(pidfd: BorrowedFd<'_>) -> bool {
    look(pidfd, libc::WNOHANG).is_ok_and(|ended| ended)
}

/// Whether it is a child of ours that nobody has reaped. Who opened it by a number that may have been
/// given away asks this: the number of a child is nobody else's.
pub(crate) fn is_child(pidfd: BorrowedFd<'_>) -> bool {
    // Where the kernel refuses to tell, it is believed: a child that is left would be for ever.
    look(pidfd, libc::WNOHANG) != Err(Errno::ECHILD)
}

/// Whether a child has ended, without reaping it; or waits for that, as `options` say.
fn peek(pidfd: BorrowedFd<'_>, options: c_int) -> bool {
    match look(pidfd, options) {
        Ok(ended) => ended,
        // Not a child any more: somebody has reaped it. Any other error says nothing of it.
        Err(error) => error == Errno::ECHILD,
    }
}

fn look(pidfd: BorrowedFd<'_>, options: c_int) -> Result<bool, Errno> {
    // SAFETY: all zeroes is a valid `siginfo_t`.
    let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
    let (id, options) = (pidfd.as_raw_fd() as libc::id_t, options | libc::WEXITED | libc::WNOWAIT);
    loop {
        // SAFETY: the descriptor stays open, and `info` is ours to be written.
        if unsafe { libc::waitid(libc::P_PIDFD, id, &mut info, options) } == 0 {
            return Ok(status(&info).is_some());
        }
        match Errno::last() {
            Errno::EINTR => {}
            error => return Err(error),
        }
    }
}

/// Whether a child was stopped, and continued, since this was asked last.
pub(crate) fn was_continued(pidfd: BorrowedFd<'_>) -> bool {
    // SAFETY: all zeroes is a valid `siginfo_t`.
    let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
    let (id, options) = (pidfd.as_raw_fd() as libc::id_t, libc::WCONTINUED | libc::WNOHANG);
    // SAFETY: the descriptor stays open, and `info` is ours to be written. Nothing is reaped.
    let asked = unsafe { libc::waitid(libc::P_PIDFD, id, &mut info, options) };
    asked == 0 && info.si_code == libc::CLD_CONTINUED
}

/// Whether a call of [`wait`] may block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    Block,
    Poll,
}

/// A child that has been reaped.
#[derive(Debug)]
pub(crate) struct Reaped {
    pub(crate) status: ExitStatus,
    /// None where somebody else has reaped it.
    pub(crate) usage: Option<Usage>,
}

/// Reaps the child: how it ended, or none where it has not and `wait` must not block.
///
/// Where somebody else reaped it (`waitpid(-1)`, or an ignored `SIGCHLD`), its status is lost to
/// us, and [`ExitStatus::Unknown`] says so. Nor is it known where the kernel refuses to tell, as a
/// filter of system calls may have it: then the pidfd is believed, and a child that has ended stays a
/// zombie for as long as we live.
pub(crate) fn wait(pidfd: BorrowedFd<'_>, wait: Wait) -> Option<Reaped> {
    const UNKNOWN: Reaped = Reaped { status: ExitStatus::Unknown, usage: None };
    let options = match wait {
        Wait::Block => libc::WEXITED,
        Wait::Poll => libc::WEXITED | libc::WNOHANG,
    };
    loop {
        // SAFETY: all zeroes is a valid `siginfo_t`.
        let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
        // SAFETY: all zeroes is a valid `rusage`.
        let mut usage: libc::rusage = unsafe { mem::zeroed() };
        let (call, kind, id) = (libc::SYS_waitid, libc::P_PIDFD, pidfd.as_raw_fd());
        // The C library's function has no fifth argument, and the kernel's tells what was used.
        // SAFETY: the descriptor stays open, and `info` and `usage` are ours to be written.
        if unsafe { libc::syscall(call, kind, id, &mut info, options, &mut usage) } == 0 {
            let reaped = |status| Reaped { status, usage: Some(Usage::of(&usage)) };
            return status(&info).map(reaped);
        }
        match (Errno::last(), wait) {
            (Errno::EINTR, _) => {}
            (Errno::ECHILD, _) => return Some(UNKNOWN),
            (_, Wait::Poll) => return has_ended(pidfd).then_some(UNKNOWN),
            (_, Wait::Block) => {
                await_end(pidfd);
                return Some(UNKNOWN);
            }
        }
    }
}

fn status(info: &libc::siginfo_t) -> Option<ExitStatus> {
    // SAFETY: `waitid` filled the structure in, so these fields are the ones in use.
    if unsafe { info.si_pid() } == 0 {
        return None;
    }
    // SAFETY: as above.
    let status = unsafe { info.si_status() };
    Some(match info.si_code {
        libc::CLD_EXITED => ExitStatus::Exited(status),
        code => ExitStatus::Signaled { signal: status, core_dumped: code == libc::CLD_DUMPED },
    })
}
