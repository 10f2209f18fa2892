//! What can go wrong at either end of a channel. The names are those of `crossbeam-channel`.
//!
//! Each way to send has an error of its own, and so has each way to receive: what can happen to one
//! who waits without an end and to one who does not wait at all differs in one variant. The others
//! are written once, here.

use std::fmt;
use std::io;

use crate::codec::{DecodeError, EncodeError};

/// Why nothing was sent, without the message.
#[derive(Debug)]
pub(super) enum SendFailure {
    /// It could be sent later. Whoever waits without an end is never told that.
    NotNow,
    Disconnected,
    Encode(EncodeError),
    System(io::Error),
}

/// Why nothing was received.
#[derive(Debug)]
pub(super) enum RecvFailure {
    /// It may come later. Whoever waits without an end is never told that.
    NotNow,
    Disconnected,
    Decode(DecodeError),
    System(io::Error),
}

/// Whoever waits without an end has no word for it.
macro_rules! not_now {
    (($($message:ident,)?)) => { Self::System($($message,)? io::ErrorKind::WouldBlock.into()) };
    (() $not_now:ident) => { Self::$not_now };
    (($message:ident,) $not_now:ident) => { Self::$not_now($message) };
}

macro_rules! send_errors {
    ($(
        $(#[$about:meta])*
        $error:ident $({ $(#[$when:meta])* $not_now:ident })?
    )*) => {$(
        $(#[$about])*
        #[derive(thiserror::Error)]
        #[non_exhaustive]
        pub enum $error<T> {
            $($(#[$when])* $not_now(T),)?
            /// The receiver is gone, in whatever way. What was sent before may not have been
            /// received.
            #[error("sending on a channel whose receiver is gone")]
            Disconnected(T),
            /// The message cannot be encoded.
            #[error("the message cannot be sent: {1}")]
            Encode(T, #[source] EncodeError),
            /// The operating system refused.
            #[error("sending on a channel failed: {1}")]
            System(T, #[source] io::Error),
        }

        impl<T> $error<T> {
            /// The message.
            pub fn into_inner(self) -> T {
                match self {
                    $(Self::$not_now(message) => message,)?
                    Self::Disconnected(message)
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
                    SendFailure::NotNow => not_now!((message,) $($not_now)?),
                    SendFailure::Disconnected => Self::Disconnected(message),
                    SendFailure::Encode(error) => Self::Encode(message, error),
                    SendFailure::System(error) => Self::System(message, error),
                }
            }
        }

        /// Without the message, which need not be `Debug`.
        impl<T> fmt::Debug for $error<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$not_now(_) => f.write_str(concat!(stringify!($not_now), "(..)")),)?
                    Self::Disconnected(_) => f.write_str("Disconnected(..)"),
                    Self::Encode(_, error) => write!(f, "Encode(.., {error:?})"),
                    Self::System(_, error) => write!(f, "System(.., {error:?})"),
                }
            }
        }
    )*};
}

send_errors! {
    /// Why a message was not sent. The message is returned.
    ///
    /// # Examples
    ///
    /// ```
    /// use epilogue_process::{SendError, channel};
    ///
    /// let (sender, receiver) = channel()?;
    /// drop(receiver);
    /// let error = sender.send("lost".to_owned()).unwrap_err();
    /// assert!(matches!(&error, SendError::Disconnected(_)));
    /// assert_eq!(error.into_inner(), "lost");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    SendError

    /// Why a message was not sent at once. The message is returned.
    TrySendError {
        /// As many messages wait as the channel's capacity, or another thread is just sending.
        #[error("sending on a channel that is full")]
        Full
    }

    /// Why a message was not sent in time. The message is returned.
    SendTimeoutError {
        /// The channel stayed full for that long.
        #[error("sending on a channel that stayed full")]
        Timeout
    }
}

macro_rules! recv_errors {
    ($(
        $(#[$about:meta])*
        $error:ident $({ $(#[$when:meta])* $not_now:ident })?
    )*) => {$(
        $(#[$about])*
        #[derive(Debug, thiserror::Error)]
        #[non_exhaustive]
        pub enum $error {
            $($(#[$when])* $not_now,)?
            /// All senders are gone, in whatever way, and all that they had sent has been received.
            #[error("receiving on a channel whose senders are gone")]
            Disconnected,
            /// A message came that cannot be decoded, or whose descriptors found no room here. It
            /// is gone; the next may be whole again.
            #[error("a message cannot be read: {0}")]
            Decode(#[source] DecodeError),
            /// The operating system refused.
            #[error("receiving on a channel failed: {0}")]
            System(#[source] io::Error),
        }

        impl From<RecvFailure> for $error {
            fn from(failure: RecvFailure) -> Self {
                match failure {
                    RecvFailure::NotNow => not_now!(() $($not_now)?),
                    RecvFailure::Disconnected => Self::Disconnected,
                    RecvFailure::Decode(error) => Self::Decode(error),
                    RecvFailure::System(error) => Self::System(error),
                }
            }
        }
    )*};
}

recv_errors! {
    /// Why nothing was received.
    ///
    /// # Examples
    ///
    /// ```
    /// use epilogue_process::{RecvError, TryRecvError, channel};
    ///
    /// let (sender, receiver) = channel::<u64>()?;
    /// assert!(matches!(receiver.try_recv(), Err(TryRecvError::Empty)));
    /// drop(sender);
    /// assert!(matches!(receiver.recv(), Err(RecvError::Disconnected)));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    RecvError

    /// Why nothing was received at once.
    TryRecvError {
        /// No message waits.
        #[error("receiving on a channel that is empty")]
        Empty
    }

    /// Why nothing was received in time.
    RecvTimeoutError {
        /// No message came for that long.
        #[error("receiving on a channel that stayed empty")]
        Timeout
    }
}
