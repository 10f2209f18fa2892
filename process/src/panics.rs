//! Panics of user code in a child: caught, with their message and place.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};

use crate::fault::Panic;

thread_local! {
    static LOCATION: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// The longest message that travels; the rest is cut off.
const MAX_MESSAGE: usize = 64 * 1024;

/// Remembers the place of every panic, then lets the hook before it speak.
pub(crate) fn remember_locations() {
    let previous = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let location = info.location().map(ToString::to_string);
        // A panic while this thread's locals are destroyed has no place, which is no harm.
        let _ = LOCATION.try_with(|last| *last.borrow_mut() = location);
        previous(info);
    }));
}

/// Calls `body`; a panic of it is returned.
pub(crate) fn catch<R>(body: impl FnOnce() -> R) -> Result<R, Panic> {
    let _ = LOCATION.try_with(|last| last.borrow_mut().take());
    panic::catch_unwind(AssertUnwindSafe(body)).map_err(|payload| {
        let location = LOCATION.try_with(|last| last.borrow_mut().take()).ok().flatten();
        let panic = Panic { message: message(&*payload), location };
        // The payload is the user's, and its `Drop` may panic again.
        if let Err(second) = panic::catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            std::mem::forget(second);
        }
        panic
    })
}

/// The text of a panic's payload.
pub(crate) fn message(payload: &(dyn Any + Send)) -> String {
    let text = match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (None, Some(text)) => text.as_str(),
        (None, None) => "(a payload that is not text)",
    };
    text[..text.floor_char_boundary(MAX_MESSAGE)].to_owned()
}

/// A message, as far as it travels.
pub(crate) fn cut(mut message: String) -> String {
    message.truncate(message.floor_char_boundary(MAX_MESSAGE));
    message
}
