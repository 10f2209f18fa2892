//! Parcels: the bytes of a value, and the descriptors that it refers to.
//!
//! A type that owns a descriptor has its `Serialize` call [`attach`] and write the number that it
//! gets; its `Deserialize` reads that number and calls [`attached`]. Both work only while a value
//! is being packed for, or unpacked in, another process. Everywhere else they refuse, so that no
//! such value is silently lost in a file or a log.
//!
//! # Invariants
//!
//! 1. A parcel keeps its descriptors open for as long as it lives, so it can be sent again.
//! 2. What arrived and was not asked for by its number is closed once the value is unpacked.
//! 3. The contexts are scoped: they end with the packing, also by a panic, and nest.

#[cfg(test)]
mod tests;

use std::any::type_name;
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::codec::{DecodeError, EncodeError, Limits, Problem, decode, encode, encode_for};
use crate::portable::Portable;
use crate::segment::{self, Bulk};
use crate::sys::raw::{self, Source};

/// How many descriptors a parcel may carry: as many as the kernel takes with one message.
pub const MAX_DESCRIPTORS: usize = 253;

/// The bytes of a value, and what they refer to by number.
#[derive(Debug, Clone, Default)]
pub struct Parcel {
    /// What [`crate::codec`] wrote, after a head of the sender's.
    pub bytes: Vec<u8>,
    /// Most parcels have none, and pay one word for it.
    luggage: Option<Box<Luggage>>,
}

/// What goes along with the bytes of a parcel: descriptors, or what is too long to be among them.
#[derive(Debug, Clone, Default)]
pub struct Luggage {
    descriptors: Vec<Arc<OwnedFd>>,
    /// See [`Parcel::moves`].
    moves: bool,
    /// The channels whose sending end is among them.
    senders: Vec<u64>,
    /// What follows the bytes. Then there are no descriptors.
    bulk: Option<Bulk>,
}

impl Parcel {
    /// The descriptors, in the order of their numbers.
    #[inline]
    pub fn descriptors(&self) -> &[Arc<OwnedFd>] {
        self.luggage.as_deref().map_or(&[], |luggage| &luggage.descriptors)
    }

    /// Whether something in it is meant to have one owner, such as the end of a channel: then a
    /// copy that is kept for too long delays what its owner does by dropping it.
    pub fn moves(&self) -> bool {
        self.luggage.as_deref().is_some_and(|luggage| luggage.moves)
    }

    pub(crate) fn with_descriptors(bytes: Vec<u8>, descriptors: Vec<Arc<OwnedFd>>) -> Self {
        let luggage = (!descriptors.is_empty())
            .then(|| Box::new(Luggage { descriptors, ..Luggage::default() }));
        Self { bytes, luggage }
    }

    /// The channels whose sending end it carries; see [`Drain`](crate::channel::Drain).
    pub fn senders(&self) -> &[u64] {
        self.luggage.as_deref().map_or(&[], |luggage| &luggage.senders)
    }

    /// Takes the descriptors out.
    pub fn take_descriptors(&mut self) -> Vec<Arc<OwnedFd>> {
        let luggage = self.luggage.take_if(|luggage| luggage.bulk.is_none());
        luggage.map_or_else(Vec::new, |luggage| luggage.descriptors)
    }

    /// Takes all out that goes along.
    pub fn take_luggage(&mut self) -> Option<Box<Luggage>> {
        self.luggage.take()
    }

    /// Whether something goes along, so that it takes no second value.
    pub fn is_full(&self) -> bool {
        self.luggage.is_some()
    }

    /// How long it is in all, in bytes.
    pub fn len(&self) -> usize {
        self.bytes.len() + self.bulk().map_or(0, Bulk::len)
    }

    /// Whether it is of no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of its bytes, for a wire that carries nothing else.
    pub(crate) fn in_one(&self) -> Cow<'_, [u8]> {
        segment::in_one(&self.bytes, self.bulk())
    }

    pub(crate) fn with_bulk(bytes: Vec<u8>, bulk: Bulk) -> Self {
        let luggage = Luggage { bulk: Some(bulk), ..Luggage::default() };
        Self { bytes, luggage: Some(Box::new(luggage)) }
    }

    pub(crate) fn bulk(&self) -> Option<&Bulk> {
        self.luggage.as_deref()?.bulk.as_ref()
    }
}

impl Luggage {
    /// Reads a `T` from exactly these bytes and what goes along with them.
    pub(crate) fn unpack<T: Portable>(
        luggage: Option<Box<Self>>,
        bytes: &[u8],
        limits: &Limits,
    ) -> Result<T, DecodeError> {
        match luggage.map(|luggage| *luggage) {
            None => unpack(bytes, Vec::new(), limits),
            Some(Self { bulk: Some(bulk), .. }) => bulk.unpack(limits),
            Some(Self { descriptors, .. }) => unpack(bytes, descriptors, limits),
        }
    }
}

