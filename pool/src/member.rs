//! One worker as its pool sees it: a child, and the calls that it was sent.

mod calls;

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use epilogue_process::child::{Child, Event, Spec, Work};
use epilogue_process::link::Link;
use epilogue_process::parcel::Parcel;
use epilogue_process::ring::{Listener, Ticket};
use epilogue_process::wire::{Wire, WireError};
use epilogue_process::{ExitStatus, Refusal as StartRefusal, Rung, StartError};

use crate::call::{Call, Which};
use crate::error::{Refusal, TaskError, WorkerLost};
use crate::event::{Tasks, WorkerId};
use crate::recycling::Recycling;
use crate::report::WorkerReport;
use crate::vigil::Watched;

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
    states: HashSet<u64>,
    /// Why it could not start, if it said so.
    pub(crate) refusal: Option<StartRefusal>,
    /// What else is to be said of its end.
    pub(crate) detail: Option<String>,
    pub(crate) done: u64,
    /// How many tasks it had done when it was last looked whether it has something to do.
    done_before: Option<u64>,
    started: Instant,
    recycling: Recycling,
    lost: u64,
    cancelled: u64,
    timed_out: u64,
    /// Whether it gets on, as far as anybody has looked.
    pub(crate) watched: Watched,
}

/// What is left of a worker that has ended.
#[derive(Debug)]
pub(crate) struct Buried {
    /// What it never began.
    pub(crate) unbegun: Vec<Call>,
    /// What it began, and is to be begun again.
    pub(crate) again: Vec<Call>,
    pub(crate) report: WorkerReport,
}

