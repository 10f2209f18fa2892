//! `fork`, for a process with one thread, of a child that belongs to this process's parent.
//!
//! The C library's `fork` cannot make a sibling, so this is the system call, and what the library
//! would do afterwards for a process with one thread is done here: the thread learns its new
//! number, and the kernel the thread's list of robust mutexes. Handlers of `pthread_atfork` do
//! not run.

#![expect(unsafe_code, reason = "the system call has no safe wrapper")]

use std::ffi::{c_int, c_long, c_void};
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::AtomicU64;
use std::{io, mem};

/// Which of the two processes this is now.
#[derive(Debug)]
pub(crate) enum Side {
    Child,
    Original { pid: libc::pid_t, pidfd: OwnedFd },
}

/// Forks a sibling. Before it runs, its pid is in `pid`, whatever becomes of this process. The sibling
/// need not have that memory.
///
/// Only for the start server, which has seen to it that no other thread exists: what one had
/// locked would stay so in the child.
pub(crate) fn alone(pid: &AtomicU64) -> io::Result<Side> {
    let robust = RobustList::of_this_thread();
    let number = thread_number_address();
    let mut pidfd: c_int = -1;
    // SAFETY: all zeroes is a valid value.
    let mut arguments: libc::clone_args = unsafe { mem::zeroed() };
    let flags = libc::CLONE_PARENT | libc::CLONE_PIDFD | libc::CLONE_PARENT_SETTID;
    let set_number = libc::CLONE_CHILD_SETTID | libc::CLONE_CHILD_CLEARTID;
    arguments.flags = (flags | if number == 0 { 0 } else { set_number }) as u64;
    arguments.pidfd = (&raw mut pidfd) as u64;
    // The first four bytes of the word.
    arguments.parent_tid = pid.as_ptr().expose_provenance() as u64;
    arguments.child_tid = number;
    let size = size_of::<libc::clone_args>();
    // SAFETY: without CLONE_VM the child has its own copy of everything, this stack included; the
    // addresses are valid for what the kernel writes; and there is no other thread.
    match unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size) } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            robust.restore();
            Ok(Side::Child)
        }
        pid => {
            // SAFETY: the kernel just made this descriptor for us, and nobody else knows it.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Side::Original { pid: pid as libc::pid_t, pidfd })
        }
    }
}

/// Where the C library keeps the number of this thread, or zero where that is not known.
fn thread_number_address() -> u64 {
    let mut address: u64 = 0;
    // Only glibc gives the kernel that very address; musl gives it that of a lock.
    if cfg!(target_env = "gnu") {
        // SAFETY: writes one word to a place of our own; fails where the kernel does not tell.
        let result = unsafe { libc::prctl(libc::PR_GET_TID_ADDRESS, &raw mut address) };
        if result != 0 {
            return 0;
        }
    }
    address
}

/// The head of this thread's list of robust mutexes, which `fork` makes the kernel forget.
struct RobustList {
    head: *mut c_void,
    length: usize,
}

impl RobustList {
    fn of_this_thread() -> Self {
        let mut list = Self { head: ptr::null_mut(), length: 0 };
        let (head, length) = (&raw mut list.head, &raw mut list.length);
        // SAFETY: zero is this thread; writes two words to places of our own.
        unsafe { libc::syscall(libc::SYS_get_robust_list, 0 as c_long, head, length) };
        list
    }

    fn restore(&self) {
        if !self.head.is_null() {
            // SAFETY: the same thread, in a copy of the same memory, had this very list.
            unsafe { libc::syscall(libc::SYS_set_robust_list, self.head, self.length) };
        }
    }
}
