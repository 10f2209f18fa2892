//! Sleeping on a word of shared memory.
#![expect(unsafe_code, reason = "the system call has no wrapper")]

use std::ptr;
use std::sync::atomic::AtomicU32;

/// Sleeps until woken, unless `word` is no longer `expected`. May return for no reason.
pub(crate) fn wait(word: &AtomicU32, expected: u32) {
    let forever = ptr::null::<libc::timespec>();
    // SAFETY: the word is borrowed, so it stays mapped; a null timeout is allowed.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, expected, forever) };
}

/// Wakes one sleeper.
pub(crate) fn wake(word: &AtomicU32) {
    // SAFETY: the kernel only uses the address; nothing is written.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, 1) };
}
