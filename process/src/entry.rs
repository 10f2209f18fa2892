//! Entries: how a function is named so that another process of the same program finds it.
//!
//! What travels is `fn(T) -> R`, as two offsets from the base of this program's image: that of
//! the function, and that of a trampoline that was compiled for exactly its types and knows how
//! to decode `T` and encode `R`. Closures that capture nothing coerce to `fn`; a capture is a
//! compile error that names the variable:
//!
//! ```compile_fail,E0308
//! let factor = 3;
//! epilogue_process::Process::start(2, |x: u64| x * factor);
//! ```
//!
//! Offsets only ever flow from a parent to its child, which checks that both run the same build
//! and that each offset lies in executable memory.

use std::any::{Any, type_name};

use crate::codec::{DecodeError, EncodeError, Limits, Problem, decode, encode, encode_for};
use crate::fault::Fault;
use crate::link::Link;
use crate::panics;
use crate::portable::Portable;
use crate::sys::image::Image;
use crate::sys::trampoline;

/// Decodes a call's argument, calls the function, and encodes its answer.
pub(crate) type Trampoline = fn(&mut Invocation<'_>);

/// A call as a trampoline sees it.
pub(crate) struct Invocation<'a> {
    pub(crate) function: usize,
    pub(crate) state: Option<&'a mut State>,
    pub(crate) argument: &'a [u8],
    pub(crate) reply: &'a mut Vec<u8>,
    pub(crate) limits: &'a Limits,
}

/// Data that is sent to a child once and then borrowed by many calls.
#[derive(Debug)]
pub struct State {
    encoded: Vec<u8>,
    decoded: Option<Box<dyn Any>>,
}

impl State {
    /// Keeps the encoded form; the first call that borrows it decodes it.
    pub fn new(encoded: Vec<u8>) -> Self {
        Self { encoded, decoded: None }
    }

    /// Drops the data. A panic of its `Drop` ends here.
    pub fn discard(self) {
        let _ = panics::catch(|| drop(self));
    }

    pub(crate) fn get<S: Portable + 'static>(&mut self, limits: &Limits) -> Result<&S, Fault> {
        if self.decoded.is_none() {
            let value: S = decode(&self.encoded, limits).map_err(Fault::Argument)?;
            self.decoded = Some(Box::new(value));
            self.encoded = Vec::new();
        }
        let value = self.decoded.as_deref().and_then(|value| value.downcast_ref());
        value.ok_or(Fault::NoSuchEntry)
    }
}

/// A function of this program, named for another process of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    trampoline: u64,
    function: u64,
}

/// The function's code lies in another image than this crate's, so its offset means nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the function's code lies in another library than epilogue's: pass a closure that calls it"
)]
pub struct ForeignFunction;

impl Entry {
    /// How many bytes an entry takes in a call.
    pub const BYTES: usize = 16;

    /// Names a function of one argument.
    ///
    /// # Errors
    ///
    /// [`ForeignFunction`] if its code lies in another image (a dynamically linked library).
    pub fn plain<T: Portable, R: Portable>(f: fn(T) -> R) -> Result<Self, ForeignFunction> {
        Self::new(trampoline::plain::<T, R>, f as usize)
    }

    /// Names a function that may fail with any error that has a message.
    ///
    /// # Errors
    ///
    /// As [`Entry::plain`].
    pub fn fallible<T, R, E>(f: fn(T) -> Result<R, E>) -> Result<Self, ForeignFunction>
    where
        T: Portable,
        R: Portable,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        Self::new(trampoline::fallible::<T, R, E>, f as usize)
    }

    /// Names a function that borrows a state besides its argument.
    ///
    /// # Errors
    ///
    /// As [`Entry::plain`].
    pub fn with_state<S, T, R>(f: fn(&S, T) -> R) -> Result<Self, ForeignFunction>
    where
        S: Portable + 'static,
        T: Portable,
        R: Portable,
    {
        Self::new(trampoline::with_state::<S, T, R>, f as usize)
    }

    fn new(trampoline: Trampoline, function: usize) -> Result<Self, ForeignFunction> {
        let image = Image::this().ok_or(ForeignFunction)?;
        let trampoline = image.offset_of(trampoline as usize).ok_or(ForeignFunction)?;
        let function = image.offset_of(function).ok_or(ForeignFunction)?;
        Ok(Self { trampoline, function })
    }

    /// Appends the entry to a call.
    pub fn write(&self, call: &mut Vec<u8>) {
        call.extend_from_slice(&self.trampoline.to_le_bytes());
        call.extend_from_slice(&self.function.to_le_bytes());
    }

    /// Splits a call into its entry and the rest, or none if it is too short.
    pub fn read(call: &[u8]) -> Option<(Self, &[u8])> {
        let (trampoline, rest) = call.split_first_chunk()?;
        let (function, rest) = rest.split_first_chunk()?;
        let trampoline = u64::from_le_bytes(*trampoline);
        Some((Self { trampoline, function: u64::from_le_bytes(*function) }, rest))
    }

    /// Answers a call that names no function.
    pub fn reject(reply: &mut Vec<u8>) {
        write_fault(reply, &Fault::NoSuchEntry);
    }

    /// Calls the function with an encoded argument and appends its encoded answer to `reply`.
    ///
    /// A panic of the function is an answer too. When this returns, `reply` holds an answer that
    /// [`answer`] decodes, whatever happened.
    pub fn run(
        &self,
        argument: &[u8],
        state: Option<&mut State>,
        limits: &Limits,
        reply: &mut Vec<u8>,
    ) {
        let found = Image::this().and_then(|image| {
            Some((image.trampoline(self.trampoline)?, image.function(self.function)?))
        });
        match found {
            Some((trampoline, function)) => {
                trampoline(&mut Invocation { function, state, argument, reply, limits });
            }
            None => write_fault(reply, &Fault::NoSuchEntry),
        }
    }
}

