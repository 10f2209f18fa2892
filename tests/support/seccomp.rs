//! Filters that hand system calls to somebody who answers them (`man 2 seccomp_unotify`).
#![expect(unsafe_code, reason = "these calls have no safe wrapper in std or nix")]

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

/// A call that waits for its answer.
#[derive(Debug, Clone, Copy)]
pub struct Waiting {
    id: u64,
    pub arguments: [u64; 6],
}

/// Has each `call` of this thread, and of all that it starts from here on, wait for an answer at the
/// descriptor that is returned.
pub fn listen_to(call: libc::c_long) -> Result<OwnedFd, Errno> {
    // Otherwise only root may.
    prctl::set_no_new_privs()?;
    let step = |code: u32, jf, k| libc::sock_filter { code: code as u16, jt: 0, jf, k };
    // The number of the call is the first that the filter is shown.
    let mut filter = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, call as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_USER_NOTIF),
        step(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    let (set, program) = (libc::SECCOMP_SET_MODE_FILTER, &raw const program);
    // A signal must not interrupt a call that waits, if it is one that cannot be interrupted.
    let flags =
        libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    // SAFETY: reads `program` and the filter that it points to, which both live through the call.
    let fd = unsafe { libc::syscall(libc::SYS_seccomp, set, flags, program) };
    let fd = Errno::result(fd)?;
    // SAFETY: the kernel has just made `fd` for this call; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// The next call that waits: `ENOENT` if it was killed meanwhile. Call it when there is one.
pub fn next_waiting(listener: BorrowedFd<'_>) -> Result<Waiting, Errno> {
    let data = libc::seccomp_data { nr: 0, arch: 0, instruction_pointer: 0, args: [0; 6] };
    let mut told = libc::seccomp_notif { id: 0, pid: 0, flags: 0, data };
    let (fd, told_to) = (listener.as_raw_fd(), &raw mut told);
    // SAFETY: the kernel writes one such structure, for which there is room during the call.
    Errno::result(unsafe { libc::ioctl(fd, libc::SECCOMP_IOCTL_NOTIF_RECV, told_to) })?;
    Ok(Waiting { id: told.id, arguments: told.data.args })
}

/// What becomes of a call that waits.
#[derive(Debug, Clone, Copy)]
pub enum Answer {
    /// The kernel does it.
    Done,
    /// It is not done, and fails.
    Fails(Errno),
    /// It is not done, and returns this.
    Returns(i64),
}

/// Answers a call: `ENOENT` if it was killed meanwhile.
pub fn answer(listener: BorrowedFd<'_>, call: Waiting, answer: Answer) -> Result<(), Errno> {
    let (val, error, flags) = match answer {
        Answer::Done => (0, 0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32),
        Answer::Fails(error) => (0, -(error as i32), 0),
        Answer::Returns(value) => (value, 0, 0),
    };
    let answer = libc::seccomp_notif_resp { id: call.id, val, error, flags };
    let (fd, answer) = (listener.as_raw_fd(), &raw const answer);
    // SAFETY: the kernel reads one such structure, which lives through the call.
    Errno::result(unsafe { libc::ioctl(fd, libc::SECCOMP_IOCTL_NOTIF_SEND, answer) }).map(drop)
}

/// Receives a descriptor, which has come with a byte.
pub fn receive(socket: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let (mut byte, mut space) = ([0], nix::cmsg_space!([RawFd; 1]));
    let mut data = [IoSliceMut::new(&mut byte)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut data, Some(&mut space), flags)?;
    let Some(ControlMessageOwned::ScmRights(fds)) = message.cmsgs()?.next() else {
        return Err(Errno::EBADMSG);
    };
    let [fd] = fds[..] else { return Err(Errno::EBADMSG) };
    // SAFETY: the kernel has just made `fd` for this message; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
