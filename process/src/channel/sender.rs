//! The sending end.

use std::fmt;
use std::marker::PhantomData;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

use super::backlog::wake_all;
use super::error::{SendError, SendFailure, SendTimeoutError, TrySendError};
use super::socket::{self, LONGEST_INLINE, Outgoing, Wait};
use crate::codec::{EncodeError, Limits};
use crate::parcel::{AttachError, attach_end, attached, pack};
use crate::portable::Portable;

/// The end of a [`channel`](crate::channel()) that sends.
///
/// Clones send to the same receiver, also from other processes. The receiver learns that nobody
/// will send any more when the last of them is gone.
pub struct Sender<T> {
    outlet: Arc<Outlet>,
    message: PhantomData<fn(T)>,
}

/// What the clones of one process share.
#[derive(Debug)]
struct Outlet {
    id: u64,
    socket: Arc<OwnedFd>,
    inline: usize,
    /// How many credits other processes took that were ours to take.
    debt: Mutex<usize>,
}

impl<T> Sender<T> {
    pub(super) fn new(id: u64, socket: Arc<OwnedFd>, inline: usize) -> Self {
        let outlet = Outlet { id, socket, inline: inline.min(LONGEST_INLINE), debt: Mutex::new(0) };
        Self { outlet: Arc::new(outlet), message: PhantomData }
    }
}

impl<T: Portable> Sender<T> {
    /// Sends a message; waits while the channel is full.
    ///
    /// When this returns, the message has been sent. Whether it is received is up to the receiver.
    ///
    /// # Errors
    ///
    /// [`SendError`] gives the message back.
    pub fn send(&self, message: T) -> Result<(), SendError<T>> {
        self.send_with(message, Patience::Endless, SendError::new)
    }

    /// Sends a message if the channel is not full.
    ///
    /// # Errors
    ///
    /// [`TrySendError`] gives the message back.
    pub fn try_send(&self, message: T) -> Result<(), TrySendError<T>> {
        self.send_with(message, Patience::None, TrySendError::new)
    }

    /// Sends a message; waits while the channel is full, but not longer than `timeout`.
    ///
    /// # Errors
    ///
    /// [`SendTimeoutError`] gives the message back.
    pub fn send_timeout(&self, message: T, timeout: Duration) -> Result<(), SendTimeoutError<T>> {
        let patience = match Instant::now().checked_add(timeout) {
            Some(until) => Patience::Until(until),
            None => Patience::Endless,
        };
        self.send_with(message, patience, SendTimeoutError::new)
    }

    fn send_with<E>(
        &self,
        message: T,
        patience: Patience,
        failed: fn(T, SendFailure) -> E,
    ) -> Result<(), E> {
        match self.outlet.send(&message, patience) {
            Ok(sent) => {
                // Before what was packed: until it is gone, a receiver in it is known to be leaving.
                drop(message);
                drop(sent);
                Ok(())
            }
            Err(failure) => {
                // A receiver in it is not leaving any more.
                wake_all();
                Err(failed(message, failure))
            }
        }
    }
}

/// How long to wait.
#[derive(Debug, Clone, Copy)]
enum Patience {
    None,
    Until(Instant),
    Endless,
}

impl Outlet {
    fn send<T: Portable>(&self, message: &T, patience: Patience) -> Result<Outgoing, SendFailure> {
        if let Patience::None = patience {
            // A message that cannot go need not be encoded.
            let mut debt = self.debt.lock().unwrap_or_else(PoisonError::into_inner);
            socket::credit(self.socket.as_fd(), &mut debt)?.map_err(|_| SendFailure::NotNow)?;
        }
        let parcel = pack(Vec::new(), message, &Limits::default()).map_err(SendFailure::Encode)?;
        let outgoing = Outgoing::new(parcel, self.inline).map_err(SendFailure::System)?;
        if outgoing.is_overloaded() {
            let error = EncodeError::refused::<T>(AttachError::TooMany);
            return Err(SendFailure::Encode(error));
        }
        loop {
            let sent = {
                let mut debt = self.debt.lock().unwrap_or_else(PoisonError::into_inner);
                socket::try_send(self.socket.as_fd(), &outgoing, &mut debt)?
            };
            let wanted = match sent {
                Ok(()) => return Ok(outgoing),
                Err(Wait::ForCredit) => PollFlags::POLLIN,
                Err(Wait::ForRoom) => PollFlags::POLLOUT,
            };
            let until = match patience {
                Patience::None => return Err(SendFailure::NotNow),
                Patience::Until(until) => Some(until),
                Patience::Endless => None,
            };
            if !socket::wait(self.socket.as_fd(), wanted, until) {
                return Err(SendFailure::NotNow);
            }
        }
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        // Else what is owed would stay in the channel as room for one message more.
        let debt = self.debt.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = socket::credit(self.socket.as_fd(), debt);
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self { outlet: Arc::clone(&self.outlet), message: PhantomData }
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

/// What of an end is written down.
#[derive(Serialize, Deserialize)]
struct End {
    socket: u32,
    id: u64,
    inline: u64,
}

impl<T> Serialize for Sender<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Outlet { id, inline, ref socket, .. } = *self.outlet;
        let socket = attach_end(socket, Some(id)).map_err(ser::Error::custom)?;
        End { socket, id, inline: inline as u64 }.serialize(serializer)
    }
}

impl<'de, T> Deserialize<'de> for Sender<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let End { socket, id, inline } = End::deserialize(deserializer)?;
        let socket = attached(socket).map_err(de::Error::custom)?;
        if !socket::is_channel(&socket) {
            return Err(de::Error::custom("the end of a channel that is none"));
        }
        Ok(Self::new(id, socket, usize::try_from(inline).unwrap_or(0)))
    }
}
