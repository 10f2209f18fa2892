//! Limits of time, enforced: what waits too long expires, what runs too long is asked to return, and
//! then its worker is ended.
//!
//! # Invariants
//!
//! 1. A worker is ended for one task only after all others were taken back from it, and after the
//!    task was seen to be unanswered then. So its end costs no other task anything.
//! 2. The outcome of a task that ran too long comes with the end of its worker: whoever has it knows
//!    that nothing of the task runs any more.
//! 3. Where no call has terms nobody looks, and no clock is read.

use std::time::{Duration, Instant};

use epilogue_process::child::Work;

use crate::call::{Call, Which};
use crate::course::{Course, Step, Verdict};
use crate::error::TaskError;
use crate::floor::Floor;
use crate::member::{Member, Sent, Standing};
use crate::shared::Shared;
use crate::terms::{Terms, earlier};

/// When the supervisor looks next, and whether it has heard of that.
#[derive(Debug, Default)]
pub(crate) struct Alarm {
    at: Option<Instant>,
    is_news: bool,
}

impl Alarm {
    /// Has the supervisor look at that time at the latest, if any.
    pub(crate) fn set(&mut self, at: Option<Instant>) {
        if let Some(at) = at
            && self.at.is_none_or(|set| at < set)
        {
            self.at = Some(at);
            self.is_news = true;
        }
    }

    pub(crate) fn at(&self) -> Option<Instant> {
        self.at
    }

    /// Whether the supervisor, who may sleep for longer, has to be woken for it. Asked once.
    pub(crate) fn is_news(&mut self) -> bool {
        std::mem::take(&mut self.is_news)
    }

    /// By how much it is time to look. Then the alarm has to be set again.
    fn goes_off(&mut self, now: Instant) -> Option<Duration> {
        self.at.take_if(|at| *at <= now).map(|at| now - at)
    }
}

impl Shared {
    /// Cancels these tasks, or has them return if they run. Whether one of them never begins.
    pub(crate) fn cancel(&self, which: Which<'_>) -> bool {
        let mut floor = self.floor();
        let is_cancelled = floor.cancel(which) > 0;
        floor.cancel_running(which);
        // A scope may sleep for the outcome of a task that somebody else cancels.
        floor.tell_reader();
        // What was sent in the place of these may have been answered before the supervisor listened.
        self.leave(&mut floor);
        if floor.alarm.is_news() {
            self.bell.ring();
        }
        is_cancelled
    }
}

impl Floor {
    /// How many times as long as a look took nobody looks again: many calls may each have a moment
    /// of their own.
    const REST: u32 = 16;

    /// Who comes so late was stopped itself, or had to wait for a CPU.
    const PAUSE: Duration = Duration::from_millis(50);

    /// Whether workers were stopped and continued. If we come too late as well, it was all of us: by
    /// Ctrl-Z and `fg`, for instance. A worker alone gains nothing by being stopped.
    fn was_paused(&self) -> bool {
        // All are asked, so that what was is not found again at the next look.
        self.members.iter().filter(|member| member.child.was_continued()).count() > 0
    }

    /// Has all limits count from now on.
    fn resume(&mut self, now: Instant) {
        let queued = self.queue.iter_mut();
        let sent = self.members.iter_mut().flat_map(Member::calls_mut);
        for course in queued.chain(sent).filter_map(|call| call.course.as_mut()) {
            course.resume(now);
        }
    }

    /// Looks at the calls that have limits, if it is time to, and does what is due. What workers
    /// have answered was collected before.
    pub(crate) fn enforce(&mut self, now: Instant) {
        let Some(late) = self.alarm.goes_off(now) else { return };
        if late >= Self::PAUSE && self.was_paused() {
            self.resume(now);
        }
        self.slow_down(now);
        let waiting = self.enforce_in_queue(now);
        let running =
            (0..self.members.len()).filter_map(|owner| self.enforce_with(owner, now)).min();
        let rest_until = Instant::now() + now.elapsed() * Self::REST;
        self.alarm.set(earlier(waiting, running).map(|next| next.max(rest_until)));
        if self.feed.is_some() {
            self.watch_begins(now);
        }
        self.alarm.is_news();
    }

    /// When to look at the queue again.
    fn enforce_in_queue(&mut self, now: Instant) -> Option<Instant> {
        let (mut next, mut expired) = (None, Vec::new());
        for position in (0..self.queue.len()).rev() {
            let Some(course) = &mut self.queue[position].course else { continue };
            match course.look_at_waiting(now) {
                Step::Wait(until) => next = earlier(next, until),
                _ => expired.extend(self.queue.remove(position)),
            }
        }
        expired.into_iter().rev().for_each(|call| self.expire(call));
        next
    }

