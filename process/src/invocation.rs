//! A call as it runs in a child: each argument is decoded, the function is called with it, and what
//! it returns is the answer, as is whatever goes wrong.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::answering::Answering;
use crate::codec::{EncodeError, Limits, encode};
use crate::entry::State;
use crate::fault::Fault;
use crate::message::{Arguments, FAULT, VALUE, fault_limits};
use crate::panics;
use crate::parcel::{Luggage, pack_answer};
use crate::portable::Portable;
use crate::ring::Form;
use crate::shared::Hold;
use crate::sys::image::Image;
use crate::sys::pid::Original;
use crate::sys::process::exit_now;
use crate::sys::raw;
use crate::wire::HEADER;

/// Decodes the arguments of a call, calls the function for each, and encodes the answers.
pub(crate) type Trampoline = fn(&mut Invocation<'_, '_>);

/// A call as a trampoline sees it.
pub(crate) struct Invocation<'a, 'l> {
    pub(crate) function: usize,
    pub(crate) loan: Loan<'a>,
    pub(crate) arguments: Arguments<'a>,
    /// What goes along with the argument; gone once it has been decoded.
    pub(crate) luggage: Option<Box<Luggage>>,
    pub(crate) answering: &'a mut Answering<'l>,
}

/// What a function borrows besides its argument, and the limits for what is decoded.
pub(crate) struct Loan<'a> {
    pub(crate) state: Option<&'a mut State>,
    pub(crate) limits: &'a Limits,
}

