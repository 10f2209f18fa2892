//! What happened to workers, and what becomes of their calls.

use std::time::{Duration, Instant};

use epilogue_process::child::{Event, Work};
use epilogue_process::wire::WireError;
use epilogue_process::{ExitStatus, StartError};

use super::{Floor, Phase};
use crate::call::{Call, Which};
use crate::error::Refusal;
use crate::event::Event as Told;
use crate::member::{Buried, Member, Standing};
use crate::vigil::Vigil;

/// A worker that was up for so long did not die of being one of this pool: it is replaced, and that
/// is all.
const LIVED: Duration = Duration::from_millis(500);

impl Floor {
    /// A worker ended without having done anything, or could not be started at all.
    fn hiring_failed(&mut self, error: StartError) {
        let cause = error.to_string();
        if let Phase::Starting(started) = &self.phase {
            // Nobody waits for the first worker only if the caller is gone.
            let _ = started.send(Err(error));
            // They stay until they are reaped: several may have ended at once, to be buried yet. The
            // others may be up already, or their initializers have begun what has to be taken down.
            self.stop(None, Work::Abandon);
            return self.give_up(cause);
        }
        self.note_failure(cause);
    }

    fn note_failure(&mut self, cause: String) {
        let alone = !self.members.iter().any(Member::serves);
        if self.hiring.failed(Instant::now(), self.size.wanted()) && alone {
            self.give_up(cause);
        }
    }

    pub(super) fn give_up(&mut self, cause: String) {
        let refusal = Refusal::Broken { cause: cause.clone() };
        let _ = self.closed.set(refusal.clone());
        self.tell(|| Told::Broken { cause: cause.clone() });
        self.report.broken = Some(cause);
        // What lies ahead with other workers waits as well, and is not to be taken for cancelled.
        let ahead = self.take_back_all(Which::All);
        for call in self.queue.drain(..).chain(ahead) {
            call.fail(refusal.clone().into());
        }
        self.stop(None, Work::Finish);
    }

    /// Takes notice of what happened to a worker; how it ended, if it has.
    pub(crate) fn look_at(&mut self, owner: usize) -> Option<ExitStatus> {
        self.members[owner].note_end();
        while let Some(event) = self.members[owner].child.event() {
            if let Event::Ended(status) = event {
                return Some(status);
            }
            self.handle(owner, event);
        }
        let member = &mut self.members[owner];
        // Behind the last look at its wire: what it told meanwhile was taken from there, and nobody would be
        // told again by who is taken for listened to. What it tells from here on wakes us.
        member.has_told();
        member.looked_at();
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
        self.members[owner].take_back_all(Which::All, || {
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
                // Nothing of its ring is believed any more: the kill does not end who else has that,
                // such as a copy that it made of itself, and whoever takes answers for as long as there
                // are some, under this lock, would be at it for as long as that writes.
                member.child.distrust(WireError::Garbage);
            }
        }
    }

    pub(crate) fn bury(&mut self, owner: usize, status: ExitStatus) {
        let mut member = self.members.remove(owner);
        let stopping = matches!(self.phase, Phase::Stopping);
        let left = member.standing == Standing::Leaving;
        let was_up = member.standing != Standing::Starting;
        // One that was up for a while died of something else than being a worker of this pool.
        let has_lived = member.age() > LIVED;
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
        let (over, unbegun): (Vec<_>, Vec<_>) =
            unbegun.into_iter().partition(|call| stopping || call.mailbox().begins_no_more());
        over.into_iter().for_each(|call| self.drop_call(call));
        if stopping {
            return;
        }
        // What was begun again has its limits anew, and the last look may have found none that was left.
        // Not in the past: a look that comes late means that time stood still.
        let now = Instant::now();
        for call in unbegun.iter().chain(&again) {
            let look = call.course.as_ref().and_then(|course| course.first_look());
            self.alarm.set(look.map(|look| look.max(now)));
        }
        // They go first: they were submitted before all that waits. What ends workers goes last.
        unbegun.into_iter().rev().for_each(|call| self.queue.push_front(call));
        if self.feed.is_some() && !again.is_empty() {
            // Nobody may be about to look: what it was told to have begun was all that there was.
            self.look_later(now);
        }
        self.queue.extend(again);
        if left {
            return;
        }
        match self.phase {
            // Whoever waits for the first is told why it failed, however many deaths are too many.
            Phase::Starting(_) => return self.hiring_failed(error),
            Phase::Draining { .. } if !was_up => return self.help_failed(error),
            Phase::Running | Phase::Draining { .. } | Phase::Stopping => {}
        }
        if self.intensity.is_exceeded_by(Instant::now()) {
            let last = if was_up { status.to_string() } else { error.to_string() };
            self.give_up(self.intensity.cause(&last));
        } else if !productive {
            match was_up {
                true if has_lived => {}
                true => {
                    self.note_failure(format!("a worker ended before its first task: {status}"))
                }
                false => self.hiring_failed(error),
            }
        }
    }

    /// A worker was started to help a pool that closes, and cannot. That costs nobody anything as long as
    /// others get on with what there is, or nothing is left of it.
    fn help_failed(&mut self, error: StartError) {
        let others_serve = self.members.iter().any(Member::serves);
        if !others_serve && self.queue.is_empty() {
            return;
        }
        if !others_serve && self.intensity.is_exceeded_by(Instant::now()) {
            return self.give_up(self.intensity.cause(&error.to_string()));
        }
        self.nobody_comes(error);
    }

    /// A worker could not even be started: none is for a moment, whatever the others get done. It was none
    /// that died.
    pub(crate) fn start_failed(&mut self, error: StartError) {
        if matches!(self.phase, Phase::Draining { .. }) {
            self.nobody_comes(error);
        } else {
            self.hiring_failed(error);
        }
        self.hiring.start_failed(Instant::now());
    }

    /// What runs in a pool that closes may wait for what nobody comes to begin: then nothing else would
    /// end it. It may as well be a long task, beside which the kernel has nothing to start another with for
    /// a while.
    fn nobody_comes(&mut self, error: StartError) {
        let (cause, others_serve) = (error.to_string(), self.members.iter().any(Member::serves));
        self.hiring_failed(error);
        let is_hopeless = self.hiring.is_hopeless(self.size.wanted())
            && self.hiring.has_failed_for(self.vigil.after().min(Vigil::DEFAULT), Instant::now());
        if others_serve && is_hopeless && self.intensity.is_limited() && self.has_unbegun() {
            self.give_up(cause);
        }
    }

    fn has_unbegun(&mut self) -> bool {
        !self.queue.is_empty() || self.members.iter_mut().any(|member| member.spare() > 0)
    }
}
