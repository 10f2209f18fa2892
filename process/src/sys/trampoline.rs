//! The trampolines: code compiled for one function type, which turns bytes into a call of it.
//!
//! [`crate::entry::Entry`] pairs each with a function of just that type, and nothing else makes
//! an entry; a child resolves the pair in the same build.

#![expect(unsafe_code, reason = "an address becomes a function again")]

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytemuck::Pod;

use super::image::function_at;
use crate::entry::{Joined, Joiner, Part};
use crate::fault::{Failure, Fault};
use crate::invocation::Invocation;
use crate::locals::{self, Local};
use crate::portable::Portable;
use crate::shared::SharedSlice;

pub(crate) fn plain<T: Portable, R: Portable>(call: &mut Invocation<'_, '_>) {
    // SAFETY: `Entry::plain` paired this instance with a function of this type.
    let function = unsafe { function_at::<fn(T) -> R>(call.function) };
    call.each(|_, argument| Ok(function(argument)));
}

pub(crate) fn fallible<T, R, E>(call: &mut Invocation<'_, '_>)
where
    T: Portable,
    R: Portable,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    // SAFETY: `Entry::fallible` paired this instance with a function of this type.
    let function = unsafe { function_at::<fn(T) -> Result<R, E>>(call.function) };
    call.each(|_, argument| {
        function(argument).map_err(|error| Fault::Failed(Failure::new(error.into())))
    });
}

pub(crate) fn with_state<S, T, R>(call: &mut Invocation<'_, '_>)
where
    S: Portable + 'static,
    T: Portable,
    R: Portable,
{
    // SAFETY: `Entry::with_state` paired this instance with a function of this type.
    let function = unsafe { function_at::<fn(&S, T) -> R>(call.function) };
    call.each(|loan, argument| {
        let limits = loan.limits;
        let state = loan.state.as_deref_mut().ok_or(Fault::NoSuchEntry)?;
        Ok(function(state.get(limits)?, argument))
    });
}

pub(crate) fn of_part<T: Pod, R: Portable>(call: &mut Invocation<'_, '_>) {
    // SAFETY: `Entry::of_part` paired this instance with a function of this type.
    let function = unsafe { function_at::<fn(&[T]) -> R>(call.function) };
    call.each(|loan, (start, len): Part| {
        let limits = loan.limits;
        let state = loan.state.as_deref_mut().ok_or(Fault::NoSuchEntry)?;
        let whole = state.get::<SharedSlice<T>>(limits)?;
        let part = whole.get(start as usize..).and_then(|rest| rest.get(..len as usize));
        Ok(function(part.ok_or(Fault::NoSuchEntry)?))
    });
}

/// No list takes much longer than this, so none delays the end of a job whose last items are slow:
/// what was not begun goes back, and from there to whoever is idle.
const MOST: Duration = Duration::from_millis(5);

pub(crate) fn joining<T: Portable, A: Portable>(call: &mut Invocation<'_, '_>) {
    // SAFETY: `Entry::joining` paired this instance with a first function of this type.
    let function = unsafe { function_at::<fn(T) -> A>(call.function) };
    call.each(|loan, items: Vec<T>| {
        let limits = loan.limits;
        let state = loan.state.as_deref_mut().ok_or(Fault::NoSuchEntry)?;
        let join = state.get::<Joiner>(limits)?.resolve().ok_or(Fault::NoSuchEntry)?;
        // SAFETY: the state of such a call is the `Joiner` that `Entry::joining` made along with
        // the entry, of a second function of this type.
        let join = unsafe { function_at::<fn(A, A) -> A>(join) };
        let (begin, mut items) = (Instant::now(), items.into_iter());
        let mut joined = function(items.next().ok_or(Fault::NoSuchEntry)?);
        let mut took = begin.elapsed();
        while took < MOST
            && let Some(item) = items.next()
        {
            joined = join(joined, function(item));
            took = begin.elapsed();
        }
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        Ok(Joined { joined, rest: items.collect::<Vec<T>>(), nanos })
    });
}

pub(crate) fn local<S, T, R>(call: &mut Invocation<'_, '_>)
where
    S: Send + 'static,
    T: Portable,
    R: Portable,
{
    // SAFETY: `Entry::local` paired this instance with a function of this type.
    let function = unsafe { function_at::<fn(&mut S, T) -> R>(call.function) };
    let local = local_of::<S>(call);
    call.each(|_, argument| {
        let mut state = local.as_ref().ok_or(Fault::NoSuchEntry)?.get();
        Ok(function(&mut state, argument))
    });
}

pub(crate) fn fallible_local<S, T, R, E>(call: &mut Invocation<'_, '_>)
where
    S: Send + 'static,
    T: Portable,
    R: Portable,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    // SAFETY: `Entry::fallible_local` paired this instance with a function of this type.
    let function = unsafe { function_at::<fn(&mut S, T) -> Result<R, E>>(call.function) };
    let local = local_of::<S>(call);
    call.each(|_, argument| {
        let mut state = local.as_ref().ok_or(Fault::NoSuchEntry)?.get();
        function(&mut state, argument).map_err(|error| Fault::Failed(Failure::new(error.into())))
    });
}

/// The state that a call borrows. Only the trampolines of `Entry::local` and its sibling ask.
fn local_of<S: Send + 'static>(call: &mut Invocation<'_, '_>) -> Option<Arc<Local<S>>> {
    let address = call.build()?;
    // SAFETY: whoever names this trampoline for `S` writes what builds an `S` behind the head.
    let build = unsafe { function_at::<fn() -> S>(address) };
    Some(locals::find(build))
}
