//! What can go wrong at either end of a channel. The names are those of `crossbeam-channel`.

use std::fmt;
use std::io;

use crate::codec::{DecodeError, EncodeError};

/// Why a message was not sent. The message is returned.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum SendError<T> {
    /// The receiver is gone, in whatever way. What was sent before may not have been received.
    #[error("sending on a channel whose receiver is gone")]
    Disconnected(T),
    /// The message cannot be encoded.
    #[error("the message cannot be sent: {1}")]
    Encode(T, #[source] EncodeError),
    /// The operating system refused.
    #[error("sending on a channel failed: {1}")]
    System(T, #[source] io::Error),
}

/// Why a message was not sent at once. The message is returned.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum TrySendError<T> {
    /// As many messages wait as the channel's capacity, or another thread is just sending.
    #[error("sending on a channel that is full")]
    Full(T),
    /// The receiver is gone, in whatever way. What was sent before may not have been received.
    #[error("sending on a channel whose receiver is gone")]
    Disconnected(T),
    /// The message cannot be encoded.
    #[error("the message cannot be sent: {1}")]
    Encode(T, #[source] EncodeError),
    /// The operating system refused.
    #[error("sending on a channel failed: {1}")]
    System(T, #[source] io::Error),
}

/// Why a message was not sent in time. The message is returned.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum SendTimeoutError<T> {
    /// The channel stayed full for that long.
    #[error("sending on a channel that stayed full")]
    Timeout(T),
    /// The receiver is gone, in whatever way. What was sent before may not have been received.
    #[error("sending on a channel whose receiver is gone")]
    Disconnected(T),
    /// The message cannot be encoded.
    #[error("the message cannot be sent: {1}")]
    Encode(T, #[source] EncodeError),
    /// The operating system refused.
    #[error("sending on a channel failed: {1}")]
    System(T, #[source] io::Error),
}

macro_rules! returns_message {
    ($($error:ident: $now:ident;)*) => {$(
        impl<T> $error<T> {
            /// The message.
            pub fn into_inner(self) -> T {
                match self {
                    Self::$now(message)
                    | Self::Disconnected(message)
                    | Self::Encode(message, _)
                    | Self::System(message, _) => message,
                }
            }

            /// Whether the receiver is gone.
            pub fn is_disconnected(&self) -> bool {
                matches!(self, Self::Disconnected(_))
            }

            pub(super) fn new(message: T, failure: SendFailure) -> Self {
                match failure {
                    SendFailure::NotNow => Self::$now(message),
                    SendFailure::Disconnected => Self::Disconnected(message),
                    SendFailure::Encode(error) => Self::Encode(message, error),
                    SendFailure::System(error) => Self::System(message, error),
                }
            }
        }

        impl<T> fmt::Debug for $error<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    Self::$now(_) => f.write_str(concat!(stringify!($now), "(..)")),
                    Self::Disconnected(_) => f.write_str("Disconnected(..)"),
                    Self::Encode(_, error) => write!(f, "Encode(.., {error:?})"),
                    Self::System(_, error) => write!(f, "System(.., {error:?})"),
                }
            }
        }
    )*};
}

returns_message! {
    TrySendError: Full;
    SendTimeoutError: Timeout;
}

impl<T> SendError<T> {
    /// The message.
    pub fn into_inner(self) -> T {
        match self {
            Self::Disconnected(message) | Self::Encode(message, _) | Self::System(message, _) => {
                message
            }
        }
    }

    /// Whether the receiver is gone.
    pub fn is_disconnected(&self) -> bool {
        matches!(self, Self::Disconnected(_))
    }

    pub(super) fn new(message: T, failure: SendFailure) -> Self {
        match failure {
            SendFailure::Disconnected => Self::Disconnected(message),
            SendFailure::Encode(error) => Self::Encode(message, error),
            SendFailure::System(error) => Self::System(message, error),
            // Whoever waits without an end is never told that it is not the time.
            SendFailure::NotNow => Self::System(message, io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl<T> fmt::Debug for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disconnected(_) => f.write_str("Disconnected(..)"),
            Self::Encode(_, error) => write!(f, "Encode(.., {error:?})"),
            Self::System(_, error) => write!(f, "System(.., {error:?})"),
        }
    }
}

/// Why nothing was sent, without the message.
#[derive(Debug)]
pub(super) enum SendFailure {
    NotNow,
    Disconnected,
    Encode(EncodeError),
    System(io::Error),
}

/// Why nothing was received.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecvError {
    /// All senders are gone, in whatever way, and all that they had sent has been received.
    #[error("receiving on a channel whose senders are gone")]
    Disconnected,
    /// A message came that cannot be decoded. It is gone; the next may be whole again.
    #[error("a message cannot be read: {0}")]
    Decode(#[source] DecodeError),
    /// The operating system refused.
    #[error("receiving on a channel failed: {0}")]
    System(#[source] io::Error),
}

/// Why nothing was received at once.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TryRecvError {
    /// No message waits.
    #[error("receiving on a channel that is empty")]
    Empty,
    /// All senders are gone, in whatever way, and all that they had sent has been received.
    #[error("receiving on a channel whose senders are gone")]
    Disconnected,
    /// A message came that cannot be decoded. It is gone; the next may be whole again.
    #[error("a message cannot be read: {0}")]
    Decode(#[source] DecodeError),
    /// The operating system refused.
    #[error("receiving on a channel failed: {0}")]
    System(#[source] io::Error),
}

/// Why nothing was received in time.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecvTimeoutError {
    /// No message came for that long.
    #[error("receiving on a channel that stayed empty")]
    Timeout,
    /// All senders are gone, in whatever way, and all that they had sent has been received.
    #[error("receiving on a channel whose senders are gone")]
    Disconnected,
    /// A message came that cannot be decoded. It is gone; the next may be whole again.
    #[error("a message cannot be read: {0}")]
    Decode(#[source] DecodeError),
    /// The operating system refused.
    #[error("receiving on a channel failed: {0}")]
    System(#[source] io::Error),
}

/// Why nothing was received, for all three.
#[derive(Debug)]
pub(super) enum RecvFailure {
    NotNow,
    Disconnected,
    Decode(DecodeError),
    System(io::Error),
}

impl From<RecvFailure> for RecvError {
    fn from(failure: RecvFailure) -> Self {
        match failure {
            RecvFailure::Disconnected => Self::Disconnected,
            RecvFailure::Decode(error) => Self::Decode(error),
            RecvFailure::System(error) => Self::System(error),
            // Whoever waits without an end is never told that it is not the time.
            RecvFailure::NotNow => Self::System(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl From<RecvFailure> for TryRecvError {
    fn from(failure: RecvFailure) -> Self {
        match failure {
            RecvFailure::NotNow => Self::Empty,
            RecvFailure::Disconnected => Self::Disconnected,
            RecvFailure::Decode(error) => Self::Decode(error),
            RecvFailure::System(error) => Self::System(error),
        }
    }
}

impl From<RecvFailure> for RecvTimeoutError {
    fn from(failure: RecvFailure) -> Self {
        match failure {
            RecvFailure::NotNow => Self::Timeout,
            RecvFailure::Disconnected => Self::Disconnected,
            RecvFailure::Decode(error) => Self::Decode(error),
            RecvFailure::System(error) => Self::System(error),
        }
    }
}