    fn expire(&mut self, call: Call) {
        self.report.timed_out += call.fail(TaskError::Expired) as u64;
    }

    /// When to look at this worker again.
    fn enforce_with(&mut self, owner: usize, now: Instant) -> Option<Instant> {
        let member = &mut self.members[owner];
        let mut expired = Vec::new();
        let Due { next, verdict } = member.enforce(now, &mut expired);
        expired.into_iter().for_each(|call| self.expire(call));
        if let Some((id, verdict)) = verdict {
            self.end_worker_of(owner, id, verdict);
        }
        next
    }

    /// Ends a worker for the call of that number, unless it has been answered.
    fn end_worker_of(&mut self, owner: usize, id: u64, verdict: Verdict) {
        let taken = self.take_back_from(owner);
        // It may have been answered just before: then the worker runs nothing any more, and stays.
        while let Some(event) = self.members[owner].child.answers() {
            self.handle(owner, event);
        }
        self.members[owner].condemn(id, verdict);
        taken.into_iter().for_each(|call| self.queue.push_front(call));
    }

    /// Asks those of these tasks to return that run. By their terms their workers are ended later.
    fn cancel_running(&mut self, which: Which<'_>) {
        let now = Instant::now();
        for member in &mut self.members {
            if member.ask_to_stop(which, now) {
                self.alarm.set(Some(now));
            }
        }
    }
}

/// What is due at one worker.
struct Due {
    next: Option<Instant>,
    /// The call for which it has to be ended, and why.
    verdict: Option<(u64, Verdict)>,
}

impl Member {
    /// Looks at the calls of this worker; takes back what waited for too long.
    fn enforce(&mut self, now: Instant, expired: &mut Vec<Call>) -> Due {
        let mut due = Due { next: None, verdict: None };
        if self.child.has_ended() {
            // What it was about is lost, not late, and told of when nothing is left below it.
            return due;
        }
        let running = self.running();
        for position in (0..self.load()).rev() {
            let is_running = running == Some(position);
            if running.is_some_and(|running| position < running) {
                // Done: workers take their calls in order. Its answer is on its way.
                break;
            }
            let running_for =
                if is_running { self.child.wire().running_for() } else { Duration::ZERO };
            let Some((call, _)) = self.call_at(position) else { continue };
            let id = call.id;
            let Some(course) = &mut call.course else { continue };
            let step = match is_running {
                true => course.look_at_running(now, running_for),
                false => course.look_at_waiting(now),
            };
            match step {
                Step::Wait(until) => due.next = earlier(due.next, until),
                Step::Expire => match self.take_back_at(position) {
                    Some(call) => expired.push(call),
                    // It has just begun.
                    None => due.next = Some(now),
                },
                Step::Ask => {
                    self.ask(position);
                    due.next = Some(now);
                }
                Step::End(verdict) => due.verdict = Some((id, verdict)),
            }
        }
        due
    }

    /// Ends it for the call of that number, if it has that.
    fn condemn(&mut self, id: u64, verdict: Verdict) {
        let running = self.running();
        let Some((call, _)) = running.and_then(|position| self.call_at(position)) else { return };
        if call.id != id {
            return;
        }
        if let Some(course) = &mut call.course {
            course.condemn(verdict);
        }
        self.standing = Standing::Leaving;
        self.child.stop(None, Work::Abandon);
    }

    /// Asks the task that runs here to return, if it is one of these.
    fn ask_to_stop(&mut self, which: Which<'_>, now: Instant) -> bool {
        let Some(position) = self.running() else { return false };
        let Some((call, _)) = self.call_at(position) else { return false };
        if !which.has(call) {
            return false;
        }
        let course =
            call.course.get_or_insert_with(|| Box::new(Course::new(Terms::default(), now)));
        course.cancel(now);
        self.ask(position);
        true
    }

    /// Asks the task that runs at this position to return. Those who are told of that are told first that
    /// it has begun.
    fn ask(&mut self, position: usize) {
        let Some(Sent { call, ticket }) = self.in_flight.get_mut(position) else { return };
        if call.is_traced() {
            call.begun(self.child.wire().began(*ticket));
        }
        call.asked_to_stop();
        self.child.wire().ask_to_stop(call.id);
    }
}
