//! Panics of user code in a child: caught, with their message and place.

use std::any::Any;
use std::backtrace::Backtrace;
use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};

use serde::{Deserialize, Serialize};

use crate::fault::Panic;

/// What the hook saw of the last panic of a thread.
struct Seen {
    location: Option<String>,
    backtrace: Option<String>,
}

thread_local! {
    static SEEN: RefCell<Option<Seen>> = const { RefCell::new(None) };
}

/// The longest message that travels; the rest is cut off.
const MAX_MESSAGE: usize = 64 * 1024;

/// Whether a child's panics are to be told with their backtraces. Resolving one takes about a
/// tenth of a second, so it is only done on request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Backtraces {
    #[default]
    Off,
    On,
}

/// Remembers the place of every panic, then lets the hook before it speak.
pub(crate) fn remember(backtraces: Backtraces) {
    let previous = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let location = info.location().map(ToString::to_string);
        let wanted = backtraces == Backtraces::On;
        let backtrace = wanted.then(|| Backtrace::force_capture().to_string());
        // A panic while this thread's locals are destroyed has no place, which is no harm.
        let _ = SEEN.try_with(|last| *last.borrow_mut() = Some(Seen { location, backtrace }));
        previous(info);
    }));
}

/// Calls `body`; a panic of it is returned.
pub(crate) fn catch<R>(body: impl FnOnce() -> R) -> Result<R, Panic> {
    let _ = SEEN.try_with(|last| last.borrow_mut().take());
    panic::catch_unwind(AssertUnwindSafe(body)).map_err(|payload| {
        let seen = SEEN.try_with(|last| last.borrow_mut().take()).ok().flatten();
        let seen = seen.unwrap_or(Seen { location: None, backtrace: None });
        let (location, backtrace) = (seen.location, seen.backtrace);
        let panic = Panic { message: message(&*payload), location, backtrace };
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