impl Member {
    /// How much work a worker has ahead: enough that it does not wait for the next call.
    pub(crate) const AHEAD: Duration = Duration::from_micros(100);
    /// How many calls it has ahead at most, however short they are.
    const CALLS_AHEAD: usize = 128;
    /// How many calls it has, however long they take.
    const AT_LEAST: usize = 2;
    /// How much work it has ahead in few calls: whoever sends the next may have to wait for a CPU that
    /// a worker has, as long as the scheduler's slice is (about 3 ms).
    const SLICES: Duration = Duration::from_millis(16);
    /// So many calls are few.
    const FEW: usize = 16;
    /// How many calls it has of which it is not known how long they take.
    const UNTRIED: usize = 17;
    /// Of so many calls it is known, after they have gone, what they were.
    const RECENT: usize = 256;
    /// How many bytes of calls it is sent, if there is more than one.
    const BYTES_AHEAD: usize = 1 << 20;

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
            states: HashSet::new(),
            refusal: None,
            detail: None,
            done: 0,
            done_before: None,
            started: Instant::now(),
            recycling,
            lost: 0,
            cancelled: 0,
            timed_out: 0,
            watched: Watched::default(),
        })
    }

    /// How long ago it was started.
    pub(crate) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// How many calls it has not answered.
    pub(crate) fn load(&self) -> usize {
        self.in_flight.len()
    }

    /// Whether it has something that another worker could do.
    pub(crate) fn has_spare(&self) -> bool {
        self.load() > 1 || self.in_flight.front().is_some_and(|sent| sent.call.left() > 1)
    }

    /// Whether it has begun the only task of this job, and not answered it.
    pub(crate) fn has_begun(&mut self, job: u64) -> bool {
        let sent = self.in_flight.iter().find(|sent| sent.call.job == job);
        sent.is_some_and(|sent| self.child.wire().begun(sent.ticket, sent.call.count()) > 0)
    }

    /// How long it will be busy with what it has. None if that is not known.
    pub(crate) fn backlog(&self) -> Option<Duration> {
        // Calls of one job mostly, so the last tells for all.
        match self.in_flight.back() {
            None => Some(Duration::ZERO),
            Some(Sent { call, .. }) => call.mailbox().cost().of(call.left() * self.in_flight.len()),
        }
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

    /// How many tasks it may do besides those that it has. None if that has no end.
    pub(crate) fn tasks_left(&self) -> Option<u64> {
        // Without an end there is nothing to count.
        self.recycling.left_after(0)?;
        self.recycling.left_after(self.done + self.tasks() as u64)
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

    /// Takes the tasks out of a call that are more than it may do.
    pub(crate) fn cut(&self, call: &mut Call, number: impl FnOnce() -> u64) -> Option<Call> {
        let left = u32::try_from(self.tasks_left()?).unwrap_or(u32::MAX);
        call.split_off(call.answered().saturating_add(left), number())
    }

    /// Whether it has had nothing to do since this was last asked.
    pub(crate) fn has_rested(&mut self) -> bool {
        let before = self.done_before.replace(self.done);
        self.is_idle() && before == Some(self.done)
    }

    /// Whether it can be sent this call.
    pub(crate) fn has_room(&mut self, call: &Call) -> bool {
        let takes = self.in_flight.is_empty() || self.has_room_ahead(call);
        if !self.serves() || !takes || self.tasks_left() == Some(0) {
            return false;
        }
        match self.child.wire().has_room(call.bytes()) {
            Ok(has_room) => has_room,
            Err(error) => {
                self.spoilt(error);
                false
            }
        }
    }

    fn has_room_ahead(&self, call: &Call) -> bool {
        let load = self.in_flight.len();
        // What is meant to have one owner is not sent ahead: it would lie with a worker that is
        // busy, and be open there while another one runs the call.
        !call.request.parcel().moves()
            && self.bytes < Self::BYTES_AHEAD
            && match self.backlog() {
                Some(backlog) => {
                    load < Self::AT_LEAST
                        || (load < Self::FEW && backlog < Self::SLICES)
                        || (load < Self::CALLS_AHEAD && backlog < Self::AHEAD)
                }
                None => load < Self::UNTRIED,
            }
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

    /// Has it tell `listener` of answers: of each, or of several together. Where calls wait for
    /// room, also one that has none: its ring may be full of what was taken back.
    pub(crate) fn listen(&mut self, listener: Option<Listener>, is_eager: bool, wants_room: bool) {
        let has_nothing_to_tell = listener.is_some() && self.in_flight.is_empty() && !wants_room;
        if self.listener == listener || has_nothing_to_tell {
            return;
        }
        self.listener = listener;
        match listener {
            Some(listener) => {
                let records = if is_eager { 1 } else { self.in_flight.len() - self.reserve() };
                self.child.wire().listen(listener, records as u32);
            }
            None => self.child.wire().stop_listening(),
        }
    }

    /// How many of its calls it still has when others are to be sent: a half, or what it does in the
    /// time until somebody has a CPU for that.
    fn reserve(&self) -> usize {
        let half = self.in_flight.len() / 2;
        match self.backlog() {
            Some(backlog) if backlog > Self::SLICES / 4 => {
                let each = backlog / self.in_flight.len().max(1) as u32;
                let enough = (Self::SLICES / 4).div_duration_f32(each).ceil() as usize;
                enough.min(half)
            }
            _ => half,
        }
    }

    /// What it was told of its listener is said again, and may be something else.
    pub(crate) fn listen_anew(&mut self) {
        self.listener = None;
    }

    /// It may have told its listener, and tells nobody else before it is asked again.
    pub(crate) fn has_told(&mut self) {
        if !self.child.wire().is_listening() {
            self.listener = None;
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

    /// It has ended: the tasks that it never began come back, and those that may be begun again.
    /// The others have their outcome.
    pub(crate) fn bury(
        mut self,
        status: ExitStatus,
        stopping: bool,
        mut number: impl FnMut() -> u64,
    ) -> Buried {
        let (mut unbegun, mut again) = (Vec::new(), Vec::new());
        for Sent { mut call, ticket } in std::mem::take(&mut self.in_flight) {
            let (begun, first) = (self.child.wire().begun(ticket, call.count()), call.answered());
            // Items are claimed several at a time, and answered one by one: after the last answer
            // one can have run. Not so if its answers were not believed.
            let running = begun.min(if self.child.is_trusted() { first + 1 } else { begun });
            unbegun.extend(call.split_off(running, number()));
            if call.left() == 0 {
                continue;
            }
            if call.is_traced() {
                call.begun(self.child.wire().began(ticket));
            }
            let error = match (call.verdict(), stopping) {
                (Some(verdict), _) => verdict.into(),
                (None, true) => TaskError::Cancelled { begun: true },
                (None, false) => match call.lost(self.loss(status), number()) {
                    Ok(rest) => {
                        again.push(rest);
                        continue;
                    }
                    Err(error) => error,
                },
            };
            self.fail(call, error);
        }
        let report = WorkerReport {
            name: self.child.name().to_owned(),
            pid: self.child.id(),
            end: self.child.end(),
            done: self.done,
            lost: self.lost,
            cancelled: self.cancelled,
            timed_out: self.timed_out,
            retried: again.iter().map(|call| call.left() as u64).sum(),
            detail: self.detail,
        };
        Buried { unbegun, again, report }
    }

    /// Gives the tasks of a call that it had begun this outcome, and counts them.
    fn fail(&mut self, call: Call, error: TaskError) {
        let counter = match error {
            TaskError::TimedOut => &mut self.timed_out,
            TaskError::Cancelled { .. } => &mut self.cancelled,
            _ => &mut self.lost,
        };
        *counter += call.fail(error) as u64;
    }

    fn loss(&self, status: ExitStatus) -> WorkerLost {
        // A kill that was not ours is the user's, or the kernel's that had no memory left.
        let end = self.child.end();
        let foreign = status.signal() == Some(9) && end.rung < Rung::Kill;
        let memory = foreign.then(|| match end.out_of_memory {
            true => "the kernel had no memory left for its cgroup".to_owned(),
            false => "somebody killed it, or memory had run out".to_owned(),
        });
        WorkerLost {
            worker: self.child.name().to_owned(),
            pid: self.child.id(),
            status,
            begun: true,
            detail: self.detail.clone().or(memory),
        }
    }
}
