//! What a channel is made of: a pair of sockets that keep the bounds of messages.
//!
//! Messages go one way. The other way go *credits*, one datagram of a byte for each message that
//! may wait. A sender looks whether a credit is there, sends, and then takes the credit away; a
//! receiver gives one back for each message that it receives.
//!
//! The order matters. A sender that is killed in between leaves a credit too many, never one too
//! few: those that are left can always go on.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, Shutdown, SockFlag, SockType, getsockopt, recv, setsockopt, shutdown,
    socketpair, sockopt,
};

use super::error::{RecvFailure, SendFailure};
use crate::child::wait_for;
use crate::codec::{DecodeError, Limits};
use crate::parcel::{MAX_DESCRIPTORS, Parcel};
use crate::sys::descriptors::{receive, send_datagram, send_pieces, waiting};
use crate::sys::mapping::{self, Frozen};

/// The longest message that can be sent without a file, whatever the capacity.
pub(super) const LONGEST_INLINE: usize = 64 << 10;

/// Both ends of a channel.
pub(super) struct Pair {
    pub(super) sending: OwnedFd,
    pub(super) receiving: OwnedFd,
    /// The longest message that goes inline: as many of them fit in the kernel's buffer as there
    /// are credits, so only the credits bound what waits.
    pub(super) inline: usize,
}

pub(super) fn pair(capacity: usize) -> io::Result<Pair> {
    let (sending, receiving) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    for end in [&sending, &receiving] {
        // As much as an unprivileged process may have; less is enough for small messages.
        setsockopt(end, sockopt::SndBuf, &(1 << 20))?;
    }
    for _ in 0..capacity {
        give_credit(receiving.as_fd())?;
    }
    let inline = inline(getsockopt(&sending, sockopt::SndBuf)?, capacity);
    Ok(Pair { sending, receiving, inline })
}

/// How long a message may be for `capacity` of them to fit in a kernel buffer of that size.
fn inline(buffer: usize, capacity: usize) -> usize {
    // The kernel allocates powers of two, and charges for its own notes on each message.
    const NOTES: usize = 512;
    let each = (buffer / (capacity + 1)).saturating_sub(NOTES).max(2 * NOTES);
    let block = 1 << each.ilog2();
    (block - NOTES).min(LONGEST_INLINE)
}

fn give_credit(receiving: BorrowedFd<'_>) -> io::Result<()> {
    send_pieces(receiving, [&[0]], &[], MsgFlags::MSG_DONTWAIT).map(drop)
}

/// What a datagram begins with: the payload follows, or is the whole of the last file.
const INLINE: u8 = 0;
const IN_FILE: u8 = 1;

/// A message on its way out.
#[derive(Debug)]
pub(super) struct Outgoing {
    parcel: Parcel,
    file: Option<Arc<OwnedFd>>,
}

impl Outgoing {
    pub(super) fn new(parcel: Parcel, inline: usize) -> io::Result<Self> {
        let mut file = None;
        if parcel.bytes.len() > inline {
            let memory = mapping::create(parcel.bytes.len())?;
            mapping::write(&memory, &parcel.bytes)?;
            mapping::freeze(&memory)?;
            file = Some(Arc::new(memory));
        }
        Ok(Self { parcel, file })
    }

    /// Whether it carries more descriptors than one message can.
    pub(super) fn is_overloaded(&self) -> bool {
        self.parcel.descriptors().len() + usize::from(self.file.is_some()) > MAX_DESCRIPTORS
    }

    fn send(&self, sending: BorrowedFd<'_>) -> io::Result<usize> {
        match &self.file {
            None => {
                let pieces = [&[INLINE][..], &self.parcel.bytes];
                send_datagram(sending, pieces, self.parcel.descriptors())
            }
            Some(file) => {
                let mut descriptors = self.parcel.descriptors().to_vec();
                descriptors.push(Arc::clone(file));
                let len = (self.parcel.bytes.len() as u64).to_le_bytes();
                send_datagram(sending, [&[IN_FILE][..], &len], &descriptors)
            }
        }
    }
}

/// What has to happen before a message can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// Somebody has to receive one.
    ForCredit,
    /// The kernel's buffer has to empty: more processes send at once than it was made for.
    ForRoom,
}

/// Whether a message may be sent now. `debt` says how many credits are still to be paid for.
pub(super) fn credit(
    sending: BorrowedFd<'_>,
    debt: &mut usize,
) -> Result<Result<(), Wait>, SendFailure> {
    while *debt > 0 {
        match take(sending, MsgFlags::empty())? {
            true => *debt -= 1,
            false => return Ok(Err(Wait::ForCredit)),
        }
    }
    Ok(take(sending, MsgFlags::MSG_PEEK)?.then_some(()).ok_or(Wait::ForCredit))
}

