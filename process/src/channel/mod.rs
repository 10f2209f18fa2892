//! Channels: typed messages between processes, in both directions and between any two of them.
//!
//! A channel has two ends, which travel like any other value: as arguments, in results, in
//! messages of other channels, inside of structs. The end that is sent stays with nobody else, so
//! what drops it, or the death of the process that has it, is noticed at the other end.
//!
//! ```
//! use epilogue_process::{Process, Receiver, Sender, channel};
//!
//! fn double((numbers, doubles): (Receiver<u64>, Sender<u64>)) {
//!     for number in numbers {
//!         doubles.send(number.expect("a number") * 2).expect("a parent that listens");
//!     }
//! }
//!
//! let (numbers, receiver) = channel::<u64>()?;
//! let (sender, doubles) = channel::<u64>()?;
//! let process = Process::start((receiver, sender), double)?;
//! numbers.send(21)?;
//! assert_eq!(doubles.recv()?, 42);
//! drop(numbers); // The loop over there ends.
//! process.join()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Invariants
//!
//! 1. A message arrives whole or not at all, and in the order in which one sender sent it. What a
//!    process that was killed had half written is not a message.
//! 2. Whoever waits at one end learns that the other is gone, also if its process was killed, and
//!    before that receives all that had been sent.
//! 3. No more messages wait than the capacity says, with two exceptions: each further process that
//!    sends at the same moment may add one; and a sender that is killed in the instant after it has
//!    sent leaves room for one more, for good. No death ever takes room away.
//! 4. A peer is not trusted: it cannot make this process block, but by what SECURITY.md has under "Known,
//!    and open", nor read or allocate beyond the limits, and what it sends is a message of the type or
//!    an error. It can hold up, or use up, only the channels whose ends it has.
//!
//! # Joining before receiving
//!
//! A process that sends more than the capacity waits until somebody receives, and would wait for
//! ever if that somebody was waiting for its end. So [`Process::join`](crate::Process::join), and
//! dropping a handle, take in what waits, for every receiver of this process whose sender went
//! along with the argument of that process, up to [`BACKLOG`] bytes each, and as many descriptors
//! as half of those that this process may have open; it is received later, as if it still waited.
//! [`Process::try_join`](crate::Process::try_join) and
//! [`Process::is_finished`](crate::Process::is_finished) take in what waits at that moment, and
//! [`join_all`](crate::join_all) and a scope do so for all of their processes at once. Joining a task of a pool, mapping, and closing a pool do the same for the
//! senders that went along with those tasks. A sender that reached a process in another way is not
//! covered, such as in a message of a channel: for that one, receive before you join.
//!
//! # Costs
//!
//! A small message is a datagram of a Unix socket. A larger one (from half a kilobyte at a
//! capacity of 256 to 64 KiB at 1) is a sealed file in memory that the datagram refers to, so its
//! size is bounded by the default [`Limits`](crate::Limits) only. A [`SharedSlice`](crate::SharedSlice) inside a
//! message is not copied at all.

mod backlog;
mod error;
mod receiver;
mod sender;
mod socket;

use std::io;
use std::sync::Arc;

pub(crate) use backlog::take_in_now;
pub use backlog::{BACKLOG, Drain, forget_foreign};
pub use error::{
    RecvError, RecvTimeoutError, SendError, SendTimeoutError, TryRecvError, TrySendError,
};
pub use receiver::{IntoIter, Iter, Receiver, TryIter};
pub use sender::Sender;

use crate::portable::Portable;
use crate::sys::random;

/// The capacity of a channel that was made by [`channel`].
pub const DEFAULT_CAPACITY: usize = 64;

/// The most messages that can wait in a channel.
pub const MAX_CAPACITY: usize = 256;

/// Makes a channel in which up to 64 messages can wait.
///
/// # Errors
///
/// If the operating system has no descriptors or memory left.
///
/// # Examples
///
/// ```
/// use epilogue_process::{Process, Sender, channel};
///
/// let (sender, greetings) = channel::<String>()?;
/// let process = Process::start(sender, |sender: Sender<String>| {
///     sender.send("hello".to_owned()).is_ok()
/// })?;
/// assert!(process.join()?);
/// assert_eq!(greetings.recv()?, "hello");
/// assert!(greetings.recv().is_err()); // The sender is gone, with its process.
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn channel<T: Portable>() -> io::Result<(Sender<T>, Receiver<T>)> {
    channel_with(DEFAULT_CAPACITY)
}

/// Makes a channel in which up to `capacity` messages can wait.
///
/// # Errors
///
/// [`io::ErrorKind::InvalidInput`] if `capacity` is 0 or more than [`MAX_CAPACITY`]; or if the
/// operating system has no descriptors or memory left.
///
/// # Examples
///
/// ```
/// use epilogue_process::{TrySendError, channel_with};
///
/// let (sender, receiver) = channel_with::<u64>(1)?;
/// sender.send(1)?;
/// assert!(matches!(sender.try_send(2), Err(TrySendError::Full(2))));
/// assert_eq!(receiver.recv()?, 1);
/// sender.send(2)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn channel_with<T: Portable>(capacity: usize) -> io::Result<(Sender<T>, Receiver<T>)> {
    if !(1..=MAX_CAPACITY).contains(&capacity) {
        let message = "the capacity of a channel is from 1 to 256";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    let id = random::number()?;
    let pair = socket::pair(capacity)?;
    let sender = Sender::new(id, Arc::new(pair.sending), pair.inline);
    let receiver = Receiver::new(id, Arc::new(pair.receiving));
    Ok((sender, receiver))
}
