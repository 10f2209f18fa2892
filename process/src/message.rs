//! What the bytes of calls and answers mean: arguments behind one another, and one answer for each.
//!
//! Numbers stand side by side. All else stands behind its length, so that one that cannot be read
//! does not take those after it along. An answer that is no number says first whether it is a value
//! or a fault.

use std::any::type_name;
use std::sync::Arc;

use crate::codec::{DecodeError, EncodeError, Limits, Problem, decode};
use crate::entry::MAX_FAULT;
use crate::fault::Fault;
use crate::panics;
use crate::parcel::{Parcel, pack_behind, unpack};
use crate::portable::Portable;
use crate::ring::{Form, Reply};
use crate::segment::{Bulk, Made, Stock};
use crate::sys::raw;

pub(crate) const VALUE: u8 = 0;
pub(crate) const FAULT: u8 = 1;

/// How long the length in front of a message is, in bytes.
const LENGTH: usize = size_of::<u32>();

/// Arguments that follow one another.
#[derive(Debug)]
pub(crate) struct Arguments<'a>(pub(crate) &'a [u8]);

impl<'a> Arguments<'a> {
    /// The next that is a number of so many bytes; fewer if there are not so many.
    #[inline]
    pub(crate) fn raw(&mut self, size: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(size.min(self.0.len()));
        self.0 = rest;
        bytes
    }

    /// The next that stands behind its length; empty if there is none.
    #[inline]
    pub(crate) fn framed(&mut self) -> &'a [u8] {
        self.try_framed().unwrap_or_default()
    }

    fn try_framed(&mut self) -> Option<&'a [u8]> {
        let (len, rest) = self.0.split_first_chunk::<LENGTH>()?;
        // One that is too long for the field is the only one.
        let len = match u32::from_le_bytes(*len) {
            u32::MAX => rest.len(),
            len => len as usize,
        };
        let (bytes, rest) = rest.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }
}

/// How the arguments of a request lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// Numbers of so many bytes, side by side.
    Raw(u32),
    /// Each behind its length.
    Framed,
}

/// A call that is being made: what it shall call, and one argument or more.
#[derive(Debug, Clone)]
pub struct Request {
    parcel: Parcel,
    /// How long what comes before the arguments is.
    head: u32,
    layout: Layout,
    count: u32,
}

/// Numbers on their way into a call, which has them when this is dropped.
#[derive(Debug)]
pub struct Numbers<'r> {
    request: &'r mut Request,
    bytes: Vec<u8>,
    count: u32,
}

impl Numbers<'_> {
    /// Adds one.
    #[inline]
    pub fn push<T: Portable>(&mut self, argument: &T) {
        if let Some(bytes) = raw::bytes_of(argument) {
            self.bytes.extend_from_slice(bytes);
            self.count += 1;
        }
    }
}

impl Drop for Numbers<'_> {
    #[inline]
    fn drop(&mut self) {
        self.request.parcel.bytes = std::mem::take(&mut self.bytes);
        self.request.count += self.count;
    }
}

impl Request {
    /// A call without arguments; `head` comes before them.
    pub fn new(head: Vec<u8>) -> Self {
        let (head, parcel) = (head.len() as u32, Parcel::from(head));
        Self { parcel, head, layout: Layout::Framed, count: 0 }
    }

    /// Adds an argument. One that refers to descriptors has a call of its own, which is returned,
    /// and so has one that is so long that it is put into a segment of `stock`. All arguments of a
    /// call have one type.
    ///
    /// # Errors
    ///
    /// [`EncodeError`]; see [`pack`](crate::parcel::pack). The call is as it was. A panic of the argument's own
    /// `Serialize` is an error, too.
    #[inline]
    pub fn push<T: Portable>(
        &mut self,
        argument: &T,
        limits: &Limits,
        stock: &Arc<Stock>,
    ) -> Result<Option<Self>, EncodeError> {
        if let Some(bytes) = raw::bytes_of(argument) {
            self.layout = Layout::Raw(bytes.len() as u32);
            self.parcel.bytes.extend_from_slice(bytes);
            self.count += 1;
            return Ok(None);
        }
        if let Some(made) = numbers_in(stock, argument, limits) {
            return Ok(self.push_made(made));
        }
        let start = self.parcel.bytes.len();
        self.parcel.bytes.extend_from_slice(&[0; LENGTH]);
        if let Err(error) = pack_fenced(&mut self.parcel, argument, limits) {
            self.parcel.bytes.truncate(start);
            return Err(error);
        }
        if !self.parcel.is_full()
            && let Some(made) = stock.fill(&self.parcel.bytes[start + LENGTH..])
        {
            self.parcel.bytes.truncate(start);
            self.parcel.bytes.shrink_to(self.head());
            return Ok(self.push_made(made));
        }
        let len = self.parcel.bytes.len() - start - LENGTH;
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        self.parcel.bytes[start..start + LENGTH].copy_from_slice(&len.to_le_bytes());
        if self.count == 0 || self.parcel.descriptors().is_empty() {
            self.count += 1;
            return Ok(None);
        }
        let before = self.parcel.bytes[..start].to_vec();
        let mut parcel = std::mem::replace(&mut self.parcel, Parcel::from(before));
        parcel.bytes.drain(self.head()..start);
        Ok(Some(Self { parcel, head: self.head, layout: self.layout, count: 1 }))
    }

