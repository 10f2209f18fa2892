//! One worker as its pool sees it: a child, and the calls that it was sent.

mod ahead;
mod burial;
mod calls;
mod listening;
mod rest;

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use epilogue_process::child::{Child, Event, Spec, Work};
use epilogue_process::link::Link;
use epilogue_process::parcel::Parcel;
use epilogue_process::ring::{Listener, Ticket};
use epilogue_process::wire::{Wire, WireError};
use epilogue_process::{Refusal as StartRefusal, StartError};

use crate::call::{Call, Which};
use crate::error::Refusal;
use crate::event::{Tasks, WorkerId};
use crate::recycling::Recycling;
use crate::vigil::Watched;

pub(crate) use burial::Buried;

/// How far a worker is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Started, and not yet up.
    Starting,
    /// Up, and taking calls.
    Serving,
    /// The same, until another one is up that can take its place: it has grown too much.
    Outgrown,
    /// It takes no more calls, and leaves when it has answered those that it has.
    Retiring,
    /// Told to end. It takes no more calls.
    Leaving,
    /// It hung up, which nobody had asked of it.
    Severed,
}

/// A call that a worker was sent, and where it can be taken back.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) call: Call,
    pub(crate) ticket: Ticket,
}

/// One worker.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) child: Child,
    pub(crate) standing: Standing,
    pub(crate) who: WorkerId,
    /// Calls that it was sent and has not answered, in the order in which it takes them.
    pub(crate) in_flight: VecDeque<Sent>,
    /// Those that it had last, if anybody observes the pool: what is said during one takes another way
    /// than its answer, and may come later.
    recent: VecDeque<(u64, Tasks)>,
    bytes: usize,
    /// Who it was told to tell of answers, unless it has done so since.
    listener: Option<Listener>,
    /// The states that it has.
    states: BTreeSet<u64>,
    /// Why it could not start, if it said so.
    pub(crate) refusal: Option<StartRefusal>,
    /// What else is to be said of its end.
    pub(crate) detail: Option<String>,
    pub(crate) done: u64,
    /// How many tasks it had done when it was last looked whether it has something to do.
    done_before: Option<u64>,
    started: Instant,
    /// When it was first seen to have ended.
    ended: Option<Instant>,
    recycling: Recycling,
    /// Until when its wire is not read, if it writes faster than that is.
    rests_until: Option<Instant>,
    lost: u64,
    cancelled: u64,
    timed_out: u64,
    /// Whether it gets on, as far as anybody has looked.
    pub(crate) watched: Watched,
}

impl Member {
    /// Of so many calls it is known, after they have gone, what they were.
    const RECENT: usize = 256;

    pub(crate) fn start(
        spec: &Spec,
        number: u64,
        recycling: Recycling,
        main: fn(Link),
    ) -> Result<Self, StartError> {
        let mut spec = spec.clone();
        spec.name = format!("{}-{number}", spec.name);
        spec.expect_many_calls();
        let child = Child::start(&spec, main)?;
        Ok(Self {
            who: WorkerId::new(child.name(), child.id()),
            child,
            standing: Standing::Starting,
            in_flight: VecDeque::new(),
            recent: VecDeque::new(),
            bytes: 0,
            listener: None,
            states: BTreeSet::new(),
            refusal: None,
            detail: None,
            done: 0,
            done_before: None,
            started: Instant::now(),
            ended: None,
            recycling,
            rests_until: None,
            lost: 0,
            cancelled: 0,
            timed_out: 0,
            watched: Watched::default(),
        })
    }

    /// How long ago it was started, or how long it has lived.
    pub(crate) fn age(&self) -> Duration {
        self.ended.unwrap_or_else(Instant::now).saturating_duration_since(self.started)
    }

    /// Takes notice of its end, which may be told much later: when nothing is left below it.
    pub(crate) fn note_end(&mut self) {
        if self.child.has_ended() {
            self.ended.get_or_insert_with(Instant::now);
        }
    }

    /// How many calls it has not answered.
    pub(crate) fn load(&self) -> usize {
        self.in_flight.len()
    }

    /// Whether it has something that another worker could do.
    pub(crate) fn has_spare(&self) -> bool {
        self.load() > 1 || self.in_flight.front().is_some_and(|sent| sent.call.left() > 1)
    }

    /// How many tasks others could do that it has.
    pub(crate) fn spare(&mut self) -> usize {
        if !self.works() {
            return 0;
        }
        let wire = self.child.wire();
        let unbegun = self.in_flight.iter().map(|Sent { call, ticket }| {
            let begun = wire.begun(*ticket, call.count()).max(call.answered());
            call.count().saturating_sub(begun) as usize
        });
        let unbegun: usize = unbegun.sum();
        // One is for itself.
        unbegun.min(self.tasks().saturating_sub(1))
    }

    /// Whether it has something to do, and was not replaced. One that was lost in its task, or ended
    /// for it, has been at once.
    pub(crate) fn works(&self) -> bool {
        self.load() > 0 && !matches!(self.standing, Standing::Severed | Standing::Leaving)
    }

