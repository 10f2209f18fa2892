//! Sleeping on a word of shared memory, and waking who sleeps on it.

#![expect(unsafe_code, reason = "the futex system call has no safe wrapper")]

use std::ptr;
use std::sync::atomic::AtomicU64;

/// The half of a word that the kernel looks at: the one with the low bits.
fn low_half(word: &AtomicU64) -> *const u32 {
    let low = if cfg!(target_endian = "big") { 1 } else { 0 };
    word.as_ptr().cast::<u32>().wrapping_add(low)
}

/// Sleeps until somebody calls [`wake`], unless the low half of the word is not `expected`.
/// It may return for no reason.
pub(crate) fn wait(word: &AtomicU64, expected: u32) {
    let (word, forever) = (low_half(word), ptr::null::<libc::timespec>());
    // SAFETY: the word is borrowed, so it stays mapped; the kernel only reads it.
    unsafe { libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAIT, expected, forever) };
}

/// Wakes all who sleep on the word, in whatever process.
pub(crate) fn wake(word: &AtomicU64) {
    // SAFETY: the kernel only takes the address for a name.
    unsafe { libc::syscall(libc::SYS_futex, low_half(word), libc::FUTEX_WAKE, i32::MAX) };
}