/// Sends a message if there is a credit for it.
pub(super) fn try_send(
    sending: BorrowedFd<'_>,
    message: &Outgoing,
    debt: &mut usize,
) -> Result<Result<(), Wait>, SendFailure> {
    if let Err(wait) = credit(sending, debt)? {
        return Ok(Err(wait));
    }
    match message.send(sending) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Err(Wait::ForRoom)),
        Err(error) => return Err(send_failure(error)),
    }
    // It is on its way, whatever happens now. If another process took the credit, one is owed.
    if !take(sending, MsgFlags::empty()).unwrap_or(true) {
        *debt += 1;
    }
    Ok(Ok(()))
}

/// Takes a credit, or looks for one; false if there is none.
fn take(sending: BorrowedFd<'_>, flags: MsgFlags) -> Result<bool, SendFailure> {
    loop {
        let flags = flags | MsgFlags::MSG_DONTWAIT;
        match recv(sending.as_raw_fd(), &mut [0], flags) {
            Ok(0) => return Err(SendFailure::Disconnected),
            Ok(_) => return Ok(true),
            Err(Errno::EAGAIN) => return Ok(false),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(send_failure(error.into())),
        }
    }
}

fn send_failure(error: io::Error) -> SendFailure {
    match error.kind() {
        // A receiver that ends with messages unread resets the connection.
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => SendFailure::Disconnected,
        _ => SendFailure::System(error),
    }
}

/// A message that has arrived.
#[derive(Debug)]
pub(super) struct Message {
    body: Body,
    descriptors: Vec<Arc<OwnedFd>>,
}

#[derive(Debug)]
enum Body {
    Here(Vec<u8>),
    InFile(Arc<OwnedFd>, usize),
    Broken(&'static str),
}

impl Message {
    /// Calls `read` with the bytes of the message.
    pub(super) fn open<T>(
        self,
        limits: &Limits,
        read: impl FnOnce(&[u8], Vec<Arc<OwnedFd>>) -> Result<T, DecodeError>,
    ) -> Result<T, RecvFailure> {
        let opened = match self.body {
            Body::Here(bytes) => read(&bytes, self.descriptors),
            Body::InFile(_, len) if len > limits.max_bytes => {
                Err(DecodeError::too_large::<T>(limits.max_bytes))
            }
            Body::InFile(file, len) => match Frozen::map(&file, len) {
                Ok(mapping) => read(&mapping.bytes()[..len], self.descriptors),
                Err(error) => Err(DecodeError::refused::<T>(error)),
            },
            Body::Broken(what) => Err(DecodeError::refused::<T>(what)),
        };
        opened.map_err(RecvFailure::Decode)
    }

    /// How many bytes it takes up to keep it here, not counting what is behind its descriptors.
    pub(super) fn cost(&self) -> usize {
        // A message of nothing takes up something, too: there is no end to those.
        size_of::<Self>()
            + match &self.body {
                Body::Here(bytes) => bytes.len(),
                // What it says of its length may be anything: what could be read is here.
                Body::InFile(..) | Body::Broken(_) => 0,
            }
    }

    /// How many descriptors it holds.
    pub(super) fn descriptors(&self) -> usize {
        self.descriptors.len() + usize::from(matches!(self.body, Body::InFile(..)))
    }

    /// Reads its bytes, if they are in a file: what waits for long should not hold descriptors.
    pub(super) fn take_in(&mut self, limits: &Limits) {
        if let Body::InFile(file, len) = &self.body
            && *len <= limits.max_bytes
            && mapping::is_frozen(file).unwrap_or(false)
            && let Ok(bytes) = mapping::read(file, *len)
        {
            self.body = Body::Here(bytes);
        }
    }

    fn parse(bytes: &[u8], mut descriptors: Vec<Arc<OwnedFd>>) -> Self {
        let body = match bytes.split_first() {
            Some((&INLINE, payload)) => Body::Here(payload.to_vec()),
            Some((&IN_FILE, len)) => {
                match (len.try_into().map(u64::from_le_bytes), descriptors.pop()) {
                    (Ok(len), Some(file)) => {
                        Body::InFile(file, usize::try_from(len).unwrap_or(usize::MAX))
                    }
                    _ => Body::Broken("a message without its content"),
                }
            }
            _ => Body::Broken("a message of an unknown form"),
        };
        Self { body, descriptors }
    }
}

/// What a receiver keeps from one message to the next.
#[derive(Debug, Default)]
pub(super) struct Intake {
    room: Vec<u8>,
    /// How many credits have not been given back, since the kernel took none.
    owed: usize,
}

impl Intake {
    /// Whether credits are owed: they have to be tried again, or a sender may wait for ever.
    pub(super) fn owes(&self) -> bool {
        self.owed > 0
    }

