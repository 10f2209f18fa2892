//! The receiving end.

use std::fmt;
use std::marker::PhantomData;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

use super::backlog::Inlet;
use super::error::{RecvError, RecvFailure, RecvTimeoutError, TryRecvError};
use super::socket;
use crate::codec::Limits;
use crate::parcel::{attach_end, attached, unpack};
use crate::portable::Portable;

/// The end of a [`channel`](crate::channel()) that receives.
///
/// It yields messages as an iterator does, until all senders are gone. A message that cannot be
/// decoded is an error in its place, so none is lost in silence.
///
/// # Examples
///
/// ```
/// let (sender, receiver) = epilogue_process::channel::<String>()?;
/// sender.send("hello".to_owned())?;
/// drop(sender);
/// for message in receiver {
///     assert_eq!(message?, "hello");
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Receiver<T> {
    inlet: Arc<Inlet>,
    message: PhantomData<fn() -> T>,
}

impl<T> Receiver<T> {
    pub(super) fn new(id: u64, socket: Arc<OwnedFd>) -> Self {
        Self { inlet: Inlet::new(id, socket), message: PhantomData }
    }
}

impl<T: Portable> Receiver<T> {
    /// Receives a message; waits until there is one.
    ///
    /// # Errors
    ///
    /// [`RecvError::Disconnected`] once all senders are gone and all that they sent has been
    /// received; the others say why a message that came cannot be read.
    pub fn recv(&self) -> Result<T, RecvError> {
        Ok(self.receive(None)?)
    }

    /// Receives a message if one waits.
    ///
    /// # Errors
    ///
    /// [`TryRecvError`]; see [`Receiver::recv`].
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        Ok(self.inlet.try_receive().and_then(Self::read)?)
    }

    /// Receives a message; waits until there is one, but not longer than `timeout`.
    ///
    /// # Errors
    ///
    /// [`RecvTimeoutError`]; see [`Receiver::recv`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use epilogue_process::{RecvTimeoutError, channel};
    ///
    /// let (_sender, receiver) = channel::<u8>()?;
    /// let late = receiver.recv_timeout(Duration::from_millis(1));
    /// assert!(matches!(late, Err(RecvTimeoutError::Timeout)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn recv_timeout(&self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        Ok(self.receive(Instant::now().checked_add(timeout))?)
    }

    /// The messages, as they come, until all senders are gone.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, receiver) = epilogue_process::channel::<u64>()?;
    /// sender.send(1)?;
    /// sender.send(2)?;
    /// drop(sender);
    /// let numbers: Vec<u64> = receiver.iter().collect::<Result<_, _>>()?;
    /// assert_eq!(numbers, [1, 2]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn iter(&self) -> Iter<'_, T> {
        Iter { receiver: self, over: false }
    }

    /// The messages that wait already.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, receiver) = epilogue_process::channel::<u8>()?;
    /// sender.send(1)?;
    /// sender.send(2)?;
    /// assert_eq!(receiver.try_iter().count(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_iter(&self) -> TryIter<'_, T> {
        TryIter { receiver: self, over: false }
    }

    fn receive(&self, until: Option<Instant>) -> Result<T, RecvFailure> {
        loop {
            match self.inlet.receive_or_wait() {
                Err(RecvFailure::NotNow) => {}
                received => return received.and_then(Self::read),
            }
            let look_again = self.inlet.look_again();
            let first = until.into_iter().chain(look_again).min();
            let waited = socket::wait(self.inlet.socket(), PollFlags::POLLIN, first);
            self.inlet.end_wait();
            if !waited && until.is_some_and(|until| until <= Instant::now()) {
                return Err(RecvFailure::NotNow);
            }
        }
    }

    fn read(message: socket::Message) -> Result<T, RecvFailure> {
        let limits = Limits::default();
        message.open(&limits, |bytes, descriptors| unpack(bytes, descriptors, &limits))
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.inlet.abandon();
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}

/// What of an end is written down.
#[derive(Serialize, Deserialize)]
struct End {
    socket: u32,
    id: u64,
}

impl<T> Serialize for Receiver<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let attached = self.inlet.leave(|socket| attach_end(socket, None));
        let socket = attached.ok_or_else(|| {
            ser::Error::custom(
                "messages were taken in while their sender's process was joined: receive them \
                 before the receiver goes to another process",
            )
        })?;
        let socket = socket.map_err(ser::Error::custom)?;
        End { socket, id: self.inlet.id() }.serialize(serializer)
    }
}

