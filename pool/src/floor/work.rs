//! Calls on their way: handed to workers, evened out between them, and their answers taken.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use epilogue_process::bell::Bell;
use epilogue_process::parcel::Parcel;
use epilogue_process::ring::Patience;

use super::{Floor, Pace, Phase};
use crate::call::Call;
use crate::error::Refusal;
use crate::mailbox::Mailbox;
use crate::member::Member;

impl Floor {
    /// A map whose iterator takes twice as long as this for an item stands still.
    const STILL_AFTER: Duration = Duration::from_millis(10);

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
    pub(super) fn dispatch_for_map(&mut self) {
        self.hand_out();
        if self.is_tuned || self.is_backed_up() || self.turns_over() {
            self.dispatch();
        }
        if self.pace == Pace::Still {
            self.alarm.set(Some(Instant::now() + Self::STILL_AFTER));
        }
        self.pace = Pace::Moving;
    }

    /// The alarm went off: if maps have sent something since, it is set again, of which nobody has to
    /// be told.
    pub(crate) fn slow_down(&mut self, now: Instant) {
        self.pace = match self.pace {
            Pace::Moving => {
                self.alarm.set(Some(now + Self::STILL_AFTER));
                Pace::Slowing
            }
            Pace::Slowing | Pace::Still => Pace::Still,
        }
    }

    pub(super) fn hand_out(&mut self) {
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
            if let Some(call) = self.queue.pop_front() {
                self.give(chosen, call);
            }
        }
    }

    /// Gives a call to a worker that is awake and soon done, if no other waits. Most of a map that goes
    /// on do not see the queue.
    #[inline]
    pub(super) fn hand_on(&mut self, call: Call) {
        let chosen = match self.queue.is_empty() {
            true => soon_done(&mut self.members, &call),
            false => None,
        };
        match chosen {
            Some(chosen) => self.give(chosen, call),
            None => self.queue.push_back(call),
        }
    }

    /// Sends a call to a worker that has room for it; what that may not do any more waits for another.
    #[inline]
    pub(crate) fn give(&mut self, chosen: usize, mut call: Call) {
        let (member, next) = (&mut self.members[chosen], &mut self.next);
        let rest = member.cut(&mut call, || {
            *next += 1;
            *next
        });
        send(&self.states, &self.bell, member, call);
        rest.into_iter().for_each(|rest| self.queue.push_front(rest));
    }

    /// Gives workers that have nothing to do a half of what the busiest has not begun.
    pub(super) fn level(&mut self) {
        if !self.queue.is_empty() || self.members.len() < 2 {
            return;
        }
        while let Some(idle) = self.members.iter().position(Member::is_idle) {
            if self.may_begin() == 0 {
                return;
            }
            let taken = self.take_from_busiest();
            if taken.is_empty() {
                return;
            }
            for call in taken.into_iter().rev() {
                match self.members[idle].has_room(&call) {
                    true => self.give(idle, call),
                    false => self.queue.push_front(call),
                }
            }
        }
    }

    /// Takes a half of what the busiest has not begun; of the next one, if that has begun everything.
    fn take_from_busiest(&mut self) -> Vec<Call> {
        let mut busy: Vec<_> =
            (0..self.members.len()).filter(|&one| self.members[one].has_spare()).collect();
        busy.sort_by_key(|&one| Reverse(self.members[one].tasks()));
        for one in busy {
            let victim = &mut self.members[one];
            let taken: Vec<_> = match victim.load() {
                1 => {
                    self.next += 1;
                    victim.take_back_half(self.next).into_iter().collect()
                }
                load => std::iter::from_fn(|| victim.take_back()).take(load / 2).collect(),
            };
            if !taken.is_empty() {
                return taken;
            }
        }
        Vec::new()
    }

    /// Whether there were any.
    pub(super) fn take_answers(&mut self) -> bool {
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

    /// Whether there is to be done what nobody does who waits, or maps.
    pub(super) fn has_to_go_on(&self) -> bool {
        let ends = matches!(self.phase, Phase::Draining { .. } | Phase::Stopping);
        // Who observes the pool is told of ends that nobody waits for.
        let is_observed =
            self.feed.is_some() && self.members.iter().any(|member| member.load() > 0);
        ends || self.is_backed_up() || self.has_to_level() || self.has_to_relieve() || is_observed
    }

    /// Whether a worker that is done has to take something over from another one, and nobody who
    /// waits, or maps, would see to it.
    pub(super) fn has_to_level(&self) -> bool {
        (self.readers == 0 || self.pace == Pace::Still)
            && self.members.len() > 1
            && self.members.iter().any(Member::has_spare)
    }

    /// Whether a task of this mailbox may be answered while somebody looks. If not, the workers have
    /// better use for the CPU.
    pub(crate) fn answers_soon(&self, mailbox: &Mailbox) -> bool {
        let workers = self.members.len().max(1) as u32;
        mailbox.cost().of(1).is_none_or(|each| each / workers <= Patience::BUDGET)
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

/// Sends a call to a worker, after the state that it borrows if the worker has not got that.
#[inline]
pub(crate) fn send(states: &BTreeMap<u64, Parcel>, bell: &Bell, member: &mut Member, call: Call) {
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