    /// Gives back what is owed, as far as the kernel takes it.
    pub(super) fn pay(&mut self, receiving: BorrowedFd<'_>) {
        while self.owed > 0 {
            match give_credit(receiving).map_err(|error| error.raw_os_error()) {
                // More credits than ever fit lie unused.
                Err(Some(libc::EAGAIN)) if is_full(receiving) => self.owed -= 1,
                Err(Some(libc::ENOBUFS | libc::ENOMEM | libc::EAGAIN)) => return,
                Ok(()) => self.owed -= 1,
                // Nobody is left to send. If somebody is, after all, it must not wait for a credit
                // that does not come: to it, this end is closed.
                Err(_) => {
                    self.owed = 0;
                    let _ = shutdown(receiving.as_raw_fd(), Shutdown::Write);
                }
            }
        }
    }
}

fn is_full(socket: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(socket, PollFlags::POLLOUT)];
    poll(&mut fds, 0u8).is_ok_and(|ready| ready == 0)
}

/// Receives a message, if one waits.
pub(super) fn try_receive(
    receiving: BorrowedFd<'_>,
    intake: &mut Intake,
) -> Result<Message, RecvFailure> {
    intake.pay(receiving);
    intake.room.resize(1 + LONGEST_INLINE, 0);
    let received = loop {
        match receive(receiving, &mut intake.room, MsgFlags::MSG_DONTWAIT) {
            Ok(received) => break received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(RecvFailure::NotNow);
            }
            // The last sender ended with credits unused. The kernel says so once, and before it
            // gives out what was sent.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            Err(error) => return Err(RecvFailure::System(error)),
        }
    };
    if received.len == 0 && received.descriptors.is_empty() && is_hung_up(receiving) {
        return Err(RecvFailure::Disconnected);
    }
    intake.owed += 1;
    intake.pay(receiving);
    if received.descriptors_lost {
        // The message is gone, in its place is this: whoever takes messages in keeps it as well.
        let lost = Body::Broken("its descriptors are more than this process may open");
        return Ok(Message { body: lost, descriptors: Vec::new() });
    }
    let descriptors = received.descriptors.into_iter().map(Arc::new).collect();
    let bytes = if received.cut { &[] } else { &intake.room[..received.len] };
    Ok(Message::parse(bytes, descriptors))
}

/// Whether nothing more will come, rather than that somebody sent an empty message.
fn is_hung_up(socket: BorrowedFd<'_>) -> bool {
    // Who ends only its sending half is not hung up, and what is read from then on is empty, for
    // ever.
    let mut fds = [PollFd::new(socket, PollFlags::from_bits_retain(libc::POLLRDHUP))];
    let polled = poll(&mut fds, 0u8);
    let events = fds[0].revents();
    // None is an event without a name there: the one that was asked for.
    let hung_up = polled.is_err() || events.is_none_or(|it| it.contains(PollFlags::POLLHUP));
    hung_up && waiting(socket).is_ok_and(|bytes| bytes == 0)
}

/// Blocks until something of `events` may be possible; false if `until` came first.
pub(super) fn wait(socket: BorrowedFd<'_>, events: PollFlags, until: Option<Instant>) -> bool {
    let mut fds = [PollFd::new(socket, events)];
    wait_for(&mut fds, until);
    fds[0].any().unwrap_or(true) || until.is_none_or(|until| Instant::now() < until)
}

/// Whether a socket is one that a channel can be made of. One that was received may be anything,
/// and not every descriptor can be used without blocking.
pub(super) fn is_channel(socket: &OwnedFd) -> bool {
    let seqpacket = matches!(getsockopt(socket, sockopt::SockType), Ok(SockType::SeqPacket));
    let name = nix::sys::socket::getsockname::<nix::sys::socket::UnixAddr>(socket.as_raw_fd());
    seqpacket && name.is_ok()
}

#[cfg(test)]
mod tests {
    use super::{LONGEST_INLINE, inline};

    #[test]
    fn as_many_messages_fit_as_there_are_credits() {
        for buffer in [212_992, 425_984] {
            for capacity in [1, 2, 10, 64, 200, 256] {
                let longest = inline(buffer, capacity);
                let charged = (longest + 320).next_power_of_two() + 256;
                assert!((256..=LONGEST_INLINE).contains(&longest));
                assert!(charged * capacity <= buffer.max(1280 * capacity), "{buffer} {capacity}");
            }
        }
    }
}