impl From<Vec<u8>> for Parcel {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, luggage: None }
    }
}

/// A descriptor cannot be attached to, or taken from, what is being written or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// Nothing is being sent to, or was received from, another process.
    #[error(
        "a descriptor travels only as part of what is sent to another process of this program: \
         as an argument, a result or a message of a channel"
    )]
    Nowhere,
    /// The value refers to more descriptors than one message can carry.
    #[error("a value can refer to {MAX_DESCRIPTORS} descriptors at most: send it in parts")]
    TooMany,
    /// No descriptor of this number came along.
    #[error("there is no descriptor number {0} with these bytes")]
    Missing(u32),
}

/// Whether this thread is packing, or unpacking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Context {
    Closed,
    /// What is packed has no descriptors so far, or what is unpacked came without.
    Empty,
    /// Its descriptors are the last on the stack.
    Loaded,
}

// Most values have no descriptors, and find that out without touching the stacks: those have to be
// destroyed with the thread, so each access to them asks whether they still are there.
thread_local! {
    static OUTGOING: Cell<Context> = const { Cell::new(Context::Closed) };
    static INCOMING: Cell<Context> = const { Cell::new(Context::Closed) };
    static PACKED: RefCell<Vec<Luggage>> = const { RefCell::new(Vec::new()) };
    static ARRIVED: RefCell<Vec<Vec<Arc<OwnedFd>>>> = const { RefCell::new(Vec::new()) };
}

/// While it lives, descriptors can be attached.
#[derive(Debug)]
struct Packing {
    before: (Context, Context),
}

impl Packing {
    fn open() -> Self {
        // A rehearsal unpacks what is being packed, not what else this thread was unpacking.
        let before = (OUTGOING.replace(Context::Empty), INCOMING.replace(Context::Closed));
        Self { before }
    }

    fn close(self) -> Option<Box<Luggage>> {
        match OUTGOING.replace(Context::Empty) {
            Context::Loaded => {
                let packed = PACKED.try_with(|stack| stack.borrow_mut().pop());
                packed.ok().flatten().map(Box::new)
            }
            Context::Empty | Context::Closed => None,
        }
    }
}

impl Drop for Packing {
    fn drop(&mut self) {
        if OUTGOING.replace(self.before.0) == Context::Loaded {
            let _ = PACKED.try_with(|stack| stack.borrow_mut().pop());
        }
        INCOMING.set(self.before.1);
    }
}

/// While it lives, descriptors can be taken.
#[derive(Debug)]
struct Unpacking {
    before: Context,
}

impl Unpacking {
    fn open(descriptors: Vec<Arc<OwnedFd>>) -> Self {
        let context = match descriptors.is_empty() {
            true => Context::Empty,
            // A thread whose locals are gone closes them here, and misses them later.
            false => match ARRIVED.try_with(|stack| stack.borrow_mut().push(descriptors)) {
                Ok(()) => Context::Loaded,
                Err(_) => Context::Empty,
            },
        };
        Self { before: INCOMING.replace(context) }
    }
}

impl Drop for Unpacking {
    fn drop(&mut self) {
        if INCOMING.replace(self.before) == Context::Loaded {
            let _ = ARRIVED.try_with(|stack| stack.borrow_mut().pop());
        }
    }
}

/// Attaches a descriptor to the value that this thread is packing; its number in there.
///
/// Call it from `Serialize`. The descriptor stays open at least until the value has been sent.
///
/// # Errors
///
/// [`AttachError`] if no value is being packed, or it carries as many as it can.
pub fn attach(descriptor: &Arc<OwnedFd>) -> Result<u32, AttachError> {
    with_luggage(|luggage| luggage.attach(descriptor))
}

/// Attaches the end of a channel, which is meant to have one owner; with the channel's number if
/// it is the sending end.
pub(crate) fn attach_end(
    descriptor: &Arc<OwnedFd>,
    sends_to: Option<u64>,
) -> Result<u32, AttachError> {
    with_luggage(|luggage| {
        let index = luggage.attach(descriptor)?;
        luggage.moves = true;
        luggage.senders.extend(sends_to);
        Ok(index)
    })
}

impl Luggage {
    fn attach(&mut self, descriptor: &Arc<OwnedFd>) -> Result<u32, AttachError> {
        let known = self.descriptors.iter().position(|other| Arc::ptr_eq(other, descriptor));
        let index = known.unwrap_or(self.descriptors.len());
        if known.is_none() {
            if index == MAX_DESCRIPTORS {
                return Err(AttachError::TooMany);
            }
            self.descriptors.push(Arc::clone(descriptor));
        }
        Ok(index as u32)
    }
}

