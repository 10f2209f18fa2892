//! The threads of a pool's own, and the wait for their ends.
//!
//! On each of them code of the user's is called, which may end the pool or the program: then whoever ends
//! that must not wait for the thread, for it waits for them; nor for one that waits for such a one.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
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
    /// Which of them it waits for; of the others nobody looks at that.
    static AWAITED: RefCell<Awaited> = RefCell::default();
}

/// The thread for whose end another one waits, of whatever pools these are.
#[derive(Debug, Clone, Default)]
struct Awaited(Arc<Mutex<Option<OwnThread>>>);

/// A thread, for whoever may have to wait for it.
#[derive(Debug, Clone)]
pub(crate) struct OwnThread {
    /// Nothing is ever sent: it is the end of the channel that says that the thread has done all.
    done: Receiver<Infallible>,
    number: u64,
    /// The kernel's number of it, once it has begun. Another thread may have it when this one has ended.
    id: Arc<OnceLock<Pid>>,
    awaited: Awaited,
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
        let awaited = Awaited::default();
        let here = awaited.clone();
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            HERE.with(|here| here.set(number));
            AWAITED.with(|awaited| awaited.replace(here));
            let _ = told.set(gettid());
            let _working: crossbeam_channel::Sender<Infallible> = working;
            body()
        })?;
        Ok((Self { done, number, id, awaited }, thread))
    }

    /// Whether it is the calling thread.
    pub(crate) fn is_here(&self) -> bool {
        HERE.with(Cell::get) == self.number
    }

    /// Waits for its end, but not on the thread itself: whether it has ended.
    pub(crate) fn ends(&self, until: Until<'_>) -> bool {
        match until {
            _ if self.is_here() => false,
            Until::Done => self.ends_at_last(),
            Until::Within(time) => self.ends_within(time),
            Until::Awaited(ending) => self.ends_before(|| self.waits_for(ending)),
        }
    }

    fn ends_at_last(&self) -> bool {
        // A thread that has dropped its own is seen as one that has ended.
        let awaited = AWAITED.try_with(|awaited| awaited.borrow().clone()).unwrap_or_default();
        awaited.set(Some(self.clone()));
        let has_ended = self.done.recv().is_err();
        awaited.set(None);
        has_ended
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

    /// Whether it waits for this ending, or for the end of one that does.
    fn waits_for(&self, ending: &Ending) -> bool {
        self.and_awaited().iter().any(|thread| {
            // In this order: as long as it has not ended, its number is its own.
            thread.id.get().is_some_and(|id| ending.is_awaited_by(id.as_raw()))
                && !thread.has_ended()
        })
    }

    /// It, the one that it waits for, the one that that waits for, and so on.
    fn and_awaited(&self) -> Vec<Self> {
        let mut all = vec![self.clone()];
        // Some may wait for each other.
        while let Some(next) = all.last().and_then(|last| last.awaited.get())
            && all.iter().all(|one| one.number != next.number)
        {
            all.push(next);
        }
        all
    }

    fn has_ended(&self) -> bool {
        self.done.try_recv() == Err(TryRecvError::Disconnected)
    }
}

impl Awaited {
    fn get(&self) -> Option<OwnThread> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, thread: Option<OwnThread>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = thread;
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

    #[test]
    fn whom_a_thread_waits_for_is_found_also_if_they_wait_for_each_other() {
        let [(one, first), (other, second), (last, third)] =
            [(); 3].map(|()| OwnThread::start("own", || ()).unwrap());
        for thread in [first, second, third] {
            thread.join().unwrap();
        }
        let numbers = || one.and_awaited().iter().map(|one| one.number).collect::<Vec<_>>();
        one.awaited.set(Some(other.clone()));
        other.awaited.set(Some(last.clone()));
        assert_eq!(numbers(), [one.number, other.number, last.number]);
        other.awaited.set(Some(one.clone()));
        assert_eq!(numbers(), [one.number, other.number]);
        one.awaited.set(None);
    }
}