impl<'de, T> Deserialize<'de> for Receiver<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let End { socket, id } = End::deserialize(deserializer)?;
        let socket = attached(socket).map_err(de::Error::custom)?;
        if !socket::is_channel(&socket) {
            return Err(de::Error::custom("the end of a channel that is none"));
        }
        Ok(Self::new(id, socket))
    }
}

/// The messages of a channel, as they come; see [`Receiver::iter`].
#[derive(Debug)]
pub struct Iter<'a, T> {
    receiver: &'a Receiver<T>,
    over: bool,
}

/// The messages that wait in a channel; see [`Receiver::try_iter`].
#[derive(Debug)]
pub struct TryIter<'a, T> {
    receiver: &'a Receiver<T>,
    over: bool,
}

/// The messages of a channel, as they come, with its receiver.
#[derive(Debug)]
pub struct IntoIter<T> {
    receiver: Receiver<T>,
    over: bool,
}

/// One step of an iterator: a failure of the system would come for ever.
fn step<T>(
    over: &mut bool,
    receive: impl FnOnce() -> Result<T, RecvFailure>,
) -> Option<Result<T, RecvError>> {
    if *over {
        return None;
    }
    match receive() {
        Ok(message) => Some(Ok(message)),
        Err(RecvFailure::Disconnected | RecvFailure::NotNow) => {
            *over = true;
            None
        }
        Err(failure) => {
            *over = matches!(failure, RecvFailure::System(_));
            Some(Err(failure.into()))
        }
    }
}

impl<T: Portable> Iterator for Iter<'_, T> {
    type Item = Result<T, RecvError>;

    fn next(&mut self) -> Option<Self::Item> {
        step(&mut self.over, || self.receiver.receive(None))
    }
}

impl<T: Portable> Iterator for TryIter<'_, T> {
    type Item = Result<T, RecvError>;

    fn next(&mut self) -> Option<Self::Item> {
        step(&mut self.over, || self.receiver.inlet.try_receive().and_then(Receiver::read))
    }
}

impl<T: Portable> Iterator for IntoIter<T> {
    type Item = Result<T, RecvError>;

    fn next(&mut self) -> Option<Self::Item> {
        step(&mut self.over, || self.receiver.receive(None))
    }
}

impl<'a, T: Portable> IntoIterator for &'a Receiver<T> {
    type Item = Result<T, RecvError>;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

impl<T: Portable> IntoIterator for Receiver<T> {
    type Item = Result<T, RecvError>;
    type IntoIter = IntoIter<T>;

    fn into_iter(self) -> IntoIter<T> {
        IntoIter { receiver: self, over: false }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::sync::{Arc, Barrier, mpsc};
    use std::thread;

    use nix::sys::socket::MsgFlags;

    use super::Receiver;
    use crate::channel::backlog::take_in_now;
    use crate::channel::{MAX_CAPACITY, channel, socket};
    use crate::codec::Limits;
    use crate::parcel::pack;
    use crate::sys::descriptors::{send_pieces, waiting};

    #[test]
    fn no_more_is_taken_in_at_once_than_can_wait_in_an_honest_channel() {
        let pair = socket::pair(1).unwrap();
        let receiver = Receiver::<u8>::new(7, Arc::new(pair.receiving));
        // Without credits.
        for _ in 0..=MAX_CAPACITY {
            send_pieces(pair.sending.as_fd(), [&[0, 7]], &[], MsgFlags::MSG_DONTWAIT).unwrap();
        }
        take_in_now(&[7]);
        assert_eq!(waiting(receiver.inlet.socket()).unwrap(), 2);
        assert_eq!(receiver.try_iter().count(), MAX_CAPACITY + 1);
    }

    #[test]
    fn a_receiver_leaves_with_all_of_its_messages_or_not_at_all() {
        let (ids, to_take_in) = mpsc::channel::<u64>();
        let both = Barrier::new(2);
        thread::scope(|scope| {
            scope.spawn(|| {
                for id in to_take_in {
                    both.wait();
                    take_in_now(&[id]);
                    both.wait();
                }
            });
            // Moved in here: without it the thread is done.
            let ids = ids;
            for round in 0..5_000u32 {
                let (sender, receiver) = channel::<u8>().unwrap();
                sender.send(7).unwrap();
                ids.send(receiver.inlet.id()).unwrap();
                both.wait();
                // They begin at the same time, and either is sometimes a little later.
                (0..round % 64).for_each(|step| _ = std::hint::black_box(step));
                let packed = pack(Vec::new(), &receiver, &Limits::default());
                both.wait();
                assert_eq!(packed.is_err(), receiver.inlet.has_backlog());
            }
        });
    }
}