fn with_luggage<R>(
    body: impl FnOnce(&mut Luggage) -> Result<R, AttachError>,
) -> Result<R, AttachError> {
    let context = OUTGOING.get();
    if context == Context::Closed {
        return Err(AttachError::Nowhere);
    }
    let attached = PACKED.try_with(|stack| {
        let mut stack = stack.borrow_mut();
        if context == Context::Empty {
            stack.push(Luggage::default());
            OUTGOING.set(Context::Loaded);
        }
        stack.last_mut().map_or(Err(AttachError::Nowhere), body)
    });
    attached.unwrap_or(Err(AttachError::Nowhere))
}

/// The descriptor of this number, of those that came with the value that this thread is unpacking.
///
/// Call it from `Deserialize`. Nothing is known of it but that it is open: it comes from another
/// process, which may have sent anything.
///
/// # Errors
///
/// [`AttachError`] if no value is being unpacked, or none of this number came with it.
pub fn attached(index: u32) -> Result<Arc<OwnedFd>, AttachError> {
    let find = |descriptors: &[Arc<OwnedFd>]| descriptors.get(index as usize).cloned();
    let found = match (INCOMING.get(), OUTGOING.get()) {
        (Context::Loaded, _) => {
            ARRIVED.try_with(|stack| stack.borrow().last().and_then(|last| find(last)))
        }
        // A rehearsal unpacks what is still being packed.
        (Context::Closed, Context::Loaded) => {
            PACKED.try_with(|stack| stack.borrow().last().and_then(|last| find(&last.descriptors)))
        }
        (Context::Closed, Context::Closed) => return Err(AttachError::Nowhere),
        (Context::Empty, _) | (Context::Closed, Context::Empty) => Ok(None),
    };
    found.ok().flatten().ok_or(AttachError::Missing(index))
}

/// Packs a value behind `head`, for a process that unpacks the same type; in debug builds
/// rehearses that, as [`crate::codec::encode_for`] does.
///
/// # Errors
///
/// [`EncodeError`] if the value is over a limit, or its type shows that it cannot be read back.
pub fn pack<T: Portable>(head: Vec<u8>, value: &T, limits: &Limits) -> Result<Parcel, EncodeError> {
    let mut parcel = Parcel::from(head);
    pack_behind(&mut parcel, value, limits)?;
    Ok(parcel)
}

/// Appends a value to the bytes of a parcel, whose descriptors are the value's from now on. On an
/// error or a panic the parcel is as it was.
pub(crate) fn pack_behind<T: Portable>(
    parcel: &mut Parcel,
    value: &T,
    limits: &Limits,
) -> Result<(), EncodeError> {
    if let Some(bytes) = raw::elements(value) {
        return append::<T>(bytes, &mut parcel.bytes, limits);
    }
    let packing = Packing::open();
    encode_for::<T, T>(value, &mut parcel.bytes, limits)?;
    parcel.luggage = packing.close();
    Ok(())
}

/// Appends a value to `bytes` without a rehearsal; with the descriptors that it refers to.
pub(crate) fn pack_answer<T: Portable>(
    value: &T,
    bytes: &mut Vec<u8>,
    limits: &Limits,
) -> Result<Vec<Arc<OwnedFd>>, EncodeError> {
    if let Some(elements) = raw::elements(value) {
        append::<T>(elements, bytes, limits)?;
        return Ok(Vec::new());
    }
    let packing = Packing::open();
    encode(value, bytes, limits)?;
    Ok(packing.close().map_or_else(Vec::new, |luggage| luggage.descriptors))
}

fn append<T>(elements: &[u8], bytes: &mut Vec<u8>, limits: &Limits) -> Result<(), EncodeError> {
    if elements.len() > limits.max_bytes {
        return Err(EncodeError {
            type_name: type_name::<T>().to_owned(),
            problem: Problem::TooLarge { limit: limits.max_bytes },
        });
    }
    bytes.extend_from_slice(elements);
    Ok(())
}

/// Reads a `T` from exactly these bytes and descriptors, and closes those it did not ask for.
///
/// # Errors
///
/// [`DecodeError`], as [`crate::codec::decode`].
pub fn unpack<T: Portable>(
    bytes: &[u8],
    descriptors: Vec<Arc<OwnedFd>>,
    limits: &Limits,
) -> Result<T, DecodeError> {
    if raw::element_size::<T>().is_some() {
        return unpack_from(bytes, limits);
    }
    let _unpacking = Unpacking::open(descriptors);
    decode(bytes, limits)
}

/// Reads a `T` that is a vector of numbers.
pub(crate) fn unpack_from<T: Portable>(
    source: &(impl Source + ?Sized),
    limits: &Limits,
) -> Result<T, DecodeError> {
    let (len, size) = (source.len(), raw::element_size::<T>().unwrap_or(1));
    let problem = match len > limits.max_bytes {
        true => Problem::TooLarge { limit: limits.max_bytes },
        false => Problem::Trailing { bytes: len % size },
    };
    let vector = if len <= limits.max_bytes { raw::vector(source) } else { None };
    vector.ok_or_else(|| DecodeError { type_name: type_name::<T>().to_owned(), problem })
}
