//! The wire: frames between a parent and one child.
//!
//! The parent's end never blocks: it queues what it sends, and takes what has arrived. To a child
//! on this machine the calls, and what is answered, go through a ring in shared memory; over the
//! socket goes what is too long for that, or has descriptors, and all that is no call.
//!
//! # Invariants
//!
//! 1. A frame arrives whole or not at all: what a dying peer left half written is not a frame.
//! 2. A length is checked before anything is allocated for it.
//! 3. A child that runs a call has claimed it. A call that was revoked is never claimed.
//! 4. End of file means that the peer is gone. It is not an error to be gone.
//! 5. A frame's header says how many descriptors belong to it, and they arrive with its first
//!    byte. Those that no frame claims are closed, and a peer that sends them out of turn, or more
//!    than this process can hold, has broken the protocol.
//!
//! A wire knows nothing of what a call means, nor of who is to be asked again; see `child`.

mod frames;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

pub(crate) use self::frames::{HEADER, Inbox, Outbox, seal};
use crate::parcel::Parcel;
use crate::ring::{Reply, Ticket};

/// What a frame is for. Those from 128 on go up, from a child to its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[repr(u8)]
pub enum Kind {
    /// The first frame: who the child is and what it shall do.
    Start = 1,
    /// A call; its payload is up to the child's main function.
    Call = 2,
    /// Data for later calls; the number is theirs to name it by.
    Share = 3,
    /// The data of that number is not needed any more.
    Forget = 4,
    /// No more calls will come.
    Finish = 5,
    /// Stop soon.
    Stop = 6,
    /// A call whose argument lies in a segment, with that segment.
    BulkCall = 7,
    /// Data for later calls, which lies in a segment, with that segment.
    BulkShare = 8,
    /// The child is up.
    Hello = 128,
    /// The child cannot do what it was asked; it is leaving.
    Refusal = 129,
    /// The answer to the call of the same number.
    Reply = 130,
    /// The child's last words: which finalizers ran.
    Goodbye = 131,
    /// The child has begun the call of this number, which came with descriptors: from here on
    /// they are the child's alone.
    Begun = 132,
    /// There is something in the ring.
    Ready = 133,
    /// The answer to the call of the same number lies in a segment, which comes along.
    BulkReply = 134,
    /// The child could not map the parent's segment of this number.
    Missed = 135,
    /// The child has taken more memory than it should.
    Grown = 136,
    /// What the child's code has to say, of the call of this number.
    Note = 137,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Start,
            2 => Self::Call,
            3 => Self::Share,
            4 => Self::Forget,
            5 => Self::Finish,
            6 => Self::Stop,
            7 => Self::BulkCall,
            8 => Self::BulkShare,
            128 => Self::Hello,
            129 => Self::Refusal,
            130 => Self::Reply,
            131 => Self::Goodbye,
            132 => Self::Begun,
            133 => Self::Ready,
            134 => Self::BulkReply,
            135 => Self::Missed,
            136 => Self::Grown,
            137 => Self::Note,
            _ => return None,
        })
    }
}

/// One message.
#[derive(Debug, Clone)]
pub struct Frame {
    /// What it is for.
    pub kind: Kind,
    /// Of a call, how many items it has; of a reply, to which of them it is.
    pub slot: u32,
    /// Which call or data it belongs to.
    pub id: u64,
    /// The rest, up to the kind.
    pub payload: Vec<u8>,
    /// The descriptors that the payload refers to.
    pub descriptors: Vec<Arc<OwnedFd>>,
}

impl Frame {
    /// A frame that belongs to no call.
    pub fn control(kind: Kind, payload: Vec<u8>) -> Self {
        Self { kind, slot: 0, id: 0, payload, descriptors: Vec::new() }
    }
}

