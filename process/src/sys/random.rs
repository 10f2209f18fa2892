//! A random number from the kernel: one that is refused is an error, where that of the standard
//! library's hash maps is a panic.

#![expect(unsafe_code, reason = "the C library's function has no safe wrapper")]

use std::fs::File;
use std::io::{self, Read};

/// A number that no other process has drawn.
pub(crate) fn number() -> io::Result<u64> {
    let mut bytes = [0; 8];
    let (room, len) = (bytes.as_mut_ptr().cast(), bytes.len());
    // SAFETY: the room is ours, and as long as it is said to be. So few bytes come whole.
    if unsafe { libc::getrandom(room, len, 0) } != len as isize {
        // Interrupted, or not allowed here.
        File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    }
    Ok(u64::from_ne_bytes(bytes))
}