impl<'a> Invocation<'a, '_> {
    /// Calls `body` with each argument, and answers with what it returns.
    #[inline]
    pub(crate) fn each<T: Portable, R: Portable>(
        &mut self,
        mut body: impl FnMut(&mut Loan<'a>, T) -> Result<R, Fault>,
    ) {
        let original = self.answering.original();
        // One fence for many calls: after a panic the next item begins behind a new one.
        while let Err(panic) = panics::catch(|| {
            while self.answering.begin() {
                self.answer_words(original, &mut body);
                if !self.answering.has_claimed() {
                    continue;
                }
                let value = self.argument().and_then(|argument| body(&mut self.loan, argument));
                end_copy(original);
                match value {
                    Ok(value) => self.answer(value, original),
                    Err(fault) => write_fault(self.answering, &fault),
                }
            }
        }) {
            end_copy(original);
            write_fault(self.answering, &Fault::Panicked(panic));
        }
    }

    /// The same for items that were claimed, as far as their answers are words that follow on others:
    /// the book-keeping of each would take longer than a small function.
    #[inline]
    fn answer_words<T: Portable, R: Portable>(
        &mut self,
        original: Original,
        mut body: impl FnMut(&mut Loan<'a>, T) -> Result<R, Fault>,
    ) {
        if !raw::is_word::<R>() {
            return;
        }
        let Some(mut words) = self.answering.words() else { return };
        while words.has_room() {
            let argument = argument(&mut self.arguments, &mut self.luggage, self.loan.limits);
            let value = argument.and_then(|argument| body(&mut self.loan, argument));
            end_copy(original);
            match value.map(|value| raw::word_of(&value)) {
                Ok(word) => words.put(word),
                Err(fault) => {
                    drop(words);
                    return write_fault(self.answering, &fault);
                }
            }
        }
    }

    /// What builds the state that the call borrows; it comes before the arguments.
    pub(crate) fn build(&mut self) -> Option<usize> {
        let offset = self.arguments.raw(size_of::<u64>()).try_into().ok()?;
        Image::this()?.function(u64::from_le_bytes(offset))
    }

    #[inline]
    fn argument<T: Portable>(&mut self) -> Result<T, Fault> {
        argument(&mut self.arguments, &mut self.luggage, self.loan.limits)
    }

    /// Answers the item that was begun. Should dropping the value panic, that is the answer.
    #[inline]
    fn answer<R: Portable>(&mut self, value: R, original: Original) {
        if let Some(bytes) = raw::bytes_of(&value) {
            self.answering.stage(Form::Raw).extend_from_slice(bytes);
            return self.answering.commit();
        }
        let numbers =
            raw::elements(&value).filter(|bytes| bytes.len() <= self.loan.limits.max_bytes);
        if let Some(made) = numbers.and_then(|bytes| self.answering.fill(bytes)) {
            drop(value);
            end_copy(original);
            return self.answering.lend(made);
        }
        let answer = self.answering.stage(Form::Framed);
        let start = answer.len();
        answer.extend_from_slice(&[0, 0, 0, 0, VALUE]);
        let packed = pack_answer(&value, answer, self.loan.limits);
        // Only what has descriptors may be a slice of shared memory.
        let _held = packed.as_ref().is_ok_and(|it| !it.is_empty()).then(Hold::begin);
        drop(value);
        // Its `Serialize` and its `Drop` are the user's code, too.
        end_copy(original);
        let sent = packed.and_then(|descriptors| {
            send(self.answering, start, &descriptors).map_err(|error| unsendable::<R>(&error))
        });
        if let Err(error) = sent {
            write_fault(self.answering, &Fault::Result(error));
        }
    }
}

/// Ends a copy of this process: an item's function returns in that as well. The answer, the wire and
/// all other calls are the original's, and so are the finalizers.
#[inline]
fn end_copy(original: Original) {
    if !original.is_here() {
        exit_now(0);
    }
}

/// The next argument.
#[inline]
fn argument<T: Portable>(
    arguments: &mut Arguments<'_>,
    luggage: &mut Option<Box<Luggage>>,
    limits: &Limits,
) -> Result<T, Fault> {
    if raw::is_plain::<T>() {
        // Not `ok_or`: to drop the fault that it is given takes as long as a small task.
        return match raw::number(arguments.raw(size_of::<T>())) {
            Some(number) => Ok(number),
            None => Err(Fault::NoSuchEntry),
        };
    }
    Luggage::unpack(luggage.take(), arguments.framed(), limits).map_err(Fault::Argument)
}

#[cold]
fn unsendable<R>(error: &io::Error) -> EncodeError {
    EncodeError::refused::<R>(format_args!(
        "the kernel has no room for its descriptors ({error}): hold fewer open, or return fewer at once"
    ))
}

/// Hands over the answer that was staged from `start` on. An error is the kernel's that has no room for
/// its descriptors: then nothing was handed over.
fn send(
    answering: &mut Answering<'_>,
    start: usize,
    descriptors: &[Arc<OwnedFd>],
) -> io::Result<()> {
    if descriptors.is_empty() && answering.fits() {
        let answer = answering.stage(Form::Framed);
        let len = (answer.len() - start - size_of::<u32>()) as u32;
        answer[start..start + size_of::<u32>()].copy_from_slice(&len.to_le_bytes());
        answering.commit();
        return Ok(());
    }
    let mut frame = answering.unstage();
    if let (true, Some((&VALUE, value))) =
        (descriptors.is_empty(), frame[size_of::<u32>()..].split_first())
        && let Some(made) = answering.fill(value)
    {
        answering.lend(made);
        return Ok(());
    }
    // Room for the frame's header, where the length would have been.
    frame.splice(..size_of::<u32>(), [0; HEADER]);
    answering.send(frame, descriptors)
}

/// Answers the item that was begun with a fault, whatever has been staged for it.
pub(crate) fn write_fault(answering: &mut Answering<'_>, fault: &Fault) {
    answering.unstage();
    let answer = answering.stage(Form::Framed);
    let start = answer.len();
    answer.extend_from_slice(&[0, 0, 0, 0, FAULT]);
    // A fault is made of texts that were cut and of numbers; should it not encode, its absence
    // still reads as a fault: an answer that cannot be decoded.
    let _ = encode(fault, answer, &fault_limits());
    // Only descriptors can be refused.
    let _ = send(answering, start, &[]);
}