/// Why a wire is of no use any more. The child behind it has to be brought to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// What arrived is not a frame, or one that no child sends, or not then.
    #[error("the child wrote something that is not a frame, or not one that it may send now")]
    Garbage,
    /// A frame says that it is longer than any may be.
    #[error("the child announced a frame of {len} bytes, more than the limit of {limit}")]
    TooLong {
        /// The length in the frame's header, in bytes.
        len: u64,
        /// The most that is allowed, in bytes.
        limit: usize,
    },
    /// Descriptors came that belong to no frame, or a frame came without its own.
    #[error("the child sent descriptors out of turn")]
    StrayDescriptors,
    /// A child is up once, or not at all, and leaves once.
    #[error("the child said again what is said once")]
    SaidAgain,
    /// The memory that an answer lies in could be taken away, or is less than it says.
    #[error("the child put an answer into memory that it could take away, or that is not there")]
    Segment,
    /// This process had no room for all the descriptors that came.
    #[error(
        "the child sent more descriptors than this process can hold: take its results sooner, or \
         raise the limit on open files"
    )]
    TooManyDescriptors,
    /// The connection is a stream of bytes, which carries no descriptors.
    #[error(
        "shared memory and channels cannot travel over this connection, which carries only bytes"
    )]
    BytesOnly,
    /// The operating system refused to read or write.
    #[error("the connection to the child failed: {0}")]
    Io(#[from] io::Error),
}

/// What [`Wire::receive`] found.
#[derive(Debug)]
pub enum Received {
    /// The next frame.
    Frame(Frame),
    /// No whole frame has arrived yet.
    Nothing,
    /// Much was read, and the connection has more to read: whoever waits for others as well, or not for
    /// long, looks after them first. A peer may be quicker to write than we are to read.
    More,
    /// The peer is gone, and all that it sent whole has been received.
    Closed,
}

/// The parent's end of a connection to one child.
///
/// There are two kinds: [`crate::LocalWire`], whose calls a child claims in shared memory, and
/// [`crate::StreamWire`] over any stream of bytes, for a child that shares none.
pub trait Wire: AsFd {
    /// Whether a call of so many bytes can be sent now.
    ///
    /// # Errors
    ///
    /// [`WireError`] if the child has spoiled what says so.
    fn has_room(&mut self, bytes: usize) -> Result<bool, WireError>;

    /// Sends a call of `count` items, for which there is room, and wakes the child if it sleeps.
    ///
    /// # Errors
    ///
    /// [`WireError::BytesOnly`] if it has descriptors and the wire carries none; nothing is sent.
    fn call(&mut self, id: u64, count: u32, payload: &Parcel) -> Result<Ticket, WireError>;

    /// Queues data for later calls, which name it by its number.
    ///
    /// # Errors
    ///
    /// As [`Wire::call`].
    fn share(&mut self, id: u64, payload: &Parcel) -> Result<(), WireError>;

    /// Lets the child drop the data of that number, after the calls that were sent before.
    fn forget(&mut self, id: u64);

    /// Queues a frame that is not a call.
    fn send(&mut self, kind: Kind, id: u64, payload: &[u8]);

    /// Writes as much of the queue as the connection takes; true if nothing is left.
    ///
    /// # Errors
    ///
    /// [`WireError::Io`], except where the peer is gone: then the queue is dropped, and
    /// [`Wire::receive`] tells of its end.
    fn flush(&mut self) -> Result<bool, WireError>;

    /// Takes the next frame that has arrived.
    ///
    /// # Errors
    ///
    /// [`WireError`] if what arrived is not a frame that a child may send.
    fn receive(&mut self) -> Result<Received, WireError>;

    /// The next answers that have arrived outside of frames.
    ///
    /// # Errors
    ///
    /// [`WireError`] if the child has spoiled the place where they are.
    fn reply(&mut self) -> Result<Option<Reply>, WireError>;

    /// What a child that has ended had answered and not handed over.
    fn salvage(&mut self) -> Option<Reply>;

    /// Takes an unanswered call back; true if the child has begun no item of it and never will.
    fn revoke(&mut self, ticket: Ticket, count: u32) -> bool;

    /// Takes items back from the end of a call; of those that have not begun, `keep` says how many
    /// to leave. Where the call ends now.
    fn shorten(&mut self, ticket: Ticket, count: u32, keep: &dyn Fn(u32) -> u32) -> u32;

    /// How many items of an unanswered call the child may have begun.
    fn begun(&self, ticket: Ticket, count: u32) -> u32;
}

/// What a child is told with [`Kind::Stop`].
#[derive(Debug, Clone, Copy, serde::Serialize, serde::Deserialize)]
pub(crate) struct StopOrder {
    /// How long the call that runs may take to return.
    pub(crate) work: Duration,
    /// How much longer the finalizers may take, whatever time their own deadline would leave them.
    pub(crate) finalizers: Duration,
}
