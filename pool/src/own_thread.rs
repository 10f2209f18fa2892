//! The threads of a pool's own, and the wait for their ends.
//!
//! On each of them code of the user's is called, which may end the pool or the program: then whoever ends
//! that must not wait for the thread, for it waits for them.

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use epilogue_embed::ending::Ending;
use nix::unistd::{Pid, gettid};

/// A thread, for whoever may have to wait for it.
#[derive(Debug, Clone)]
pub(crate) struct OwnThread {
    /// Nothing is ever sent: it is the end of the channel that says that the thread has done all.
    done: Receiver<Infallible>,
    /// The kernel's number of it, once it has begun.
    id: Arc<OnceLock<Pid>>,
}

/// Until when somebody waits for a thread.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Until<'a> {
    /// It has ended.
    Done,
    /// The same, or this time has passed.
    Within(Duration),
    /// The same, or it waits for this ending, in a hook of which this is.
    Awaited(&'a Ending),
}

impl OwnThread {
    /// Starts a thread that calls `body`.
    pub(crate) fn start<T: Send + 'static>(
        name: &str,
        body: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<(Self, JoinHandle<T>)> {
        let (working, done) = bounded(0);
        let id = Arc::new(OnceLock::new());
        let told = Arc::clone(&id);
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            let _ = told.set(gettid());
            let _working: crossbeam_channel::Sender<Infallible> = working;
            body()
        })?;
        Ok((Self { done, id }, thread))
    }

    /// Whether it is the calling thread.
    pub(crate) fn is_here(&self) -> bool {
        self.id.get() == Some(&gettid())
    }

    /// Waits for its end, but not on the thread itself: whether it has ended.
    pub(crate) fn ends(&self, until: Until<'_>) -> bool {
        match until {
            _ if self.is_here() => false,
            Until::Done => self.done.recv().is_err(),
            Until::Within(time) => self.ends_within(time),
            Until::Awaited(ending) => self.ends_unless_it_waits_for(ending),
        }
    }

    fn ends_within(&self, time: Duration) -> bool {
        self.done.recv_timeout(time) == Err(RecvTimeoutError::Disconnected)
    }

    fn ends_unless_it_waits_for(&self, ending: &Ending) -> bool {
        /// How often it is looked whether it does.
        const LOOK: Duration = Duration::from_millis(50);
        let waits = || self.id.get().is_some_and(|id| ending.is_awaited_by(id.as_raw()));
        while !waits() {
            if self.ends_within(LOOK) {
                return true;
            }
        }
        false
    }
}
