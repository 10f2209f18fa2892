//! What no crate offers safely. Each block holds one call.

#![expect(unsafe_code, reason = "code before main, a bare fork, and descriptors that others own")]

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::thread;
use std::time::Duration;

use crate::scenarios;

// SAFETY: the section holds pointers to constructors of this type, and `first` does not unwind. Its
// number puts it before the library's own hook, which has none.
#[used]
#[unsafe(link_section = ".init_array.60000")]
static FIRST: extern "C" fn() = first;

/// The first instructions of every process of this program that are not the loader's.
extern "C" fn first() {
    let _ = std::panic::catch_unwind(scenarios::first_instruction);
}

/// Whatever is open under that number, which this process does not close before it ends.
pub(crate) fn borrow_for_ever(fd: RawFd) -> BorrowedFd<'static> {
    // SAFETY: it is the library's, which keeps it open as long as the task runs that asks, and that goes
    // on until its process is ended.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// Takes what a counter holds, and does not wait where it holds nothing, whatever its flags are.
pub(crate) fn take_now(counter: BorrowedFd<'_>) {
    let mut value = 0u64;
    let room = libc::iovec { iov_base: (&raw mut value).cast(), iov_len: size_of::<u64>() };
    let (fd, room, flags) = (counter.as_raw_fd(), &raw const room, libc::RWF_NOWAIT);
    // SAFETY: there is room for eight bytes in `value`, which lives through the call.
    unsafe { libc::syscall(libc::SYS_preadv2, fd, room, 1, -1i64, 0, flags) };
}

/// Forks for ever, as do all copies. Whoever may not fork any more waits for its turn.
pub(crate) fn fork_without_end() -> ! {
    loop {
        // SAFETY: the copy has one thread, and does nothing but fork and sleep, which take no lock.
        if unsafe { nix::unistd::fork() }.is_err() {
            thread::sleep(Duration::from_millis(10));
        }
    }
}
