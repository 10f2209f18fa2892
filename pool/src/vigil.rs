//! The vigil: who waits for outcomes, and gets none, has the workers looked at.
//!
//! Healthy workers are not polled, and nobody wakes while nobody waits. Whoever sleeps for an outcome
//! does not sleep for longer than the time after which a worker counts as stalled; where somebody waits
//! without a thread, the supervisor does not. Then that looks at those whose first call is the same as it
//! was when the vigil began, with as many of its items begun and answered. Only these are looked up in
//! `/proc`.
//!
//! # Invariants
//!
//! 1. A worker that got on with its work since the last look is not looked up, let alone touched.
//! 2. What a worker is ended for was seen at two looks, a whole period apart, but for a stop, which
//!    needs no second look.
//! 3. Before a worker is ended, all that it has not begun is taken back.

use std::time::{Duration, Instant};

use epilogue_process::child::Work;
use epilogue_process::wire::Wire;

use crate::call::Call;
use crate::event::Event;
use crate::floor::Floor;
use crate::member::{Member, Standing};
use crate::stall::{Look, OnStall, Reaction, Stall, StallKind};
use crate::terms::earlier;

/// When to look at the workers.
#[derive(Debug)]
pub(crate) struct Vigil {
    after: Duration,
    policy: OnStall,
    stage: Stage,
    /// Until when the supervisor sleeps at most, as somebody waited without a thread: whoever does so
    /// before need not wake it. If nobody does any more, it wakes then in vain, once.
    wakes_at: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nobody has waited.
    Off,
    /// The workers were marked, and are looked at then by who still waits.
    Until(Instant),
    /// The supervisor is to look now.
    Due,
}

impl Vigil {
    /// From when on a worker counts as stalled.
    pub(crate) const DEFAULT: Duration = Duration::from_secs(5);

    pub(crate) fn new(after: Duration, policy: OnStall) -> Self {
        // With no time at all the supervisor would never sleep while somebody waits.
        let after = after.max(Duration::from_millis(1));
        Self { after, policy, stage: Stage::Off, wakes_at: None }
    }

    /// After what time a worker that has not got on counts as stalled.
    pub(crate) fn after(&self) -> Duration {
        self.after
    }

    fn next(&self, now: Instant) -> Stage {
        now.checked_add(self.after).map_or(Stage::Off, Stage::Until)
    }
}

/// What a worker was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    /// Its first call.
    call: u64,
    begun: u32,
    answered: u32,
}

/// What is known of a worker that may have stalled.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    mark: Option<Mark>,
    /// The CPU time that it had used when it was looked up with that mark.
    cpu: Option<u64>,
    /// What was told of it with that mark.
    told: Option<StallKind>,
    /// Whether it was continued with that mark.
    continued: bool,
}

/// A worker that has not got on.
#[derive(Debug)]
pub(crate) struct Suspect {
    owner: usize,
    pub(crate) pid: u32,
}

impl Floor {
    /// Somebody is about to sleep for an outcome: until when at most. True if the supervisor has to
    /// be woken, to look at the workers now.
    pub(crate) fn keep_vigil(&mut self, now: Instant) -> (Option<Instant>, bool) {
        match self.vigil.stage {
            Stage::Until(at) if now < at => (Some(at), false),
            // Not so long ago that nobody has waited since.
            Stage::Until(at) if now.duration_since(at) < self.vigil.after => {
                self.vigil.stage = Stage::Due;
                (now.checked_add(self.vigil.after), true)
            }
            Stage::Due => (now.checked_add(self.vigil.after), false),
            Stage::Off | Stage::Until(_) => {
                for member in &mut self.members {
                    member.mark();
                }
                self.vigil.stage = self.vigil.next(now);
                (now.checked_add(self.vigil.after), false)
            }
        }
    }

    /// Leaves the vigil to the supervisor, if somebody waits without a thread. True if that has to be
    /// woken, which sleeps for longer: once in a period, however many wait, one after the other.
    pub(crate) fn leave_vigil(&mut self) -> bool {
        if self.vigil.wakes_at.is_some() || !self.wakes.are_awaited() {
            return false;
        }
        self.vigil.wakes_at = self.keep_vigil(Instant::now()).0;
        self.vigil.wakes_at.is_some()
    }

    /// Until when the supervisor may sleep.
    pub(crate) fn vigil_due(&mut self, now: Instant) -> Option<Instant> {
        self.vigil.wakes_at.take_if(|at| *at <= now);
        let kept = self.needs_supervisor().then(|| self.keep_vigil(now).0).flatten();
        earlier(self.vigil.wakes_at, kept)
    }

