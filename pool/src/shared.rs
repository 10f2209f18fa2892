//! What a pool is, for all who have to do with it: its handle, its threads, and the hook that runs at exit.

use std::num::NonZero;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use epilogue_embed::ending::Ending;
use epilogue_embed::{Finalizer, on_stop};
use epilogue_process::bell::Bell;
use epilogue_process::channel::{Drain, forget_foreign};
use epilogue_process::child::Original;
use epilogue_process::entry::Request;
use epilogue_process::parcel::Parcel;
use epilogue_process::segment::Stock;
use epilogue_process::{Limits, StartError};

use crate::builder::Builder;
use crate::call::{Call, time};
use crate::callback::Callbacks;
use crate::ends::{EndPolicies, Order};
use crate::error::{BuildError, CloseError, Refusal};
use crate::floor::Floor;
use crate::intensity::Intensity;
use crate::mailbox::{Index, Mailbox};
use crate::observer::{Observer, Watched};
use crate::own_thread::{OwnThread, Until};
use crate::report::Report;
use crate::supervisor::Supervisor;
use crate::sync::{Mutex, MutexGuard};
use crate::terms::Terms;
use crate::vigil::Vigil;
use crate::wakes::Wakes;

/// What the pool's handle and the hook that runs at exit have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    floor: Mutex<Floor>,
    /// Wakes the supervisor.
    pub(crate) bell: Arc<Bell>,
    /// Wakes the reader.
    pub(crate) news: Arc<Bell>,
    /// Those who wait without a thread.
    pub(crate) wakes: Arc<Wakes>,
    pub(crate) callbacks: Callbacks,
    supervision: Mutex<Supervision>,
    /// The supervisor's thread, once that has begun.
    supervisor: OnceLock<OwnThread>,
    /// Set once, by whoever closes the pool or finds that it cannot go on.
    closed: Arc<OnceLock<Refusal>>,
    owner: Original,
    pub(crate) limits: Limits,
    /// The memory that long arguments lie in.
    pub(crate) stock: Arc<Stock>,
    /// How many tasks a map puts into one call; as many as take a while if nothing is said.
    pub(crate) chunk_size: Option<NonZero<usize>>,
    /// By which its tasks go where they have no terms of their own.
    pub(crate) terms: Terms,
    /// The channels whose sending end went along with a task, and that are received here.
    senders: Mutex<Vec<u64>>,
    /// Who tells of what happens, if anybody listens.
    pub(crate) observer: Option<Observer>,
    pub(crate) on_end: EndPolicies,
    /// The hook that runs at exit, if the handle was dropped by a waker on the pool's own thread.
    pub(crate) left_alone: Mutex<Option<Finalizer>>,
}

/// The floor, behind its lock. When that has been given back, those are woken whose outcomes came.
#[derive(Debug)]
pub(crate) struct Held<'a> {
    // Dropped first.
    floor: MutexGuard<'a, Floor>,
    _after: After<'a>,
}

#[derive(Debug)]
struct After<'a>(&'a Shared);

impl Deref for Held<'_> {
    type Target = Floor;

    fn deref(&self) -> &Floor {
        &self.floor
    }
}

impl DerefMut for Held<'_> {
    fn deref_mut(&mut self) -> &mut Floor {
        &mut self.floor
    }
}

impl Drop for After<'_> {
    fn drop(&mut self) {
        self.0.wake();
    }
}

/// Tasks that a pool took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Submitted {
    /// The number of their job: of its own, for a task that has none.
    pub(crate) job: u64,
    /// Whether the workers have room for more.
    pub(crate) has_room: bool,
}

#[derive(Debug)]
enum Supervision {
    /// The thread is about to be known.
    Starting,
    Running(JoinHandle<Report>),
    Ended(Result<Report, CloseError>),
}

impl Shared {
    /// Who listens is not to keep a program from ending for longer.
    pub(crate) const LISTENING: Duration = Duration::from_secs(1);

    /// A pool whose workers its supervisor is about to start, and what tells of the first of them.
    pub(crate) fn prepare(
        builder: Builder,
    ) -> Result<(Supervisor, Receiver<Result<(), StartError>>), BuildError> {
        let (size, recycling) = (builder.size()?, builder.recycling()?);
        let at = |step| move |source| BuildError::System { step, source };
        let bell = Arc::new(Bell::new().map_err(at("making an eventfd"))?);
        let news = Arc::new(Bell::new().map_err(at("making an eventfd"))?);
        let closed = Arc::new(OnceLock::new());
        let (started, up) = bounded(1);
        let Builder { spec, chunk_size, terms, intensity, stall_after, on_stall, on_end, .. } =
            builder;
        let observer = Observer::start(builder.listeners).map_err(at("starting a thread"))?;
        let bells = [Arc::clone(&bell), Arc::clone(&news)];
        let staff = (size, recycling);
        let mut floor = Floor::new(spec.name.clone(), staff, Arc::clone(&closed), started, bells);
        floor.intensity = Intensity::new(intensity);
        floor.vigil = Vigil::new(stall_after, on_stall);
        floor.feed = observer.as_ref().map(|observer| Arc::clone(observer.feed()));
        let wakes = Arc::clone(&floor.wakes);
        let shared = Arc::new(Self {
            floor: Mutex::new(floor),
            wakes,
            callbacks: Callbacks::default(),
            bell,
            news,
            supervision: Mutex::new(Supervision::Starting),
            supervisor: OnceLock::new(),
            closed,
            owner: Original::this(),
            limits: spec.limits.clone(),
            stock: Stock::new(Stock::POOL),
            chunk_size,
            terms,
            senders: Mutex::default(),
            observer,
            on_end,
            left_alone: Mutex::default(),
        });
        Ok((Supervisor { spec, main: builder.main, shared }, up))
    }

