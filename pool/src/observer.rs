//! Who observes a pool: a thread that tells the listeners what happens.
//!
//! # Invariants
//!
//! 1. Listeners run on that thread only, so they may do as they like: take long, panic, submit,
//!    close or drop the pool. No lock of the pool is held meanwhile.
//! 2. To tell never blocks and never grows: what is not taken in time is counted.
//! 3. Where nobody listens there is neither the thread nor anything to be told.
//! 4. Whoever closes the pool waits until all has been told and the thread is gone, unless it is
//!    that thread itself, which goes as soon as its listeners return.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, select};

use crate::builder::Builder;
use crate::error::Refusal;
use crate::event::{Event, Tasks};
use crate::floor::Floor;
use crate::mailbox::{Index, Outcomes};
use crate::member::Member;
use crate::note::Note;
use crate::own_thread::{OwnThread, Until};
use crate::shared::Shared;
use crate::trace::Trace;

impl Builder {
    /// Has `listener` told what happens in the pool: tasks that are queued, started and ended,
    /// workers that come up and end and why, and what the pool decides; see [`Event`].
    ///
    /// It is called on a thread of its own, in the order of the events, and may do as it likes:
    /// take long, panic, submit to the pool, close it or drop it. Some thousand events wait for it;
    /// what comes on top of these is counted, and told as [`Event::Missed`]. When [`Pool::close`]
    /// returns, the last event, [`Event::Closed`], has been told; so a listener must not wait for
    /// *another* thread that closes the pool. As the program exits, a pool waits for its
    /// listeners for a second at most.
    ///
    /// Several listeners are called one after the other. With none, nothing of this costs
    /// anything; with one, each call to a worker takes about a microsecond more.
    ///
    /// [`Pool::close`]: crate::Pool::close
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::{Arc, Mutex};
    /// use epilogue_pool::{Event, Outcome, Pool};
    ///
    /// let slowest = Arc::new(Mutex::new(None));
    /// let told = Arc::clone(&slowest);
    /// let pool = Pool::builder().workers(2).chunk_size(1).on_event(move |event| match event {
    ///     Event::Ended { tasks, outcome: Outcome::Done, ran: Some(ran), .. } => {
    ///         let mut slowest = told.lock().unwrap();
    ///         *slowest = (*slowest).max(Some((*ran, tasks.first)));
    ///     }
    ///     Event::WorkerDown { report, .. } => println!("{report}"),
    ///     _ => {}
    /// });
    /// let pool = pool.start()?;
    /// pool.map(0..8u64, |n| std::thread::sleep(std::time::Duration::from_millis(n * 10)))?;
    /// pool.close()?;
    /// println!("the slowest, and which it was: {:?}", slowest.lock().unwrap());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on_event(mut self, listener: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        self.listeners.0.push(Arc::new(listener));
        self
    }
}

type Listener = Arc<dyn Fn(&Event) + Send + Sync>;

/// Who is told of events.
#[derive(Clone, Default)]
pub(crate) struct Listeners(Vec<Listener>);

impl fmt::Debug for Listeners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} listeners", self.0.len())
    }
}

impl Listeners {
    fn tell(&self, event: &Event) {
        for listener in &self.0 {
            discard_panic(|| listener(event));
        }
    }
}

/// Runs code of the user's, whose panic is nobody's business here: its hook has told of it.
fn discard_panic(body: impl FnOnce()) {
    if let Err(payload) = panic::catch_unwind(AssertUnwindSafe(body))
        && let Err(second) = panic::catch_unwind(AssertUnwindSafe(|| drop(payload)))
    {
        std::mem::forget(second);
    }
}

/// Where events go in, from under any lock.
#[derive(Debug)]
pub(crate) struct Feed {
    events: Sender<Event>,
    /// How many were not taken in time, and not told of yet.
    missed: AtomicU64,
    all_missed: AtomicU64,
}

impl Feed {
    /// How many events wait.
    const WAITING: usize = 4096;

