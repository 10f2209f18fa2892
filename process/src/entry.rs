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

use std::any::Any;

use bytemuck::Pod;

use crate::answering::Answering;
use crate::codec::Limits;
use crate::fault::Fault;
use crate::invocation::{Invocation, Loan, Trampoline, write_fault};
use crate::link::Link;
use crate::message::Arguments;
use crate::panics;
use crate::parcel::{Luggage, Parcel};
use crate::portable::Portable;
use crate::sys::image::Image;
use crate::sys::trampoline;

pub use crate::message::{
    AnswerKind, Request, answer, answers, ask, extend_from_answers, only_answer,
};

/// Data that is sent to a child once and then borrowed by many calls.
#[derive(Debug)]
pub struct State {
    encoded: Parcel,
    decoded: Option<Box<dyn Any>>,
}

impl State {
    /// Keeps the encoded form; the first call that borrows it decodes it.
    pub fn new(encoded: Parcel) -> Self {
        Self { encoded, decoded: None }
    }

    /// Drops the data. A panic of its `Drop` ends here.
    pub fn discard(self) {
        let _ = panics::catch(|| drop(self));
    }

    pub(crate) fn get<S: Portable + 'static>(&mut self, limits: &Limits) -> Result<&S, Fault> {
        if self.decoded.is_none() {
            let (luggage, bytes) = (self.encoded.take_luggage(), &self.encoded.bytes);
            let value: S = Luggage::unpack(luggage, bytes, limits).map_err(Fault::Argument)?;
            self.decoded = Some(Box::new(value));
            self.encoded = Parcel::default();
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
    /// What builds the state that it borrows; where the call is read, that is with the arguments.
    build: Option<u64>,
}

/// A part of a shared slice: its first element, and how many it has.
pub type Part = (u64, u64);

/// The second function of [`Entry::joining`], as it travels: an offset.
#[derive(Debug, Clone, Copy, serde::Serialize, serde::Deserialize)]
pub struct Joiner(u64);

impl Joiner {
    pub(crate) fn resolve(self) -> Option<usize> {
        Image::this()?.function(self.0)
    }
}

/// What became of a list of items.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
#[serde(bound(serialize = "T: Portable, A: Portable", deserialize = "T: Portable, A: Portable"))]
pub struct Joined<T, A> {
    /// What those that were done were joined to; at least the first was.
    pub joined: A,
    /// Those that were not done: there was no more time for them.
    pub rest: Vec<T>,
    /// How long the others took, in nanoseconds.
    pub nanos: u64,
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

    /// Names a function of a part of a shared slice. The state is the whole slice, and each argument
    /// a [`Part`] of it: where it begins, and how long it is.
    ///
    /// # Errors
    ///
    /// As [`Entry::plain`].
    pub fn of_part<T: Pod, R: Portable>(f: fn(&[T]) -> R) -> Result<Self, ForeignFunction> {
        Self::new(trampoline::of_part::<T, R>, f as usize)
    }

    /// Names two functions: one that is called for each item of a list, and one that joins what it
    /// returns, in order. The state is the [`Joiner`], each argument a `Vec<T>` that is not empty,
    /// and each result a [`Joined`].
    ///
    /// # Errors
    ///
    /// As [`Entry::plain`].
    pub fn joining<T: Portable, A: Portable>(
        f: fn(T) -> A,
        join: fn(A, A) -> A,
    ) -> Result<(Self, Joiner), ForeignFunction> {
        let entry = Self::new(trampoline::joining::<T, A>, f as usize)?;
        let image = Image::this().ok_or(ForeignFunction)?;
        let join = image.offset_of(join as usize).ok_or(ForeignFunction)?;
        Ok((entry, Joiner(join)))
    }

    /// Names a function that borrows a state of its process, which `build` builds there when it is
    /// first needed.
    ///
    /// # Errors
    ///
    /// As [`Entry::plain`].
    pub fn local<S, T, R>(build: fn() -> S, f: fn(&mut S, T) -> R) -> Result<Self, ForeignFunction>
    where
        S: Send + 'static,
        T: Portable,
        R: Portable,
    {
        Self::new(trampoline::local::<S, T, R>, f as usize)?.with_build(build as usize)
    }

    /// As [`Entry::local`], for a function that may fail with any error that has a message.
    ///
    /// # Errors
    ///
    /// As [`Entry::plain`].
    pub fn fallible_local<S, T, R, E>(
        build: fn() -> S,
        f: fn(&mut S, T) -> Result<R, E>,
    ) -> Result<Self, ForeignFunction>
    where
        S: Send + 'static,
        T: Portable,
        R: Portable,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let trampoline = trampoline::fallible_local::<S, T, R, E>;
        Self::new(trampoline, f as usize)?.with_build(build as usize)
    }

    fn with_build(mut self, build: usize) -> Result<Self, ForeignFunction> {
        let image = Image::this().ok_or(ForeignFunction)?;
        self.build = Some(image.offset_of(build).ok_or(ForeignFunction)?);
        Ok(self)
    }

    fn new(trampoline: Trampoline, function: usize) -> Result<Self, ForeignFunction> {
        let image = Image::this().ok_or(ForeignFunction)?;
        let trampoline = image.offset_of(trampoline as usize).ok_or(ForeignFunction)?;
        let function = image.offset_of(function).ok_or(ForeignFunction)?;
        Ok(Self { trampoline, function, build: None })
    }

    /// Appends what builds the state that it borrows, if there is one: the last before the arguments.
    pub fn write_build(&self, call: &mut Vec<u8>) {
        call.extend(self.build.into_iter().flat_map(u64::to_le_bytes));
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
        let function = u64::from_le_bytes(*function);
        Some((Self { trampoline, function, build: None }, rest))
    }

    /// Answers a call that names no function.
    pub fn reject(answering: &mut Answering<'_>) {
        while answering.begin() {
            write_fault(answering, &Fault::NoSuchEntry);
        }
    }

    /// Calls the function with each argument of a call that the child may begin, and answers.
    ///
    /// A panic of the function is an answer too, as is all else that goes wrong. The luggage is
    /// what goes along with the argument; a call that has some has one argument.
    pub fn run(
        &self,
        arguments: &[u8],
        luggage: Option<Box<Luggage>>,
        state: Option<&mut State>,
        limits: &Limits,
        answering: &mut Answering<'_>,
    ) {
        let found = Image::this().and_then(|image| {
            Some((image.trampoline(self.trampoline)?, image.function(self.function)?))
        });
        let Some((trampoline, function)) = found else { return Self::reject(answering) };
        let arguments = Arguments(arguments);
        let loan = Loan { state, limits };
        trampoline(&mut Invocation { function, loan, arguments, luggage, answering });
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

/// How long a fault may be, whatever the limit for values: that is about the user's data, and an
/// error must arrive however small it is.
pub(crate) const MAX_FAULT: usize = 4 << 20;
