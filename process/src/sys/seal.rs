//! No more processes: from here on this one can start threads, and nothing else.
//!
//! A filter of system calls for all threads at once. It is for a process that is about to end.

#![expect(unsafe_code, reason = "a filter that the kernel copies")]

use std::io;

use libc::{BPF_ABS, BPF_JEQ, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET, BPF_W};

/// Where the kernel's description of a call has its number, and the lower half of its first argument.
const NUMBER: u32 = 0;
const FLAGS: u32 = if cfg!(target_endian = "little") { 16 } else { 20 };

/// Lets no thread of this process start another process any more: it is told `EAGAIN`. What a thread is
/// in the middle of is finished.
///
/// # Errors
///
/// The kernel's: it has no such filters, or this process may make none, or its threads have filters
/// of their own that differ. Then nothing has changed.
pub(crate) fn start_nothing() -> io::Result<()> {
    let mut filter = filter();
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // An ending process gains no privileges any more; without, only root may set a filter.
    nix::sys::prctl::set_no_new_privs()?;
    let (mode, all) = (libc::SECCOMP_SET_MODE_FILTER, libc::SECCOMP_FILTER_FLAG_TSYNC);
    // SAFETY: the program and its statements live through the call, which copies them.
    match unsafe { libc::syscall(libc::SYS_seccomp, mode, all, &raw const program) } {
        0 => Ok(()),
        -1 => Err(io::Error::last_os_error()),
        _ => Err(io::Error::from_raw_os_error(libc::EBUSY)),
    }
}

/// New threads are let through, by the call whose flags a filter can read; the C library falls back on
/// that where the other one is missing.
fn filter() -> Vec<libc::sock_filter> {
    let is = |call: libc::c_long, then: u8, or_else: u8| {
        statement(BPF_JMP | BPF_JEQ | BPF_K, call as u32, then, or_else)
    };
    let give = |what: u32| statement(BPF_RET | BPF_K, what, 0, 0);
    let fail = |error: i32| give(libc::SECCOMP_RET_ERRNO | error as u32);
    let load = |offset: u32| statement(BPF_LD | BPF_W | BPF_ABS, offset, 0, 0);
    let thread = libc::CLONE_THREAD as u32;
    let mut filter = vec![load(NUMBER), is(libc::SYS_clone3, 0, 1), fail(libc::ENOSYS)];
    #[cfg(target_arch = "x86_64")]
    for call in [libc::SYS_fork, libc::SYS_vfork] {
        filter.extend([is(call, 0, 1), fail(libc::EAGAIN)]);
    }
    filter.extend([
        is(libc::SYS_clone, 0, 2),
        load(FLAGS),
        statement(BPF_JMP | BPF_JSET | BPF_K, thread, 0, 1),
        give(libc::SECCOMP_RET_ALLOW),
        fail(libc::EAGAIN),
    ]);
    filter
}

fn statement(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}
