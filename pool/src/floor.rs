//! The floor: all that a pool knows of its workers and its queue, and what it decides from that.
//!
//! Nothing here blocks, and nobody's code runs: it is a state machine behind one lock. The supervisor
//! tells it what happened to workers, callers hand it their calls, and whoever waits for an outcome
//! has it take what workers have answered.
//!
//! # Invariants
//!
//! 1. A task is in the queue, or with one worker, or has its outcome.
//! 2. A worker's death touches the one task that it had begun.
//! 3. Whoever sleeps and has to know of an answer is told: the reader by the doorbell, the
//!    supervisor over the socket; see [`Floor::tune`].

mod ending;
mod staffing;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use epilogue_process::child::{Event, Work};
use epilogue_process::parcel::Parcel;
use epilogue_process::ring::{Listener, Patience};
use epilogue_process::{ExitStatus, StartError};

use crate::bell::Bell;
use crate::call::{Call, NO_STATE};
use crate::deadline::Alarm;
use crate::ends::Deadline;
use crate::error::{Refusal, TaskError};
use crate::event::Event as Told;
use crate::hiring::Hiring;
use crate::intensity::Intensity;
use crate::job::Reads;
use crate::mailbox::Mailbox;
use crate::member::{Buried, Member, Standing};
use crate::observer::Feed;
use crate::recycling::Recycling;
use crate::report::Report;
use crate::size::Size;
use crate::stall::OnStall;
use crate::stats::Times;
use crate::vigil::Vigil;
use crate::wakes::Wakes;

/// How far a pool is on its way down. Phases only ever move forward.
#[derive(Debug)]
pub(crate) enum Phase {
    /// No worker is up yet, and somebody waits to hear of the first.
    Starting(Sender<Result<(), StartError>>),
    Running,
    /// No new calls: those that there are get done, or the pool stops at the deadline.
    Draining {
        deadline: Option<Deadline>,
    },
    /// No calls at all: the workers are on the ladder.
    Stopping,
}

/// Whether maps go on sending calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// None has for a while: it is the supervisor who sees to it that no worker is idle while calls
    /// wait with another.
    Still,
    /// They do, and take answers as often as they have to. The alarm is set to look again.
    Moving,
}

/// Who takes what workers have answered, besides the supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    None,
    /// It looks by itself.
    Awake,
    /// It sleeps until a doorbell rings: for each answer, or for several together.
    Asleep {
        is_eager: bool,
    },
}

#[derive(Debug)]
pub(crate) struct Floor {
    pub(crate) phase: Phase,
    pub(crate) members: Vec<Member>,
    pub(crate) queue: VecDeque<Call>,
    pub(crate) states: HashMap<u64, Parcel>,
    pub(crate) report: Report,
    hired: u64,
    hiring: Hiring,
    pub(crate) intensity: Intensity,
    /// When limits of time are looked at.
    pub(crate) alarm: Alarm,
    /// When workers are looked at that do not get on.
    pub(crate) vigil: Vigil,
    size: Size,
    recycling: Recycling,
    /// How many missing workers the supervisor was told of.
    told_to_hire: usize,
    next: u64,
    /// How many jobs there are whose callers read again and again.
    readers: usize,
    pace: Pace,
    /// Whether a worker has been asked to tell of its answers.
    is_tuned: bool,
    closed: Arc<OnceLock<Refusal>>,
    pub(crate) reader: Reader,
    /// Those who wait for an outcome while another one reads.
    pub(crate) followers: Vec<Arc<Mailbox>>,
    pub(crate) patience: Patience,
    /// Wakes the supervisor.
    pub(crate) bell: Arc<Bell>,
    /// Wakes the reader.
    pub(crate) news: Arc<Bell>,
    /// Those who wait without a thread.
    pub(crate) wakes: Arc<Wakes>,
    /// Who is told of what happens, if anybody observes the pool.
    pub(crate) feed: Option<Arc<Feed>>,
    pub(crate) times: Times,
}

impl Floor {
    pub(crate) fn new(
        name: String,
        (size, recycling): (Size, Recycling),
        closed: Arc<OnceLock<Refusal>>,
        started: Sender<Result<(), StartError>>,
        [bell, news]: [Arc<Bell>; 2],
    ) -> Self {
        Self {
            phase: Phase::Starting(started),
            members: Vec::new(),
            queue: VecDeque::new(),
            states: HashMap::new(),
            report: Report::new(name),
            hired: 0,
            hiring: Hiring::default(),
            intensity: Intensity::default(),
            alarm: Alarm::default(),
            vigil: Vigil::new(Vigil::DEFAULT, OnStall::default()),
            size,
            recycling,
            told_to_hire: 0,
            next: NO_STATE + 1,
            readers: 0,
            pace: Pace::Still,
            is_tuned: false,
            closed,
            reader: Reader::None,
            followers: Vec::new(),
            patience: Patience::default(),
            bell,
            news,
            wakes: Arc::default(),
            feed: None,
            times: Times::default(),
        }
    }