    /// Whether it has begun the only task of this job, and not answered it.
    pub(crate) fn has_begun(&mut self, job: u64) -> bool {
        let sent = self.in_flight.iter().find(|sent| sent.call.job == job);
        sent.is_some_and(|sent| self.child.wire().begun(sent.ticket, sent.call.count()) > 0)
    }

    /// Whether it takes calls, or will. One that does not come up is not replaced before it is known
    /// why: it may be the last of too many.
    pub(crate) fn stays(&self) -> bool {
        match self.standing {
            Standing::Starting => true,
            Standing::Serving | Standing::Outgrown => self.child.is_connected(),
            Standing::Retiring | Standing::Leaving | Standing::Severed => false,
        }
    }

    /// Whether it is up, and has not been told to end.
    pub(crate) fn is_up(&self) -> bool {
        matches!(self.standing, Standing::Serving | Standing::Outgrown | Standing::Retiring)
    }

    /// Whether it is up and takes calls.
    pub(crate) fn serves(&self) -> bool {
        matches!(self.standing, Standing::Serving | Standing::Outgrown) && self.child.is_connected()
    }

    /// How many tasks it has not answered.
    pub(crate) fn tasks(&self) -> usize {
        self.in_flight.iter().map(|sent| sent.call.left()).sum()
    }

    /// Whether another worker is to be started, to take its place.
    pub(crate) fn is_worn(&self) -> bool {
        let each = self.in_flight.back().and_then(|sent| sent.call.mailbox().cost().of(1));
        let is_due = self.tasks_left().is_some_and(|left| self.recycling.is_due(left, each));
        self.stays() && (self.standing == Standing::Outgrown || is_due)
    }

    /// Whether it takes no more calls, and has none.
    pub(crate) fn is_done(&self) -> bool {
        let takes_none = match self.standing {
            Standing::Serving | Standing::Outgrown => self.tasks_left() == Some(0),
            Standing::Retiring => true,
            Standing::Starting | Standing::Leaving | Standing::Severed => false,
        };
        takes_none && self.in_flight.is_empty()
    }

    /// Whether it has had nothing to do since this was last asked.
    pub(crate) fn has_rested(&mut self) -> bool {
        let before = self.done_before.replace(self.done);
        self.is_idle() && before == Some(self.done)
    }

    /// It broke the protocol where nobody was waiting for news of it.
    fn spoilt(&mut self, error: WireError) {
        if let Event::Broken(error) = self.child.distrust(error) {
            self.detail = Some(error.to_string());
        }
    }

    /// Whether it is up and has nothing to do.
    pub(crate) fn is_idle(&self) -> bool {
        self.serves() && self.in_flight.is_empty() && self.tasks_left() != Some(0)
    }

    /// Whether it has the state of that number.
    pub(crate) fn knows(&self, state: u64) -> bool {
        self.states.contains(&state)
    }

    /// Sends it a state that later calls borrow.
    pub(crate) fn share(&mut self, state: u64, encoded: &Parcel) -> Result<(), WireError> {
        self.child.wire().share(state, encoded)?;
        self.states.insert(state);
        Ok(())
    }

    /// Lets it drop a state.
    pub(crate) fn forget(&mut self, state: u64) {
        if self.states.remove(&state) {
            self.child.wire().forget(state);
            // The ring says that it comes: the worker waits for it from now on.
            self.child.flush();
        }
    }

    /// Sends it a call, for which it has room.
    #[inline]
    pub(crate) fn send(&mut self, mut call: Call) {
        match self.child.wire().call(call.id, call.count(), call.request.parcel()) {
            Ok(ticket) => {
                self.child.flush();
                call.sent(&self.who);
                self.bytes += call.bytes();
                self.in_flight.push_back(Sent { call, ticket });
            }
            Err(_) => {
                call.fail(Refusal::BytesOnly.into());
            }
        }
    }

    /// It has begun a call, which will never go to another worker: the descriptors are its own.
    pub(crate) fn begun(&mut self, id: u64) {
        if let Some(sent) = self.in_flight.iter_mut().find(|sent| sent.call.id == id) {
            // But what several may read goes along again, if the call does.
            if sent.call.course.as_ref().is_none_or(|course| !course.retries()) {
                drop(sent.call.request.parcel_mut().take_descriptors());
            }
        }
    }

    /// Lets it end: it has nothing left to do.
    pub(crate) fn finish(&mut self) {
        self.standing = Standing::Leaving;
        self.child.finish();
        self.child.drained();
    }

    /// Has it take no more calls; gives back what it has not begun.
    pub(crate) fn retire(&mut self, number: impl FnMut() -> u64) -> Vec<Call> {
        let taken = self.take_back_all(Which::All, number);
        match self.standing {
            Standing::Serving | Standing::Outgrown => self.standing = Standing::Retiring,
            Standing::Starting => self.finish(),
            Standing::Retiring | Standing::Leaving | Standing::Severed => {}
        }
        taken
    }

    /// It has grown more than it should.
    pub(crate) fn outgrown(&mut self) {
        if self.standing == Standing::Serving {
            self.standing = Standing::Outgrown;
        }
    }

    /// Stops it within the grace period, or `limit`. What it has not begun was taken back.
    pub(crate) fn stop(&mut self, limit: Option<Duration>, work: Work) {
        self.standing = Standing::Leaving;
        self.child.stop(limit, work);
    }
}