    /// Starts the workers of a pool, and the thread that looks after them.
    pub(crate) fn start(builder: Builder) -> Result<Arc<Self>, BuildError> {
        let (supervisor, up) = Self::prepare(builder)?;
        let shared = Arc::clone(&supervisor.shared);
        let started = OwnThread::start("epilogue-pool", || supervisor.watch());
        let (own, thread) = started.map_err(|source| {
            shared.end_observation(Until::Done);
            BuildError::System { step: "starting a thread", source }
        })?;
        // Nothing was submitted yet, so it has nobody to wake.
        let _ = shared.supervisor.set(own);
        match up.recv() {
            Ok(Ok(())) => *shared.lock_supervision() = Supervision::Running(thread),
            Ok(Err(error)) => {
                // The thread ends when all that it had started is gone.
                let _ = thread.join();
                shared.end_observation(Until::Done);
                return Err(BuildError::Worker(error));
            }
            Err(_) => {
                let message =
                    join(thread).map_or_else(|error| error.to_string(), |_| String::new());
                shared.end_observation(Until::Done);
                return Err(BuildError::Supervisor { message });
            }
        }
        Ok(shared)
    }

    #[inline]
    pub(crate) fn is_ours(&self) -> bool {
        self.owner.is_here()
    }

    /// The process whose pool it is.
    pub(crate) fn owner(&self) -> Original {
        self.owner
    }

    /// Whether this process owns the pool, rather than being a fork of the one that does.
    #[inline]
    pub(crate) fn require_owner(&self) -> Result<(), Refusal> {
        if self.is_ours() { Ok(()) } else { Err(Refusal::Forked) }
    }