    /// What became of the workers that have ended, and of the tasks.
    pub(crate) fn report(&self) -> &Report {
        &self.report
    }

    /// Tells those who observe the pool, if anybody does.
    pub(crate) fn tell(&self, event: impl FnOnce() -> Told) {
        if let Some(feed) = &self.feed {
            feed.tell(event());
        }
    }

    /// Drops all that there is: workers are killed, tasks are refused.
    pub(crate) fn abandon(&mut self) {
        self.phase = Phase::Stopping;
        self.members.clear();
        self.queue.clear();
        self.tell_reader();
    }

    /// A number that this pool has not used yet.
    pub(crate) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// How many workers there are to be.
    pub(crate) fn wanted(&self) -> usize {
        self.size.wanted()
    }

    // What callers ask for.

    pub(crate) fn submit(&mut self, call: Call) {
        match (&self.phase, self.closed.get()) {
            // It came after the queue was emptied for good.
            (Phase::Stopping, Some(refusal @ Refusal::Broken { .. })) => {
                call.fail(refusal.clone().into());
            }
            (Phase::Stopping, _) => self.drop_call(call),
            // A call that comes while the pool closes was submitted before that.
            (Phase::Starting(_) | Phase::Running | Phase::Draining { .. }, _) => {
                self.alarm.set(call.course.as_ref().and_then(|course| course.first_look()));
                self.queue.push_back(call);
                match (&self.phase, self.reader) {
                    (Phase::Running, Reader::None) if self.readers > 0 => self.dispatch_for_map(),
                    _ => self.dispatch(),
                }
            }
        }
    }