    pub(crate) fn tell(&self, event: Event) {
        if self.events.try_send(event).is_err() {
            self.missed.fetch_add(1, Ordering::Relaxed);
            self.all_missed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many events were not taken in time.
    pub(crate) fn missed(&self) -> u64 {
        self.all_missed.load(Ordering::Relaxed)
    }
}

impl Floor {
    /// How often somebody looks which tasks have begun, as long as there are some that may.
    const LOOK: Duration = Duration::from_millis(250);

    /// Looks which tasks have begun, for nobody says so; and again later, if more may.
    pub(crate) fn watch_begins(&mut self, now: Instant) {
        let is_open = |open, member: &mut Member| member.note_begun() || open;
        if self.members.iter_mut().fold(!self.queue.is_empty(), is_open) {
            self.look_later(now);
        }
    }

    /// The code of a worker's tasks has something to say, during that call.
    pub(crate) fn tell_note(&self, owner: usize, call: u64, note: &[u8]) {
        let member = &self.members[owner];
        let Some(note) = self.feed.as_ref().and_then(|_| Note::decode(note)) else { return };
        let (tasks, worker) = (member.tasks_of(call), member.who.clone());
        self.tell(|| Event::Noted { worker, tasks, note: Box::new(note) });
    }

    pub(crate) fn look_later(&mut self, now: Instant) {
        self.alarm.set(Some(now + Self::LOOK));
    }
}

impl Shared {
    /// Tells that tasks are being submitted, if anybody observes the pool: then they have a number
    /// already, and a trace.
    pub(crate) fn watch(&self, job: Option<u64>, first: Index, count: u32) -> Option<Watched> {
        let feed = self.observer.as_ref()?.feed();
        let (id, at) = (self.floor().number(), Instant::now());
        let tasks = Tasks::new(job.unwrap_or(id), first, count as usize);
        // Before anybody else can have something to tell of them.
        feed.tell(Event::Queued { tasks, at });
        Some(Watched { id, tasks, trace: Trace::new(at, Some(Arc::clone(feed))) })
    }
}

/// Tasks that are being submitted, and of which was told.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) id: u64,
    pub(crate) tasks: Tasks,
    pub(crate) trace: Box<Trace>,
}

impl Watched {
    /// The pool did not take them.
    pub(crate) fn refuse(self, refusal: &Refusal) {
        let (count, error) = (self.tasks.count, refusal.clone().into());
        self.trace.ended(self.tasks, &Outcomes::Failed { count, error });
    }
}

/// The thread that tells the listeners.
#[derive(Debug)]
pub(crate) struct Observer {
    feed: Arc<Feed>,
    /// The thread ends once this is gone.
    stop: Mutex<Option<Sender<Infallible>>>,
    own: OwnThread,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Observer {
    /// Starts the thread, if there is anybody to tell.
    pub(crate) fn start(listeners: Listeners) -> io::Result<Option<Self>> {
        if listeners.0.is_empty() {
            return Ok(None);
        }
        let (events, waiting) = bounded(Feed::WAITING);
        let (stop, stopped) = bounded(0);
        let (missed, all_missed) = (AtomicU64::new(0), AtomicU64::new(0));
        let feed = Arc::new(Feed { events, missed, all_missed });
        let told = Arc::clone(&feed);
        let (own, thread) = OwnThread::start("epilogue-events", move || {
            observe(&told, &waiting, &stopped, &listeners);
            // What they hold may be the pool itself.
            discard_panic(|| drop(listeners));
        })?;
        let (stop, thread) = (Mutex::new(Some(stop)), Mutex::new(Some(thread)));
        Ok(Some(Self { feed, stop, own, thread }))
    }

    pub(crate) fn feed(&self) -> &Arc<Feed> {
        &self.feed
    }

    pub(crate) fn own_thread(&self) -> &OwnThread {
        &self.own
    }

    /// Has all told that there is, and the thread end; waits for that as long as said.
    pub(crate) fn end(&self, until: Until<'_>) {
        drop(self.stop.lock().unwrap_or_else(PoisonError::into_inner).take());
        let is_done = self.own.ends(until);
        let thread =
            self.thread.lock().unwrap_or_else(PoisonError::into_inner).take_if(|_| is_done);
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

fn observe(
    feed: &Feed,
    waiting: &Receiver<Event>,
    stopped: &Receiver<Infallible>,
    listeners: &Listeners,
) {
    let tell_missed = || {
        let count = feed.missed.swap(0, Ordering::Relaxed);
        if count > 0 {
            listeners.tell(&Event::Missed { count });
        }
    };
    loop {
        let event = select! {
            recv(waiting) -> event => event.ok(),
            recv(stopped) -> _ => None,
        };
        let Some(event) = event else { break };
        listeners.tell(&event);
        // They are missing behind all that waited as they came.
        if waiting.is_empty() {
            tell_missed();
        }
    }
    waiting.try_iter().for_each(|event| listeners.tell(&event));
    tell_missed();
    listeners.tell(&Event::Closed);
}
