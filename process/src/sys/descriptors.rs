//! Descriptors over a Unix socket, and what the kernel knows of its queue.

#![expect(unsafe_code, reason = "received descriptors are numbers until they have an owner")]

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, send, sendmsg};

use crate::parcel::MAX_DESCRIPTORS;

/// What one call received.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) len: usize,
    pub(crate) descriptors: Vec<OwnedFd>,
    /// The kernel had more descriptors than it could hand over, and dropped them.
    pub(crate) descriptors_lost: bool,
    /// The datagram was longer than the room for it.
    pub(crate) cut: bool,
}

/// Whether the kernel has no room for a message with a descriptor, or too many are on their way:
/// nothing was written then.
pub(crate) fn is_for_want(error: &io::Error) -> bool {
    let number = error.raw_os_error().map(Errno::from_raw);
    matches!(number, Some(Errno::ETOOMANYREFS | Errno::ENOBUFS | Errno::ENOMEM))
}

/// Sends bytes, and with the first of them descriptors; how many bytes went.
pub(crate) fn send_with(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[Arc<OwnedFd>],
    flags: MsgFlags,
) -> io::Result<usize> {
    send_pieces(socket, [bytes], &numbers(descriptors), flags)
}

/// Sends one datagram in two pieces, with descriptors.
pub(crate) fn send_datagram(
    socket: BorrowedFd<'_>,
    pieces: [&[u8]; 2],
    descriptors: &[Arc<OwnedFd>],
) -> io::Result<usize> {
    send_pieces(socket, pieces, &numbers(descriptors), MsgFlags::MSG_DONTWAIT)
}

/// Sends pieces as one message, with the descriptors of these numbers; how many bytes went. No
/// reader is an error, not a signal.
pub(crate) fn send_pieces<const N: usize>(
    socket: BorrowedFd<'_>,
    pieces: [&[u8]; N],
    descriptors: &[RawFd],
    flags: MsgFlags,
) -> io::Result<usize> {
    let (fd, flags) = (socket.as_raw_fd(), flags | MsgFlags::MSG_NOSIGNAL);
    if let ([bytes], []) = (&pieces[..], descriptors) {
        return retry(|| send(fd, bytes, flags));
    }
    let rights = [ControlMessage::ScmRights(descriptors)];
    let control = if descriptors.is_empty() { &[][..] } else { &rights[..] };
    let data = pieces.map(IoSlice::new);
    retry(|| sendmsg::<()>(fd, &data, control, flags, None))
}

fn numbers(descriptors: &[Arc<OwnedFd>]) -> Vec<RawFd> {
    descriptors.iter().map(|fd| fd.as_raw_fd()).collect()
}

fn retry(mut call: impl FnMut() -> nix::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            result => return Ok(result?),
        }
    }
}

/// What comes beside a message where somebody has set `SO_PASSPIDFD`, since Linux 6.5.
const SCM_PIDFD: libc::c_int = 4;

/// Room for one control message with as many descriptors as there can be, and for alignment.
type Control = [u64; (size_of::<libc::cmsghdr>() + MAX_DESCRIPTORS * size_of::<RawFd>()) / 8 + 2];

/// Receives once.
pub(crate) fn receive(
    socket: BorrowedFd<'_>,
    room: &mut [u8],
    flags: MsgFlags,
) -> io::Result<Received> {
    let mut control = MaybeUninit::<Control>::uninit();
    let mut data = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() };
    let mut message = libc::msghdr {
        msg_name: ptr::null_mut(),
        msg_namelen: 0,
        msg_iov: &mut data,
        msg_iovlen: 1,
        msg_control: control.as_mut_ptr().cast(),
        msg_controllen: size_of::<Control>(),
        msg_flags: 0,
    };
    let flags = flags.bits() | libc::MSG_CMSG_CLOEXEC;
    let len = loop {
        message.msg_controllen = size_of::<Control>();
        // SAFETY: the header points to an exclusive buffer and to room for control messages, with
        // their sizes, and all of it outlives the call.
        match unsafe { libc::recvmsg(socket.as_raw_fd(), &mut message, flags) } {
            -1 if Errno::last() == Errno::EINTR => {}
            -1 => return Err(io::Error::last_os_error()),
            len => break len.unsigned_abs(),
        }
    };
    Ok(Received {
        len,
        descriptors: take_descriptors(&message),
        descriptors_lost: message.msg_flags & libc::MSG_CTRUNC != 0,
        cut: message.msg_flags & libc::MSG_TRUNC != 0,
    })
}

/// Takes ownership of the descriptors that came with a message, and closes those that nobody sent:
/// whoever made a socket that came from elsewhere may have asked for them, and go on to.
fn take_descriptors(message: &libc::msghdr) -> Vec<OwnedFd> {
    let mut owned = Vec::new();
    // SAFETY: the kernel filled in the header; without control messages its length says so.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !next.is_null() {
        // SAFETY: a complete header that the kernel wrote, in an aligned buffer.
        let header = unsafe { ptr::read(next) };
        let is = |kind| (header.cmsg_level, header.cmsg_type) == (libc::SOL_SOCKET, kind);
        if is(libc::SCM_RIGHTS) || is(SCM_PIDFD) {
            // SAFETY: plain arithmetic.
            let empty = unsafe { libc::CMSG_LEN(0) } as usize;
            let count = header.cmsg_len.saturating_sub(empty) / size_of::<RawFd>();
            // SAFETY: the data of the header that was read above.
            let numbers = unsafe { libc::CMSG_DATA(next) }.cast::<RawFd>();
            owned.reserve(count);
            for index in 0..count {
                // SAFETY: within the message, by its own length.
                let number = unsafe { numbers.add(index) };
                // SAFETY: as above; the kernel writes whole integers, perhaps not aligned.
                let number = unsafe { ptr::read_unaligned(number) };
                if number < 0 {
                    // Of a sender that has ended there is none.
                    continue;
                }
                // SAFETY: the kernel just made it for this call, and nobody else knows it.
                let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
                if is(libc::SCM_RIGHTS) {
                    owned.push(descriptor);
                }
            }
        }
        // SAFETY: `next` is a header of this message.
        next = unsafe { libc::CMSG_NXTHDR(message, next) };
    }
    owned
}

/// How many bytes of messages wait to be received.
pub(crate) fn waiting(socket: BorrowedFd<'_>) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: writes one integer to the address, which is that of one.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::FIONREAD, &mut bytes) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(usize::try_from(bytes).unwrap_or(0)),
    }
}

const _: () = assert!(align_of::<Control>() >= align_of::<libc::cmsghdr>());
