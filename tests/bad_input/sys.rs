//! What a task can do to its own worker. Each block holds one call.
#![expect(unsafe_code, reason = "these tests do what safe code cannot")]

use std::os::fd::BorrowedFd;

use nix::unistd::{ForkResult, Pid, write};

/// Copies this process. `None` in the copy.
pub fn fork() -> Option<Pid> {
    // SAFETY: the other thread of a worker, its watcher, holds no lock that the copy needs: it
    // waits for its wire.
    match unsafe { nix::unistd::fork() }.unwrap() {
        ForkResult::Parent { child } => Some(child),
        ForkResult::Child => None,
    }
}

/// The first socket that a worker has open is its wire.
pub fn write_to_the_wire(bytes: &[u8]) {
    let is_socket = |fd: &i32| {
        let target = std::fs::read_link(format!("/proc/self/fd/{fd}"));
        target.is_ok_and(|target| target.to_string_lossy().starts_with("socket:"))
    };
    let fd = (3..20).find(is_socket).expect("a worker has a wire");
    // SAFETY: open for as long as the worker lives.
    let wire = unsafe { BorrowedFd::borrow_raw(fd) };
    assert_eq!(write(wire, bytes), Ok(bytes.len()));
}

/// How a reply of `len` bytes begins.
pub fn header_of_a_reply(len: u64) -> Vec<u8> {
    let mut header = vec![0x1e, 0xe9, 130, 0, 0, 0, 0, 0];
    header.extend_from_slice(&1u64.to_le_bytes());
    header.extend_from_slice(&len.to_le_bytes());
    header
}
