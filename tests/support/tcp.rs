//! Ways to TCP that are neither `connect` nor `bind` of a TCP socket: Landlock is not asked for them.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, SockaddrIn, connect, listen, sendmsg,
    sendto, setsockopt, socket, sockopt,
};

use crate::sys;

/// Connects to a port of this machine by the data that is to be sent there: TCP Fast Open.
pub fn connect_by_data(port: u16) -> io::Result<()> {
    sendto(plain()?.as_raw_fd(), b"data", &here(port), fast_open())?;
    Ok(())
}

/// As [`connect_by_data`], by the other system call.
pub fn connect_by_message(port: u16) -> io::Result<()> {
    let data = [IoSlice::new(b"data")];
    sendmsg(plain()?.as_raw_fd(), &data, &[], fast_open(), Some(&here(port)))?;
    Ok(())
}

/// Connects to a port of this machine by Multipath TCP, which goes on as TCP with who does not know it.
pub fn connect_by_multipath(port: u16) -> io::Result<()> {
    connect(sys::multipath_socket()?.as_raw_fd(), &here(port))?;
    Ok(())
}

/// Whether a TCP socket may be given another protocol, of which SMC is one that connects by itself. The kernel
/// finds no name for it, once it may.
pub fn may_change_protocol() -> io::Result<()> {
    match setsockopt(&plain()?, sockopt::TcpUlp::default(), b"") {
        Err(Errno::EINVAL) => Ok(()),
        other => Ok(other?),
    }
}

/// Listens without having asked for a port: on one that the kernel chooses.
pub fn listen_anywhere() -> io::Result<()> {
    Ok(listen(&plain()?, Backlog::MAXCONN)?)
}

fn plain() -> nix::Result<OwnedFd> {
    socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)
}

fn here(port: u16) -> SockaddrIn {
    SockaddrIn::new(127, 0, 0, 1, port)
}

/// nix has no name for it.
fn fast_open() -> MsgFlags {
    MsgFlags::from_bits_retain(libc::MSG_FASTOPEN)
}
