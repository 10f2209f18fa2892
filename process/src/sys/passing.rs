//! Messages with descriptors between a program and its start server, over a pair of sockets that
//! keep their bounds.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, socketpair};

use crate::sys::descriptors;

/// A message as it arrived: its bytes and its descriptors.
pub(crate) type Message = (Vec<u8>, Vec<OwnedFd>);

/// Makes the two ends of a connection.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SockFlag::SOCK_CLOEXEC;
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?)
}

/// Sends one message, whole or not at all.
pub(crate) fn send(to: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let numbers: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    descriptors::send_pieces(to, [bytes], &numbers, MsgFlags::empty()).map(drop)
}

/// Receives one message of up to `N` bytes without waiting for it. None at the end.
///
/// # Errors
///
/// `WouldBlock` where there is none; `ENOBUFS` where not all of its descriptors could be received.
pub(crate) fn receive<const N: usize>(from: BorrowedFd<'_>) -> io::Result<Option<Message>> {
    let mut room = [0; N];
    let received = descriptors::receive(from, &mut room, MsgFlags::MSG_DONTWAIT)?;
    if received.descriptors_lost {
        return Err(io::Error::from_raw_os_error(libc::ENOBUFS));
    }
    let bytes = &room[..received.len];
    Ok((!bytes.is_empty()).then(|| (bytes.to_vec(), received.descriptors)))
}
