//! What a forked child changes of what it inherited, to be as one that was spawned.
//!
//! All of it is for the start server and its children, before any other thread runs: the watcher is
//! there already, and waits.

#![expect(unsafe_code, reason = "descriptors and the environment are the C library's globals")]

use std::ffi::{c_char, c_int};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::{io, ptr};

/// Whether a descriptor of this number is open.
pub(crate) fn is_open(fd: c_int) -> bool {
    // SAFETY: asks for the flags of a descriptor, open or not.
    unsafe { libc::fcntl(fd, libc::F_GETFD) != -1 }
}

/// Makes `target` a copy of `source` that survives `exec`, or closes it where there is none.
pub(crate) fn place(source: Option<BorrowedFd<'_>>, target: c_int) -> io::Result<()> {
    let result = match source {
        // SAFETY: two descriptors; nobody in this process uses what `target` was.
        Some(source) => unsafe { libc::dup2(source.as_raw_fd(), target) },
        // SAFETY: as above.
        None => unsafe { libc::close(target) },
    };
    // What is to be closed may have been closed already.
    if result == -1 && source.is_some() { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes `block` the environment: variables as `name=value`, each with a zero at its end.
pub(crate) fn replace_environment(block: &[u8]) {
    unsafe extern "C" {
        static mut environ: *mut *mut c_char;
    }
    // Never freed: the C library keeps pointers to variables for ever.
    let block = Box::leak(Box::<[u8]>::from(block));
    let variables = block.split_inclusive_mut(|&byte| byte == 0);
    let pointers = variables.map(|variable| variable.as_mut_ptr().cast::<c_char>());
    let pointers: Box<[*mut c_char]> = pointers.chain([ptr::null_mut()]).collect();
    let pointers = Box::leak(pointers).as_mut_ptr();
    // SAFETY: no other thread runs; an array of strings with a null at its end, valid for ever.
    unsafe { environ = pointers };
}

/// Writes what the C library holds in buffers.
pub(crate) fn flush_c_streams() {
    // SAFETY: null means every stream.
    unsafe { libc::fflush(ptr::null_mut()) };
}
