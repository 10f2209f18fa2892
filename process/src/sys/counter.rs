//! A counter that another process has, too, taken without a wait.

#![expect(unsafe_code, reason = "preadv2 has no safe wrapper")]

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

/// Takes what it holds. Where it holds nothing this does not wait, also if the other process has changed
/// the flags of the descriptor, which are those of both.
///
/// Before Linux 5.8, and where the call is forbidden, those flags are all there is.
pub(crate) fn take(counter: BorrowedFd<'_>) {
    let mut value = 0u64;
    let room = libc::iovec { iov_base: (&raw mut value).cast(), iov_len: size_of::<u64>() };
    let (fd, room) = (counter.as_raw_fd(), &raw const room);
    // A counter has no positions: -1 says so, its upper half is not looked at.
    let (position, above, flags) = (-1i64, 0, libc::RWF_NOWAIT);
    // SAFETY: there is room for eight bytes in `value`, which lives through the call, as `room` does.
    let taken = unsafe { libc::syscall(libc::SYS_preadv2, fd, room, 1, position, above, flags) };
    // A filter of system calls may forbid it with any error.
    if Errno::result(taken).is_err_and(|error| error != Errno::EAGAIN) {
        let _ = nix::unistd::read(counter, &mut [0; 8]);
    }
}