    /// Whether a call takes any number of such arguments, since each is a number, or a few.
    #[inline]
    pub fn takes_several<T: Portable>() -> bool {
        raw::is_plain::<T>()
    }

    /// Adds arguments of which a call [`takes_several`](Request::takes_several), about `most` of
    /// them; any other is left out.
    pub fn numbers<T: Portable>(&mut self, most: usize) -> Numbers<'_> {
        let mut bytes = std::mem::take(&mut self.parcel.bytes);
        // Those that are large are few, as a rule.
        bytes.reserve((most * size_of::<T>()).min(1024));
        if Self::takes_several::<T>() {
            self.layout = Layout::Raw(size_of::<T>() as u32);
        }
        Numbers { request: self, bytes, count: 0 }
    }

    fn push_made(&mut self, made: Made) -> Option<Self> {
        let mut bytes = self.parcel.bytes[..self.head()].to_vec();
        // As long as there is something: it follows the bytes.
        bytes.extend_from_slice(&u32::MAX.to_le_bytes());
        let parcel = Parcel::with_bulk(bytes, Bulk::Made(Arc::new(made)));
        let alone = Self { parcel, head: self.head, layout: Layout::Framed, count: 1 };
        if self.count > 0 {
            return Some(alone);
        }
        *self = alone;
        None
    }

    /// How many arguments it has.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// How long it is, in bytes.
    #[inline]
    pub fn bytes(&self) -> usize {
        self.parcel.len()
    }

    /// What travels.
    pub fn parcel(&self) -> &Parcel {
        &self.parcel
    }

    /// What travels, to be changed.
    pub fn parcel_mut(&mut self) -> &mut Parcel {
        &mut self.parcel
    }

    /// Leaves the first `keep` arguments, and returns a call with the others.
    pub fn split_off(&mut self, keep: u32) -> Self {
        let keep = keep.min(self.count);
        let at = self.head() + self.length_of(keep);
        let mut bytes = self.parcel.bytes[..self.head()].to_vec();
        bytes.extend_from_slice(&self.parcel.bytes[at..]);
        let (head, layout, count) = (self.head, self.layout, self.count - keep);
        self.parcel.bytes.truncate(at);
        self.count = keep;
        if keep > 0 {
            return Self { parcel: Parcel::from(bytes), head, layout, count };
        }
        // Nothing is kept: the descriptors go with the argument.
        let mut parcel = std::mem::take(&mut self.parcel);
        self.parcel.bytes = std::mem::replace(&mut parcel.bytes, bytes);
        Self { parcel, head, layout, count }
    }

    fn head(&self) -> usize {
        self.head as usize
    }

    fn length_of(&self, count: u32) -> usize {
        match self.layout {
            Layout::Raw(size) => size as usize * count as usize,
            Layout::Framed => {
                let all = &self.parcel.bytes[self.head()..];
                let mut arguments = Arguments(all);
                for _ in 0..count {
                    arguments.framed();
                }
                all.len() - arguments.0.len()
            }
        }
    }
}

/// Packs an argument behind `head`, or into a segment of `stock` if it is long. A panic of its own `Serialize` is an error, too.
///
/// # Errors
///
/// [`EncodeError`]; see [`pack`](crate::parcel::pack).
#[inline]
pub fn ask<T: Portable>(
    argument: &T,
    head: Vec<u8>,
    limits: &Limits,
    stock: &Arc<Stock>,
) -> Result<Parcel, EncodeError> {
    if let Some(made) = numbers_in(stock, argument, limits) {
        return Ok(Parcel::with_bulk(head, Bulk::Made(Arc::new(made))));
    }
    let (start, mut parcel) = (head.len(), Parcel::from(head));
    pack_fenced(&mut parcel, argument, limits)?;
    if !parcel.is_full()
        && let Some(made) = stock.fill(&parcel.bytes[start..])
    {
        parcel.bytes.truncate(start);
        parcel.bytes.shrink_to_fit();
        return Ok(Parcel::with_bulk(parcel.bytes, Bulk::Made(Arc::new(made))));
    }
    Ok(parcel)
}

/// Puts a vector of numbers that is long, but not too long, straight into a segment.
pub(crate) fn numbers_in<T>(stock: &Arc<Stock>, value: &T, limits: &Limits) -> Option<Made> {
    let numbers = raw::elements(value).filter(|bytes| bytes.len() <= limits.max_bytes)?;
    stock.fill(numbers)
}

fn pack_fenced<T: Portable>(
    parcel: &mut Parcel,
    value: &T,
    limits: &Limits,
) -> Result<(), EncodeError> {
    panics::catch(|| pack_behind(parcel, value, limits)).unwrap_or_else(|panic| {
        let problem = Problem::Refused(panic.to_string());
        Err(EncodeError { type_name: type_name::<T>().to_owned(), problem })
    })
}

