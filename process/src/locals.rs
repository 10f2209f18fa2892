//! States of a process: built in it by the first call that borrows one, and dropped as it ends.
//!
//! One is known by its type and by the function that builds it, so all calls that name the same
//! borrow the same. A state is dropped by a finalizer that is registered as it is first built: after
//! what was registered later, before what was there already.

use std::any::{Any, TypeId, type_name};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use epilogue_embed::lent::PerProcess;
use epilogue_embed::{ending, finalizer};

use crate::growth;
use crate::held::lock_until;

type Known = Mutex<BTreeMap<(TypeId, usize), Arc<dyn Any + Send + Sync>>>;

/// A copy of a process has no states: what it had belongs to its original.
static KNOWN: PerProcess<Known> = PerProcess::new();

/// A state that calls borrow one after the other.
pub(crate) struct Local<S> {
    build: fn() -> S,
    content: Mutex<Content<S>>,
}

enum Content<S> {
    /// Nobody has needed it yet.
    Unbuilt,
    Built(S),
    /// A call panicked that had it, and may have left it half changed: the next one builds another.
    Spoilt,
    /// The process ends.
    Dropped,
}

/// A state that is borrowed.
pub(crate) struct Borrowed<'a, S>(MutexGuard<'a, Content<S>>);

/// The state that `build` builds, whether it has been built or not.
pub(crate) fn find<S: Send + 'static>(build: fn() -> S) -> Arc<Local<S>> {
    let new = || Arc::new(Local { build, content: Mutex::new(Content::Unbuilt) });
    let mut known =
        KNOWN.get_or_init(Known::default).lock().unwrap_or_else(PoisonError::into_inner);
    let key = (TypeId::of::<S>(), build as usize);
    let local = Arc::clone(known.entry(key).or_insert_with(|| new()));
    local.downcast().unwrap_or_else(|_| new())
}

impl<S: Send + 'static> Local<S> {
    /// How long a call has to give it back, or a fifth of the time that is left.
    const PATIENCE: Duration = Duration::from_millis(200);

    /// Borrows the state, which is built now if it is not there. A panic of what builds it goes on to
    /// the caller, and the next one tries again.
    pub(crate) fn get(self: &Arc<Self>) -> Borrowed<'_, S> {
        let mut content = match self.content.lock() {
            Ok(content) => content,
            Err(poisoned) => {
                self.content.clear_poison();
                let mut content = poisoned.into_inner();
                if let Content::Built(_) = &*content {
                    *content = Content::Spoilt;
                }
                content
            }
        };
        let before = match &*content {
            Content::Built(_) => return Borrowed(content),
            Content::Unbuilt => true,
            Content::Spoilt => false,
            // One that was built now would never be dropped: its finalizer has run.
            Content::Dropped => {
                resume_unwind(Box::new("its state was dropped, for its process ends"))
            }
        };
        *content = Content::Built(growth::except(self.build));
        if before {
            let (local, name) = (Arc::clone(self), format!("state {}", type_name::<S>()));
            finalizer(name, move || local.discard());
        }
        Borrowed(content)
    }

    /// Drops the state. A call that is about to return gives it back; one that a call still has then stays:
    /// to take it away would be worse.
    fn discard(&self) {
        let left = ending::remaining().map_or(Self::PATIENCE, |left| left / 5);
        match lock_until(&self.content, Instant::now() + left.min(Self::PATIENCE)) {
            Some(mut content) => *content = Content::Dropped,
            // Not a message on standard error, but one for the report.
            None => resume_unwind(Box::new("it was not dropped, for a task still had it")),
        }
    }
}

impl<S> Deref for Borrowed<'_, S> {
    type Target = S;

    fn deref(&self) -> &S {
        match &*self.0 {
            Content::Built(state) => state,
            Content::Unbuilt | Content::Spoilt | Content::Dropped => unbuilt(),
        }
    }
}

impl<S> DerefMut for Borrowed<'_, S> {
    fn deref_mut(&mut self) -> &mut S {
        match &mut *self.0 {
            Content::Built(state) => state,
            Content::Unbuilt | Content::Spoilt | Content::Dropped => unbuilt(),
        }
    }
}

fn unbuilt() -> ! {
    unreachable!("what is borrowed has been built")
}

impl<S> fmt::Debug for Local<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local").finish_non_exhaustive()
    }
}
