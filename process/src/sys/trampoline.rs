//! The trampolines: code compiled for one function type, which turns bytes into a call of it.
//!
//! [`crate::entry::Entry`] pairs each with a function of just that type, and nothing else makes
//! an entry; a child resolves the pair in the same build.

#![expect(unsafe_code, reason = "an address becomes a function again")]

use std::error::Error;

use super::image::function_at;
use crate::entry::Invocation;
use crate::fault::{Failure, Fault};
use crate::portable::Portable;

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
    call.each(|call, argument| {
        let limits = call.limits;
        let state = call.state.as_deref_mut().ok_or(Fault::NoSuchEntry)?;
        Ok(function(state.get(limits)?, argument))
    });
}