    /// Whether calls wait for a worker that has room.
    pub(crate) fn is_backed_up(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Keeps a state that later calls borrow.
    pub(crate) fn share(&mut self, id: u64, encoded: Parcel) {
        self.states.insert(id, encoded);
    }

    /// No call will borrow that state any more.
    pub(crate) fn forget(&mut self, id: u64) {
        self.states.remove(&id);
        self.members.iter_mut().for_each(|member| member.forget(id));
        if !self.members.iter().all(|member| member.child.is_flushed()) {
            self.bell.ring();
        }
    }

    /// Cancels the tasks of this job that have not begun; how many that are.
    pub(crate) fn cancel(&mut self, job: u64) -> u64 {
        let before = self.report.cancelled;
        let (cancelled, kept) = self.queue.drain(..).partition::<Vec<_>, _>(|call| call.job == job);
        self.queue = kept.into();
        cancelled.into_iter().for_each(|call| self.drop_call(call));
        self.take_back_all(Some(job)).into_iter().for_each(|call| self.drop_call(call));
        self.dispatch();
        self.report.cancelled - before
    }

    /// Whether a worker has begun this task and not answered it.
    pub(crate) fn is_running(&mut self, id: u64) -> bool {
        self.members.iter_mut().any(|member| member.has_begun(id))
    }

    /// A job begins; its number.
    pub(crate) fn begin_job(&mut self, reads: Reads) -> u64 {
        self.readers += usize::from(reads == Reads::AllTheTime);
        self.number()
    }

    /// A job has ended.
    pub(crate) fn end_job(&mut self, reads: Reads) {
        self.readers -= usize::from(reads == Reads::AllTheTime);
    }

    fn take_back_all(&mut self, job: Option<u64>) -> Vec<Call> {
        let (next, members) = (&mut self.next, &mut self.members);
        let mut number = || {
            *next += 1;
            *next
        };
        members.iter_mut().flat_map(|member| member.take_back_all(job, &mut number)).collect()
    }

    fn drop_call(&mut self, call: Call) {
        self.report.cancelled += call.fail(TaskError::Cancelled { begun: false }) as u64;
    }

    // Work.

    /// Hands calls to workers, as far as these have room.
    pub(crate) fn dispatch(&mut self) {
        loop {
            self.hand_out();
            self.level();
            self.tune();
            // Once more, now that they would tell of room: the last look was before that.
            let next = self.queue.front();
            let most = self.may_begin();
            if next.is_none_or(|next| least_loaded(&mut self.members, next, most).is_none()) {
                break;
            }
        }
        self.relieve();
        self.ask_for_workers();
        if let Phase::Draining { .. } = self.phase
            && self.queue.is_empty()
        {
            self.finish_those(Member::is_idle);
        }
    }

    /// Hands calls of a map to workers. Whoever sends them is about to send more, or to read: what is
    /// due after answers were taken, or once nobody sends any more, is left to be done then.
    fn dispatch_for_map(&mut self) {
        /// A map whose iterator takes longer than this for an item stands still.
        const STILL_AFTER: Duration = Duration::from_millis(5);
        self.hand_out();
        if self.is_tuned || self.is_backed_up() || self.turns_over() {
            self.dispatch();
        }
        if self.pace == Pace::Still {
            self.pace = Pace::Moving;
            self.alarm.set(Some(Instant::now() + STILL_AFTER));
        }
    }

    /// It is a while since a map was seen to send something.
    pub(crate) fn stand_still(&mut self) {
        self.pace = Pace::Still;
    }

    fn hand_out(&mut self) {
        let mut has_looked = false;
        while let Some(next) = self.queue.front() {
            let most = self.may_begin();
            let chosen = match soon_done(&mut self.members, next) {
                // One that is awake may have room by now: to wake another takes longer than some tasks.
                None if !has_looked => {
                    has_looked = true;
                    if self.take_answers() {
                        self.tell_reader();
                    }
                    continue;
                }
                None => least_loaded(&mut self.members, next, most),
                soon_done => soon_done,
            };
            let Some(chosen) = chosen else { break };
            if let Some(mut call) = self.queue.pop_front() {
                let (member, next) = (&mut self.members[chosen], &mut self.next);
                let rest = member.cut(&mut call, || {
                    *next += 1;
                    *next
                });
                send(&self.states, &self.bell, member, call);
                rest.into_iter().for_each(|rest| self.queue.push_front(rest));
            }
        }
    }

    /// Gives workers that have nothing to do a half of what the busiest has not begun.
    fn level(&mut self) {
        if !self.queue.is_empty() || self.members.len() < 2 {
            return;
        }
        while let Some(idle) = self.members.iter().position(Member::is_idle) {
            if self.may_begin() == 0 {
                return;
            }
            let Some(busiest) = busiest(&self.members) else { return };
            let victim = &mut self.members[busiest];
            let taken: Vec<_> = match victim.load() {
                1 => {
                    let id = self.next + 1;
                    self.next = id;
                    victim.take_back_half(id).into_iter().collect()
                }
                load => std::iter::from_fn(|| victim.take_back()).take(load / 2).collect(),
            };
            if taken.is_empty() {
                return;
            }
            for mut call in taken.into_iter().rev() {
                let (idle, queue, next) =
                    (&mut self.members[idle], &mut self.queue, &mut self.next);
                if !idle.has_room(&call) {
                    queue.push_front(call);
                    continue;
                }
                let rest = idle.cut(&mut call, || {
                    *next += 1;
                    *next
                });
                send(&self.states, &self.bell, idle, call);
                rest.into_iter().for_each(|rest| queue.push_front(rest));
            }
        }
    }

    /// Says to each worker who sleeps and has to be told of an answer, if anybody does.
    pub(crate) fn tune(&mut self) {
        let (listener, is_eager) = match self.reader {
            Reader::Awake => (None, true),
            Reader::Asleep { is_eager } => (Some(Listener::Doorbell), is_eager),
            // Without a reader it is the supervisor who sends the next call.
            Reader::None if self.needs_supervisor() => {
                (Some(Listener::Socket), self.wakes.are_awaited())
            }
            Reader::None => (None, true),
        };
        if listener.is_none() && !self.is_tuned {
            return;
        }
        self.is_tuned = listener.is_some();
        let wants_room = self.is_backed_up();
        let tell = |member: &mut Member| member.listen(listener, is_eager, wants_room);
        self.members.iter_mut().for_each(tell);
    }

    /// Takes what workers have answered, and hands on what there is room for then.
    pub(crate) fn collect(&mut self) {
        if self.take_answers() || self.is_backed_up() {
            self.dispatch();
            self.tell_reader();
        }
    }

    /// Whether there were any.
    fn take_answers(&mut self) -> bool {
        let mut has_taken = false;
        for owner in 0..self.members.len() {
            if self.members[owner].load() == 0 {
                continue;
            }
            let mut events = 0;
            while let Some(event) = self.members[owner].child.answers() {
                self.handle(owner, event);
                events += 1;
            }
            if events > 0 {
                if self.feed.is_some() {
                    self.members[owner].note_begun();
                }
                self.members[owner].child.wire().made_room();
                has_taken = true;
            }
        }
        has_taken
    }

    /// Whether nobody but the supervisor takes what workers answer, and somebody has to.
    pub(crate) fn needs_supervisor(&self) -> bool {
        let ends = matches!(self.phase, Phase::Draining { .. } | Phase::Stopping);
        let is_needed = ends || self.is_backed_up() || self.wakes.are_awaited();
        let is_needed = is_needed || self.has_to_level() || self.has_to_relieve();
        // Who observes the pool is told of ends that nobody waits for.
        let is_observed =
            self.feed.is_some() && self.members.iter().any(|member| member.load() > 0);
        self.reader == Reader::None && (is_needed || is_observed)
    }

    /// Whether a worker that is done has to take something over from another one, and nobody who
    /// waits, or maps, would see to it.
    fn has_to_level(&self) -> bool {
        (self.readers == 0 || self.pace == Pace::Still)
            && self.members.len() > 1
            && self.members.iter().any(Member::has_spare)
    }

    /// Somebody waits for each answer from here on, of those also that were to be told of together.
    pub(crate) fn listen_for_each(&mut self) {
        if self.reader == Reader::None {
            self.members.iter_mut().for_each(Member::listen_anew);
        }
    }

    /// Has one of those who wait read from here on, if nobody does.
    pub(crate) fn hand_over(&mut self) {
        if let (Reader::None, Some(follower)) = (self.reader, self.followers.first()) {
            follower.promote();
        }
    }

    /// Whether a worker has answered something that was not taken. What one that is not believed has
    /// written is never taken: whoever looked for that again and again would never bury it.
    pub(crate) fn has_answers(&mut self) -> bool {
        self.members.iter_mut().any(|member| {
            member.load() > 0 && member.child.is_trusted() && member.child.wire().has_reply()
        })
    }

    /// Tells the reader of outcomes that it did not take itself.
    pub(crate) fn tell_reader(&self) {
        if let Reader::Asleep { .. } = self.reader {
            self.news.ring();
        }
    }

    // Workers.

    /// A worker ended without having done anything, or could not be started at all.
    pub(crate) fn hiring_failed(&mut self, error: StartError) {
        let cause = error.to_string();
        if let Phase::Starting(started) = &self.phase {
            // Nobody waits for the first worker only if the caller is gone.
            let _ = started.send(Err(error));
            // They stay until they are reaped: several may have ended at once, to be buried yet. The
            // others may be up already, or their initializers have begun what has to be taken down.
            self.stop(None, Work::Abandon);
            return self.give_up(cause);
        }
        let alone = !self.members.iter().any(Member::serves);
        if self.hiring.failed(Instant::now(), self.size.wanted()) && alone {
            self.give_up(cause);
        }
    }

    fn give_up(&mut self, cause: String) {
        let refusal = Refusal::Broken { cause: cause.clone() };
        let _ = self.closed.set(refusal.clone());
        self.tell(|| Told::Broken { cause: cause.clone() });
        self.report.broken = Some(cause);
        for call in self.queue.drain(..) {
            call.fail(refusal.clone().into());
        }
        self.stop(None, Work::Finish);
    }

    /// Takes notice of what happened to a worker; how it ended, if it has.
    pub(crate) fn look_at(&mut self, owner: usize) -> Option<ExitStatus> {
        self.members[owner].has_told();
        while let Some(event) = self.members[owner].child.event() {
            if let Event::Ended(status) = event {
                return Some(status);
            }
            self.handle(owner, event);
        }
        let member = &mut self.members[owner];
        member.child.wire().made_room();
        // A worker that closed its wire may live on for the whole grace period. What it has not
        // begun does not wait for its end.
        let is_up =
            matches!(member.standing, Standing::Serving | Standing::Outgrown | Standing::Retiring);
        if is_up && !member.child.is_connected() {
            let taken = self.take_back_from(owner);
            taken.into_iter().for_each(|call| self.queue.push_front(call));
            // It may live and hear: it has nothing left to do but what runs.
            self.members[owner].finish();
            self.members[owner].standing = Standing::Severed;
        }
        None
    }

    /// Takes back all that this worker has not begun, the last first.
    pub(crate) fn take_back_from(&mut self, owner: usize) -> Vec<Call> {
        let next = &mut self.next;
        self.members[owner].take_back_all(None, || {
            *next += 1;
            *next
        })
    }

    pub(crate) fn handle(&mut self, owner: usize, event: Event) {
        let member = &mut self.members[owner];
        let answered = match event {
            Event::Hello => {
                if member.standing == Standing::Starting {
                    member.standing = Standing::Serving;
                    self.recycling.note_start(member.age());
                    let worker = member.who.clone();
                    self.tell(|| Told::WorkerUp { worker });
                }
                if let Phase::Starting(started) = &self.phase {
                    let _ = started.send(Ok(()));
                    self.phase = Phase::Running;
                }
                return;
            }
            Event::Answers(reply) => member.answered(reply, &mut self.times),
            Event::Answer { id, index, payload } => {
                member.answered_one(id, index, payload, &mut self.times)
            }
            Event::Grown => return member.outgrown(),
            Event::Note { id, note } => return self.tell_note(owner, id, &note),
            Event::Refused(refusal) => return member.refusal = Some(refusal),
            Event::Begun { id } => return member.begun(id),
            Event::Broken(error) => return member.detail = Some(error.to_string()),
            _ => return,
        };
        match answered {
            Ok(count) => {
                self.report.done += count;
                self.hiring.succeeded();
            }
            Err(_) => {
                member.detail = Some("it answered a call that it did not have".to_owned());
                member.child.kill();
            }
        }
    }

    pub(crate) fn bury(&mut self, owner: usize, status: ExitStatus) {
        let mut member = self.members.remove(owner);
        let stopping = matches!(self.phase, Phase::Stopping);
        let left = member.standing == Standing::Leaving;
        let was_up = member.standing != Standing::Starting;
        let start_error = (!was_up).then(|| {
            let refusal = member.refusal.take();
            member.child.start_error(refusal, status)
        });
        let error = start_error.unwrap_or(StartError::EndedEarly { status });
        let next = &mut self.next;
        let Buried { unbegun, again, report } = member.bury(status, stopping, || {
            *next += 1;
            *next
        });
        self.tell(|| Told::WorkerDown { report: Box::new(report.clone()) });
        let productive = report.done + report.lost + report.retried + report.timed_out > 0;
        self.report.push(report);
        if stopping {
            unbegun.into_iter().for_each(|call| self.drop_call(call));
            return;
        }
        // They go first: they were submitted before all that waits. What ends workers goes last.
        unbegun.into_iter().rev().for_each(|call| self.queue.push_front(call));
        self.queue.extend(again);
        if !left && self.intensity.is_exceeded_by(Instant::now()) {
            let last = if was_up { status.to_string() } else { error.to_string() };
            self.give_up(self.intensity.cause(&last));
        } else if !left && !productive {
            self.hiring_failed(error);
        }
    }
}

/// The first worker that is awake, soon done with what it has, and can have this call as well.
fn soon_done(members: &mut [Member], call: &Call) -> Option<usize> {
    members.iter_mut().position(|member| {
        member.load() > 0
            && member.backlog().is_some_and(|backlog| backlog < Member::AHEAD / 2)
            && member.has_room(call)
    })
}

/// The worker with the least to do, of those that can have this call. So many of those that have
/// nothing to do may begin.
fn least_loaded(members: &mut [Member], call: &Call, most: usize) -> Option<usize> {
    let all = members.iter_mut().enumerate();
    let all = all.filter(|(_, member)| most > 0 || member.load() > 0);
    let free = all.filter_map(|(one, member)| member.has_room(call).then(|| (member.load(), one)));
    free.min().map(|(_, one)| one)
}

/// The worker from which an idle one is to take something. However short its tasks were so far, the
/// one that runs may never end before one behind it has begun.
fn busiest(members: &[Member]) -> Option<usize> {
    let busiest = (0..members.len()).max_by_key(|&one| members[one].load())?;
    (members[busiest].load() > 0).then_some(busiest)
}

/// Sends a call to a worker, after the state that it borrows if the worker has not got that.
pub(crate) fn send(states: &HashMap<u64, Parcel>, bell: &Bell, member: &mut Member, call: Call) {
    if let Some(encoded) = states.get(&call.state).filter(|_| !member.knows(call.state))
        && member.share(call.state, encoded).is_err()
    {
        call.fail(Refusal::BytesOnly.into());
        return;
    }
    member.send(call);
    if !member.child.is_flushed() {
        // Whoever sends may be about to sleep, and only the supervisor waits until a socket has room.
        bell.ring();
    }
}
