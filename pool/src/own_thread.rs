//! The threads of a pool's own, and the wait for their ends.
//!
//! On each of them code of the user's is called, which may end the pool or the program: then whoever ends
//! that must not wait for the thread, for it waits for them.

use std::cell::Cell;
use std::convert::Infallible;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, TryRecvError, bounded};
use epilogue_embed::ending::Ending;
use nix::unistd::{Pid, gettid};

use crate::sync::thread_local;

thread_local! {
    /// Which of the threads that this process has started in this way it is; none of them is 0. The kernel
    /// gives its numbers again.
    static HERE: Cell<u64> = const { Cell::new(0) };
}

/// A thread, for whoever may have to wait for it.
#[derive(Debug, Clone)]
pub(crate) struct OwnThread {
    /// Nothing is ever sent: it is the end of the channel that says that the thread has done all.
    done: Receiver<Infallible>,
    number: u64,
    /// The kernel's number of it, once it has begun. Another thread may have it when this one has ended.
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
        static LAST: AtomicU64 = AtomicU64::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed) + 1;
        let (working, done) = bounded(0);
        let id = Arc::new(OnceLock::new());
        let told = Arc::clone(&id);
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            HERE.with(|here| here.set(number));
            let _ = told.set(gettid());
            let _working: crossbeam_channel::Sender<Infallible> = working;
            body()
        })?;
        Ok((Self { done, number, id }, thread))
    }

    /// Whether it is the calling thread.
    pub(crate) fn is_here(&self) -> bool {
        HERE.with(Cell::get) == self.number
    }

    /// Waits for its end, but not on the thread itself: whether it has ended.
    pub(crate) fn ends(&self, until: Until<'_>) -> bool {
        self.ends_beside(|| None, until)
    }

    /// The same, of a thread that may wait for `another` one: where that one waits for an ending, so does
    /// this one.
    pub(crate) fn ends_beside<'a>(
        &self,
        another: impl Fn() -> Option<&'a Self>,
        until: Until<'_>,
    ) -> bool {
        match until {
            _ if self.is_here() => false,
            Until::Done => self.done.recv().is_err(),
            Until::Within(time) => self.ends_within(time),
            Until::Awaited(ending) => {
                let waits = |thread: &Self| thread.waits_for(ending);
                self.ends_before(|| waits(self) || another().is_some_and(waits))
            }
        }
    }

    fn ends_within(&self, time: Duration) -> bool {
        self.done.recv_timeout(time) == Err(RecvTimeoutError::Disconnected)
    }

    fn ends_before(&self, is_too_late: impl Fn() -> bool) -> bool {
        /// How often it is looked whether it is.
        const LOOK: Duration = Duration::from_millis(50);
        while !is_too_late() {
            if self.ends_within(LOOK) {
                return true;
            }
        }
        self.has_ended()
    }

    fn waits_for(&self, ending: &Ending) -> bool {
        // In this order: as long as it has not ended, its number is its own.
        self.id.get().is_some_and(|id| ending.is_awaited_by(id.as_raw())) && !self.has_ended()
    }

    fn has_ended(&self) -> bool {
        self.done.try_recv() == Err(TryRecvError::Disconnected)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use nix::unistd::gettid;

    use super::{OwnThread, Until};

    #[test]
    fn a_thread_that_has_ended_is_not_taken_for_the_one_that_has_its_number_now() {
        let (own, thread) = OwnThread::start("own", || ()).unwrap();
        thread.join().unwrap();
        let own = OwnThread { id: Arc::new(gettid().into()), ..own };
        assert!(!own.is_here() && own.ends(Until::Done));
    }
}