    /// Those who have not got on since they were marked, if it is time to look.
    pub(crate) fn suspects(&mut self, now: Instant) -> Vec<Suspect> {
        let is_due = match self.vigil.stage {
            Stage::Due => true,
            Stage::Until(at) => at <= now && self.needs_supervisor(),
            Stage::Off => false,
        };
        if !is_due {
            return Vec::new();
        }
        self.vigil.stage = self.vigil.next(now);
        let members = self.members.iter_mut().enumerate();
        let stuck = members.filter_map(|(owner, member)| {
            let is_stuck = member.mark() && member.is_up();
            is_stuck.then(|| Suspect { owner, pid: member.child.id() })
        });
        stuck.collect()
    }

    /// Does what is to be done about a worker that looks like this. It has the position that it had
    /// when it was suspected: only the supervisor buries.
    pub(crate) fn judge(&mut self, suspect: &Suspect, look: Look) {
        if suspect.owner >= self.members.len() {
            return;
        }
        // It may have got on while `/proc` was read: then that says nothing of what it is about now.
        while let Some(event) = self.members[suspect.owner].child.answers() {
            self.handle(suspect.owner, event);
        }
        let member = &mut self.members[suspect.owner];
        if member.about() != member.watched.mark {
            return;
        }
        let Some(kind) = member.kind_of_stall(&look) else { return };
        let reaction = match (self.vigil.policy, kind) {
            (_, StallKind::Traced) | (OnStall::Leave, _) => Reaction::Left,
            (OnStall::Continue, StallKind::Silent) => Reaction::Left,
            (OnStall::Continue, StallKind::Stopped) if !member.watched.continued => {
                Reaction::Continued
            }
            (OnStall::Continue | OnStall::End, _) => Reaction::Ended,
        };
        let has_been_told = member.watched.told == Some(kind) && reaction == Reaction::Left;
        member.watched.told = Some(kind);
        let stall = Stall {
            worker: member.child.name().to_owned(),
            pid: suspect.pid,
            kind,
            state: look.state,
            waits_in: look.waits_in,
            reaction,
        };
        match reaction {
            Reaction::Left => self.spread(suspect.owner),
            Reaction::Continued => {
                member.watched.continued = true;
                member.child.resume();
            }
            Reaction::Ended => self.end_stalled(suspect.owner, &stall),
        }
        if !has_been_told {
            self.tell(|| Event::Stalled { stall: Box::new(stall.clone()) });
            self.report.push_stall(stall);
        }
    }

    /// Gives what this worker has not begun to others that are idle, as far as they may begin.
    fn spread(&mut self, owner: usize) {
        let idle = |(other, member): (usize, &Member)| other != owner && member.is_idle();
        if self.may_begin() > 0 && self.members.iter().enumerate().any(idle) {
            let taken = self.take_back_from(owner);
            for call in taken {
                self.send_to_other(owner, call);
            }
        }
    }

    fn send_to_other(&mut self, owner: usize, call: Call) {
        let most = self.may_begin();
        let members = self.members.iter_mut().enumerate();
        let free = members.filter(|(other, one)| *other != owner && (most > 0 || one.load() > 0));
        let free = free.filter_map(|(other, member)| member.has_room(&call).then_some(other));
        let free: Vec<_> = free.collect();
        match free.into_iter().min_by_key(|&other| self.members[other].load()) {
            Some(other) => self.give(other, call),
            None => self.queue.push_front(call),
        }
    }

    fn end_stalled(&mut self, owner: usize, stall: &Stall) {
        let taken = self.take_back_from(owner);
        // It may have answered just now: then nothing of its work is lost.
        while let Some(event) = self.members[owner].child.answers() {
            self.handle(owner, event);
        }
        let member = &mut self.members[owner];
        member.detail = Some(stall.to_string());
        member.standing = Standing::Leaving;
        member.child.stop(None, Work::Abandon);
        taken.into_iter().for_each(|call| self.queue.push_front(call));
    }
}

impl Member {
    fn about(&mut self) -> Option<Mark> {
        let wire = self.child.wire();
        self.in_flight.front().map(|sent| Mark {
            call: sent.call.id,
            begun: wire.begun(sent.ticket, sent.call.count()),
            answered: sent.call.answered(),
        })
    }

    /// Notes what it is about. True if that is the same as at the last look: it has not got on.
    fn mark(&mut self) -> bool {
        let mark = self.about();
        if self.watched.mark == mark && mark.is_some() {
            return true;
        }
        self.watched = Watched { mark, ..Watched::default() };
        false
    }

