//! Segments: what is too long for a ring lies in memory of its own, which is used again and again.
//!
//! Each side writes to segments that it made itself, and reads those of the other side: arguments
//! lie in the parent's, values in a child's. See `README.md` beside this file for the protocol, and
//! why nobody reads what is being written.

mod lender;
mod shelf;
mod stock;

use std::any::type_name;
use std::borrow::Cow;
use std::os::fd::OwnedFd;
use std::sync::Arc;

pub(crate) use lender::Lender;
pub(crate) use shelf::{Shelf, Unusable, View};
pub(crate) use stock::Made;
pub use stock::Stock;

use crate::codec::{DecodeError, Limits, Problem};
use crate::parcel::{unpack, unpack_from};
use crate::portable::Portable;
use crate::sys::raw;
use crate::sys::segment::Start;

/// How many segments a process keeps for one reader, at most. Each has a bit in a word.
pub(crate) const SLOTS: usize = 32;

/// Which segment, and how much of it: what travels in the place of the content itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    /// The segment's number, if its reader shall keep it; else [`Extent::ALONE`].
    pub(crate) slot: u32,
    /// The numbers of all that are kept. The reader can drop others.
    live: u32,
    len: u64,
}

impl Extent {
    /// A segment that is used once.
    const ALONE: u32 = u32::MAX;
    pub(crate) const BYTES: usize = 16;

    pub(crate) fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..4].copy_from_slice(&self.slot.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.live.to_le_bytes());
        bytes[8..].copy_from_slice(&self.len.to_le_bytes());
        bytes
    }

    /// Splits bytes into an extent and the rest. None if they are too short, or there is no such
    /// number.
    pub(crate) fn split(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (slot, rest) = bytes.split_first_chunk()?;
        let (live, rest) = rest.split_first_chunk()?;
        let (len, rest) = rest.split_first_chunk()?;
        let slot = u32::from_le_bytes(*slot);
        let is_known = slot == Self::ALONE || (slot as usize) < SLOTS;
        let (live, len) = (u32::from_le_bytes(*live), u64::from_le_bytes(*len));
        is_known.then_some((Self { slot, live, len }, rest))
    }
}

/// What of a parcel is not in its bytes.
#[derive(Debug, Clone)]
pub(crate) enum Bulk {
    /// It lies in a segment that was made here.
    Made(Arc<Made>),
    /// It lies in a segment that has just come, with its descriptor, unless that was lost.
    Arrived(Extent, Option<Arc<OwnedFd>>),
    /// It lies in a segment of another process.
    Received(Arc<View>),
    /// It cannot be had; why.
    Missing(Arc<str>),
}

impl Bulk {
    /// How long it is, in bytes.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Made(made) => made.bytes().len(),
            Self::Received(view) => view.len(),
            Self::Arrived(..) | Self::Missing(_) => 0,
        }
    }

    /// It, where it was made.
    pub(crate) fn made(&self) -> Option<&Made> {
        match self {
            Self::Made(made) => Some(made),
            Self::Arrived(..) | Self::Received(_) | Self::Missing(_) => None,
        }
    }

    /// Reads a `T` from exactly this. What another process may be writing to is copied before it
    /// is looked at.
    pub(crate) fn unpack<T: Portable>(&self, limits: &Limits) -> Result<T, DecodeError> {
        match self {
            Self::Made(made) => unpack(made.bytes(), Vec::new(), limits),
            // Before it is copied: its maker says how long it is.
            Self::Received(view) if view.len() > limits.max_bytes => {
                Err(DecodeError::too_large::<T>(limits.max_bytes))
            }
            Self::Received(view) => match raw::element_size::<T>() {
                Some(_) => unpack_from(&view.start(), limits),
                None => {
                    let copy = raw::vector::<Vec<u8>>(&view.start()).unwrap_or_default();
                    unpack(&copy, Vec::new(), limits)
                }
            },
            Self::Arrived(..) => Err(unreadable::<T>("its memory was not looked at")),
            Self::Missing(why) => Err(unreadable::<T>(why)),
        }
    }
}

fn unreadable<T>(why: &str) -> DecodeError {
    let problem = Problem::Refused(format!("it lies in shared memory: {why}"));
    DecodeError { type_name: type_name::<T>().to_owned(), problem }
}

/// Bytes that are followed by what lies in a segment, for a wire that carries bytes only.
pub(crate) fn in_one<'a>(bytes: &'a [u8], bulk: Option<&Bulk>) -> Cow<'a, [u8]> {
    match bulk.and_then(Bulk::made) {
        Some(made) => Cow::Owned([bytes, made.bytes()].concat()),
        None => Cow::Borrowed(bytes),
    }
}

impl View {
    fn start(&self) -> Start<'_> {
        Start(self.window(), self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::Extent;

    #[test]
    fn an_extent_comes_back_as_it_was_and_one_without_a_segment_does_not() {
        for slot in [0, 31, Extent::ALONE] {
            let extent = Extent { slot, live: 7, len: 1 << 40 };
            let bytes = [&extent.to_bytes()[..], &[1, 2]].concat();
            assert_eq!(Extent::split(&bytes), Some((extent, &[1, 2][..])));
        }
        let extent = Extent { slot: 32, live: 0, len: 0 };
        assert_eq!(Extent::split(&extent.to_bytes()), None);
        assert_eq!(Extent::split(&[0; 15]), None);
    }
}