/// The main function of a child, named for it.
#[derive(Debug, Clone, Copy, serde::Serialize, serde::Deserialize)]
pub(crate) struct MainEntry(u64);

impl MainEntry {
    pub(crate) fn new(main: fn(Link)) -> Result<Self, ForeignFunction> {
        let image = Image::this().ok_or(ForeignFunction)?;
        image.offset_of(main as usize).map(Self).ok_or(ForeignFunction)
    }

    pub(crate) fn resolve(self) -> Option<fn(Link)> {
        Image::this()?.main(self.0)
    }
}

const VALUE: u8 = 0;
const FAULT: u8 = 1;

impl Invocation<'_> {
    /// Runs `body`, which makes the value, and writes the value or what went wrong.
    pub(crate) fn answer<R: Portable>(&mut self, body: impl FnOnce(&mut Self) -> Result<R, Fault>) {
        let start = self.reply.len();
        // The value is encoded and dropped inside the fence: its `Drop` may panic as well.
        let outcome = panics::catch(|| {
            let value = body(self)?;
            self.reply.push(VALUE);
            encode(&value, self.reply, self.limits).map_err(Fault::Result)
        });
        if let Err(fault) = outcome.unwrap_or_else(|panic| Err(Fault::Panicked(panic))) {
            self.reply.truncate(start);
            write_fault(self.reply, &fault);
        }
    }

    pub(crate) fn argument<T: Portable>(&self) -> Result<T, Fault> {
        decode(self.argument, self.limits).map_err(Fault::Argument)
    }
}

/// How long a fault may be, whatever the limit for values: that is about the user's data, and an
/// error must arrive however small it is.
pub(crate) const MAX_FAULT: usize = 4 << 20;

fn fault_limits() -> Limits {
    Limits { max_bytes: MAX_FAULT, ..Limits::default() }
}

fn write_fault(reply: &mut Vec<u8>, fault: &Fault) {
    let start = reply.len();
    reply.push(FAULT);
    // A fault is made of texts that were cut and of numbers; should it not encode, its absence
    // still reads as a fault: an answer that cannot be decoded.
    if encode(fault, reply, &fault_limits()).is_err() {
        reply.truncate(start + 1);
    }
}

/// Appends an argument to a call. A panic of its own `Serialize` is an error, too.
///
/// # Errors
///
/// [`EncodeError`]; then `call` is as it was.
pub fn ask<T: Portable>(
    argument: &T,
    call: &mut Vec<u8>,
    limits: &Limits,
) -> Result<(), EncodeError> {
    panics::catch(|| encode_for::<T, T>(argument, call, limits)).unwrap_or_else(|panic| {
        let type_name = type_name::<T>().to_owned();
        Err(EncodeError { type_name, problem: Problem::Refused(panic.to_string()) })
    })
}

/// Decodes an answer.
///
/// # Errors
///
/// What the function's child reported instead of a value, or [`Fault::Reply`] if the answer
/// cannot be decoded: a panic of its own `Deserialize` included.
pub fn answer<R: Portable>(reply: &[u8], limits: &Limits) -> Result<R, Fault> {
    let Some((&VALUE, value)) = reply.split_first() else {
        let fault = reply.get(1..).unwrap_or_default();
        return Err(decode(fault, &fault_limits()).unwrap_or_else(Fault::Reply));
    };
    let decoded = panics::catch(|| decode(value, limits)).unwrap_or_else(|panic| {
        let type_name = type_name::<R>().to_owned();
        Err(DecodeError { type_name, problem: Problem::Refused(panic.to_string()) })
    });
    decoded.map_err(Fault::Reply)
}