    /// Whether, and how, it has stalled, as it looks like this and has not got on.
    fn kind_of_stall(&mut self, look: &Look) -> Option<StallKind> {
        let has_computed = self.watched.cpu.replace(look.cpu) != Some(look.cpu);
        let mark = self.watched.mark?;
        match look.state {
            'T' => Some(StallKind::Stopped),
            't' => Some(StallKind::Traced),
            // What it waits for may still be on its way to it.
            'S' | 'D' if has_computed || self.child.is_sending() => None,
            'S' | 'D' if mark.begun == 0 => Some(StallKind::Deaf),
            'S' | 'D' => Some(StallKind::Silent),
            // It runs or would, or it is just ending.
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use epilogue_process::Limits;
    use epilogue_process::entry::{Entry, Request};
    use epilogue_process::segment::Stock;

    use super::Vigil;
    use crate::call::{Call, NO_STATE, Which, head};
    use crate::floor::{Floor, floor_of_one, floor_of_two, send};
    use crate::mailbox::Mailbox;
    use crate::member::Standing;
    use crate::stall::{Look, OnStall};
    use crate::wakes::Presence;

    fn call(id: u64) -> Call {
        call_of(id, 1)
    }

    fn call_of(id: u64, tasks: u32) -> Call {
        let mut request = Request::new(head(Entry::plain(|n: u32| n).unwrap(), NO_STATE));
        for task in 0..tasks {
            request.push(&task, &Limits::default(), &Stock::new(Stock::POOL)).unwrap();
        }
        Call::new(id, id, NO_STATE, request, Arc::new(Mailbox::default()), 0)
    }

    /// Where the first of two workers has three tasks, and a debugger that holds it; the other has done
    /// two, and each may do three.
    fn with_a_traced_worker(wanted: usize) -> Floor {
        let (mut floor, period) = (floor_of_two(wanted, 3), Duration::from_secs(1));
        floor.vigil = Vigil::new(period, OnStall::default());
        floor.members.iter_mut().for_each(|member| member.standing = Standing::Serving);
        floor.members[1].done = 2;
        send(&floor.states, &floor.bell, &mut floor.members[0], call_of(1, 3));
        let now = Instant::now();
        floor.keep_vigil(now);
        assert!(floor.keep_vigil(now + period).1);
        let suspects = floor.suspects(now + period);
        floor.judge(&suspects[0], Look { state: 't', waits_in: None, cpu: 0 });
        assert_eq!(floor.report.stalls.len(), 1);
        floor
    }

    #[test]
    fn who_takes_over_from_a_stalled_worker_does_no_more_than_it_may() {
        let floor = with_a_traced_worker(2);
        let tasks = [0, 1].map(|owner| floor.members[owner].tasks());
        let waiting: usize = floor.queue.iter().map(Call::left).sum();
        assert_eq!((tasks, waiting), ([0, 1], 2));
    }

    #[test]
    fn who_is_to_take_the_place_of_a_stalled_worker_takes_nothing_over_before_that_leaves() {
        let floor = with_a_traced_worker(1);
        let tasks = [0, 1].map(|owner| floor.members[owner].tasks());
        assert_eq!((tasks, floor.queue.len()), ([3, 0], 0));
    }

    #[test]
    fn who_got_on_while_it_was_looked_up_is_not_judged_by_that() {
        let (mut floor, period) = (floor_of_one(), Duration::from_secs(1));
        floor.vigil = Vigil::new(period, OnStall::End);
        floor.members[0].standing = Standing::Serving;
        for id in [1, 2] {
            send(&floor.states, &floor.bell, &mut floor.members[0], call(id));
        }
        let now = Instant::now();
        floor.keep_vigil(now);
        assert!(floor.keep_vigil(now + period).1);
        let suspects = floor.suspects(now + period);
        assert_eq!(suspects.len(), 1);
        // It has another call now.
        assert_eq!(floor.cancel(Which::Job(1)), 1);
        let stopped = Look { state: 'T', waits_in: None, cpu: 0 };
        floor.judge(&suspects[0], stopped);
        assert!(floor.report.stalls.is_empty());
        assert_eq!(floor.members[0].standing, Standing::Serving);
    }

    #[test]
    fn whoever_waits_without_a_thread_wakes_the_supervisor_once_in_a_period() {
        let (mut floor, period) = (floor_of_one(), Duration::from_secs(3600));
        floor.vigil = Vigil::new(period, OnStall::default());
        assert!(!floor.leave_vigil());
        for _ in 0..2 {
            let waits = Presence::new(&floor.wakes);
            assert!(floor.leave_vigil() && !floor.leave_vigil());
            drop(waits);
            // The next one waits.
            let waits = Presence::new(&floor.wakes);
            assert!(!floor.leave_vigil());
            drop(waits);
            let now = Instant::now();
            assert!(floor.vigil_due(now).is_some());
            assert_eq!(floor.vigil_due(now + period), None);
        }
    }
}