    /// Whether the pool takes tasks.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        self.require_owner()?;
        match self.closed.get() {
            Some(refusal) => Err(refusal.clone()),
            None => Ok(()),
        }
    }

    /// The lock. Not to be taken in a fork, where nobody would give it back.
    pub(crate) fn floor(&self) -> Held<'_> {
        Held { floor: self.quiet_floor(), _after: After(self) }
    }

    /// The same, for who wakes those whose outcomes came at a later time.
    pub(crate) fn quiet_floor(&self) -> MutexGuard<'_, Floor> {
        self.floor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_supervision(&self) -> MutexGuard<'_, Supervision> {
        self.supervision.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands tasks to the pool: of a job, or of none.
    pub(crate) fn submit(
        &self,
        terms: &Terms,
        job: Option<u64>,
        state: u64,
        mut request: Request,
        first: Index,
        mailbox: &Arc<Mailbox>,
    ) -> Result<Submitted, Refusal> {
        // An input may have forked after it gave some of these: in the copy, the lock may be held for
        // ever, and the memory of the workers is that of the original.
        self.require_owner()?;
        self.note_senders(request.parcel());
        let watched = self.watch(job, first, request.count());
        let mut floor = self.floor();
        // Under the lock: whoever closes comes after this, or is seen here. A map that goes on for
        // as long as it is taken from would keep a pool from ending.
        if let Some(refusal) = self.closed.get() {
            drop(floor);
            watched.into_iter().for_each(|watched| watched.refuse(refusal));
            return Err(refusal.clone());
        }
        let (id, trace) = match watched {
            Some(Watched { id, trace, .. }) => {
                floor.look_later(Instant::now());
                (id, Some(trace))
            }
            None => (floor.number(), floor.times.sample(request.count())),
        };
        if trace.is_some() || terms.first_limit().is_some() {
            time(&mut request.parcel_mut().bytes);
        }
        let job = job.unwrap_or(id);
        // A call is moved no more often than it must be: that is a tenth of what a small task costs.
        let mut call = Call::new(id, job, state, request, Arc::clone(mailbox), first);
        call.go_by(terms);
        call.remember(trace);
        floor.submit(call);
        // What was answered before somebody listened is not told to anybody.
        while floor.is_listened_to() && floor.has_answers() {
            floor.collect();
        }
        if floor.alarm.is_news() {
            self.bell.ring();
        }
        Ok(Submitted { job, has_room: !floor.is_backed_up() })
    }

    /// The supervisor is gone: nobody is left who could do anything.
    pub(crate) fn give_up(&self, refusal: Refusal) {
        let _ = self.closed.set(refusal);
        let mut floor = self.floor();
        floor.abandon();
    }

    /// Remembers the channels whose sending end goes along, as long as they are received here.
    pub(crate) fn note_senders(&self, payload: &Parcel) {
        if !payload.senders().is_empty() {
            let mut senders = self.lock_senders();
            senders.extend(payload.senders());
            forget_foreign(&mut senders);
        }
    }

    /// Takes what tasks send to receivers here, as long as the result lives.
    pub(crate) fn drain(&self) -> Option<Drain> {
        Drain::start(&self.lock_senders())
    }

    fn lock_senders(&self) -> MutexGuard<'_, Vec<u64>> {
        self.senders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the pool and waits for its end, unless it has ended already.
    pub(crate) fn end(&self, order: Order) -> Result<Report, CloseError> {
        // Before the next lock is taken: a stop must reach a pool that another thread closes.
        self.close(&mut self.floor(), order);
        self.wait_for_the_end(Until::Done)
    }

    fn close(&self, floor: &mut Floor, order: Order) {
        // Behind the lock: what fails from now on fails in a pool that closes.
        let _ = self.closed.set(Refusal::Closed);
        self.order(floor, order);
    }

    /// Waits for the end of a pool that was ordered to end; for its threads only as long as said.
    fn wait_for_the_end(&self, until: Until<'_>) -> Result<Report, CloseError> {
        // What the tasks send to receivers here, or they might wait for us as we wait for them.
        let _drain = self.drain();
        if self.supervisor.get().is_some_and(|supervisor| !supervisor.ends(until)) {
            // It has called somebody's waker, which waits for us: here, or as it exits the program.
            return Err(CloseError::OnOwnThread);
        }
        let report = self.join_supervisor();
        // Every task has its outcome. Whoever is called back may end the pool, too: not behind the
        // lock of the supervision.
        self.callbacks.end(self.observer.as_ref().map(Observer::own_thread), until);
        report
    }

    fn join_supervisor(&self) -> Result<Report, CloseError> {
        let mut supervision = self.lock_supervision();
        let ended = Supervision::Ended(Err(CloseError::NotOwner));
        let report = match std::mem::replace(&mut *supervision, ended) {
            Supervision::Running(thread) => join(thread),
            Supervision::Ended(report) => report,
            Supervision::Starting => Err(CloseError::NotOwner),
        };
        self.stock.close();
        *supervision = Supervision::Ended(report.clone());
        report
    }

    /// Has all told that there is to be told, and waits for that as long as said.
    pub(crate) fn end_observation(&self, until: Until<'_>) {
        if let Some(observer) = &self.observer {
            observer.end(until);
        }
    }

    fn order(&self, floor: &mut Floor, order: Order) {
        // A pool that is gone needs no order.
        if !floor.is_over() {
            floor.end(order);
        }
        self.bell.ring();
    }

    /// As the program ends. Whoever is due is woken by the supervisor: code that is not ours could keep
    /// this thread, for which the program's end waits, and does if it exits.
    fn order_quietly(&self, order: Order) {
        self.order(&mut self.quiet_floor(), order);
    }

    /// Closes a pool whose handle nobody will drop any more: it was leaked, or is in a static.
    pub(crate) fn end_with_program(self: &Arc<Self>, ending: &Ending) {
        // The errors that remain are those of a supervisor that is gone, with all its workers.
        if ending.remaining().is_none() {
            self.stop_on_request(*ending);
        } else {
            // All of them before one is waited for, so that their times pass together.
            ending.ask_next();
        }
        self.begin_to_end_with_program(ending);
        let _ = self.wait_for_the_end(Until::Awaited(ending));
        let most = Self::LISTENING;
        let most = ending.remaining().map_or(most, |left| most.min(left / 5));
        self.end_observation(Until::Within(most));
    }

    /// Orders what [`Shared::end_with_program`] waits for.
    pub(crate) fn begin_to_end_with_program(&self, ending: &Ending) {
        let _ = self.closed.set(Refusal::Closed);
        self.order_quietly(self.on_end.order_with_program(ending));
    }

    /// A pool that ends as the program exits has all the time that it needs, until a signal arrives:
    /// from then on it is as if that had come before.
    fn stop_on_request(self: &Arc<Self>, ending: Ending) {
        let shared = Arc::clone(self);
        on_stop(move |reason| {
            let limit = ending.remaining().map(|left| left * 4 / 5);
            shared.order_quietly(shared.on_end.order_on_request(reason, limit));
            ending.ask_next();
        });
    }
}

fn join(thread: JoinHandle<Report>) -> Result<Report, CloseError> {
    thread.join().map_err(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
        CloseError::Supervisor { message: text.unwrap_or("(no message)").to_owned() }
    })
}