/// Decodes an answer that came alone.
///
/// # Errors
///
/// What the function's child reported instead of a value, or [`Fault::Reply`] if the answer
/// cannot be decoded: a panic of its own `Deserialize` included.
pub fn answer<R: Portable>(mut reply: Parcel, limits: &Limits) -> Result<R, Fault> {
    if let Some(bulk) = reply.bulk() {
        let decoded = panics::catch(|| bulk.unpack(limits));
        let decoded = decoded.unwrap_or_else(|panic| Err(unreadable::<R>(panic.to_string())));
        return decoded.map_err(Fault::Reply);
    }
    let descriptors = reply.take_descriptors();
    let Some((&VALUE, value)) = reply.bytes.split_first() else {
        return Err(fault_of(reply.bytes.get(1..).unwrap_or_default()));
    };
    let decoded = panics::catch(|| unpack(value, descriptors, limits));
    decoded.unwrap_or_else(|panic| Err(unreadable::<R>(panic.to_string()))).map_err(Fault::Reply)
}

/// Decodes the answers of a reply, and hands each to `each`: as many as the reply says, whatever
/// its bytes are.
pub fn answers<R: Portable>(
    reply: &Reply,
    limits: &Limits,
    mut each: impl FnMut(Result<R, Fault>),
) {
    let mut bytes = Arguments(&reply.bytes);
    for _ in 0..reply.count {
        each(match reply.form {
            Form::Raw => {
                let number = raw::number(bytes.raw(size_of::<R>()));
                number.ok_or_else(|| Fault::Reply(unreadable::<R>("no number".to_owned())))
            }
            Form::Framed => match bytes.framed().split_first() {
                Some((&VALUE, value)) => {
                    let decoded = panics::catch(|| unpack(value, Vec::new(), limits));
                    let decoded =
                        decoded.unwrap_or_else(|panic| Err(unreadable::<R>(panic.to_string())));
                    decoded.map_err(Fault::Reply)
                }
                Some((_, fault)) => Err(fault_of(fault)),
                None => Err(fault_of(&[])),
            },
            // The wire has made a parcel of it.
            Form::Bulk => Err(fault_of(&[])),
        });
    }
}

/// What an answer is, as far as its first bytes tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AnswerKind {
    /// A value, which may turn out to be none as it is decoded.
    Value,
    /// The function panicked.
    Panicked,
    /// The function returned an error.
    Failed,
    /// Another fault.
    Fault,
}

impl AnswerKind {
    /// What an answer is that came alone.
    pub fn of(answer: &Parcel) -> Self {
        match answer.bulk() {
            Some(_) => Self::Value,
            None => Self::of_bytes(&answer.bytes),
        }
    }

    fn of_bytes(answer: &[u8]) -> Self {
        match *answer {
            [VALUE, ..] => Self::Value,
            // The place of the variant in `Fault`.
            [FAULT, 0, ..] => Self::Panicked,
            [FAULT, 1, ..] => Self::Failed,
            _ => Self::Fault,
        }
    }

    /// What the answers of a reply are: as many as it says, whatever its bytes are.
    pub fn each(reply: &Reply) -> impl Iterator<Item = Self> {
        let mut bytes = Arguments(&reply.bytes);
        (0..reply.count).map(move |_| match reply.form {
            Form::Raw | Form::Bulk => Self::Value,
            Form::Framed => Self::of_bytes(bytes.framed()),
        })
    }
}

/// Decodes the answers of a reply, and appends the values to `values`, up to the first fault.
///
/// # Errors
///
/// The first fault, and which answer of the reply it was.
pub fn extend_from_answers<R: Portable>(
    reply: &Reply,
    limits: &Limits,
    values: &mut Vec<R>,
) -> Result<(), (usize, Fault)> {
    if let (Form::Raw, Some(numbers)) = (reply.form, raw::numbers::<R>(&reply.bytes))
        && numbers.len() == reply.count as usize
    {
        values.extend(numbers);
        return Ok(());
    }
    let (mut index, mut first) = (0, None);
    answers(reply, limits, |answer| {
        match answer {
            Ok(value) if first.is_none() => values.push(value),
            Ok(_) => {}
            Err(fault) => drop(first.get_or_insert((index, fault))),
        }
        index += 1;
    });
    first.map_or(Ok(()), Err)
}

/// Decodes the answer of a call that had one item.
///
/// # Errors
///
/// As [`answer`].
pub fn only_answer<R: Portable>(reply: &Reply, limits: &Limits) -> Result<R, Fault> {
    let mut only = Err(fault_of(&[]));
    if reply.count != 1 {
        return only;
    }
    answers(reply, limits, |answer| only = answer);
    only
}

fn fault_of(bytes: &[u8]) -> Fault {
    decode(bytes, &fault_limits()).unwrap_or_else(Fault::Reply)
}

fn unreadable<R>(problem: String) -> DecodeError {
    DecodeError { type_name: type_name::<R>().to_owned(), problem: Problem::Refused(problem) }
}

pub(crate) fn fault_limits() -> Limits {
    Limits { max_bytes: MAX_FAULT, ..Limits::default() }
}
