//! The calls that a worker was sent: taken back, answered, and looked at.

use std::time::Duration;

use epilogue_process::parcel::Parcel;
use epilogue_process::ring::{Reply, Ticket};
use epilogue_process::wire::Wire;

use super::{Member, Sent, Standing};
use crate::call::{Call, Unasked, Which};
use crate::course::Verdict;
use crate::event::Tasks;
use crate::stats::{Stats, Times};

impl Member {
    /// Takes back the last call that it has not begun, if there is one.
    pub(crate) fn take_back(&mut self) -> Option<Call> {
        self.take_back_at(self.in_flight.len().checked_sub(1)?)
    }

    /// Takes back the call at this position, if it has not begun.
    pub(crate) fn take_back_at(&mut self, position: usize) -> Option<Call> {
        let sent = self.in_flight.get(position)?;
        let (ticket, count) = (sent.ticket, sent.call.count());
        if !self.child.wire().revoke(ticket, count) {
            return None;
        }
        self.forget_call(position)
    }

    /// The call at this position, and where it can be taken back.
    pub(crate) fn call_at(&mut self, position: usize) -> Option<(&mut Call, Ticket)> {
        self.in_flight.get_mut(position).map(|sent| (&mut sent.call, sent.ticket))
    }

    /// The calls that it has.
    pub(crate) fn calls_mut(&mut self) -> impl Iterator<Item = &mut Call> {
        self.in_flight.iter_mut().map(|sent| &mut sent.call)
    }

    /// Which of its calls it has begun last: that runs, unless its answer is on its way.
    pub(crate) fn running(&mut self) -> Option<usize> {
        let wire = self.child.wire();
        self.in_flight.iter().rposition(|sent| wire.begun(sent.ticket, sent.call.count()) > 0)
    }

    /// Takes back a half of the tasks that it has not begun of its last call, and the only one, too.
    pub(crate) fn take_back_half(&mut self, id: u64) -> Option<Call> {
        let last = self.in_flight.back_mut()?;
        let (ticket, count) = (last.ticket, last.call.count());
        let end = self.child.wire().shorten(ticket, count, &|left| left / 2);
        self.cut_off(self.in_flight.len() - 1, end, id)
    }

    /// Takes back those of these tasks that it has not begun.
    pub(crate) fn take_back_all(
        &mut self,
        which: Which<'_>,
        mut number: impl FnMut() -> u64,
    ) -> Vec<Call> {
        let mut taken = Vec::new();
        for position in (0..self.in_flight.len()).rev() {
            let Sent { call, ticket } = &mut self.in_flight[position];
            if !which.has(call) {
                continue;
            }
            if self.child.wire().revoke(*ticket, call.count()) {
                taken.extend(self.forget_call(position));
                continue;
            }
            let end = self.child.wire().shorten(*ticket, call.count(), &|_| 0);
            taken.extend(self.cut_off(position, end, number()));
        }
        taken
    }

    /// Takes the tasks from `end` on out of the call at this position.
    fn cut_off(&mut self, position: usize, end: u32, id: u64) -> Option<Call> {
        let call = &mut self.in_flight[position].call;
        let before = call.bytes();
        let tail = call.split_off(end, id);
        // What is left is subtracted once it goes; what was taken never would be.
        self.bytes = (self.bytes + call.bytes()).saturating_sub(before);
        self.drop_if_answered(position);
        tail
    }

    /// It has answered some tasks of a call; how many of them that it was in time for.
    pub(crate) fn answered(&mut self, reply: Reply, times: &mut Times) -> Result<u64, Unasked> {
        let (count, nanos) = (reply.count, reply.nanos);
        let position = self.position(reply.id)?;
        self.trace_begin(position);
        let call = &mut self.in_flight[position].call;
        call.answer(reply)?;
        times.ran(count, nanos);
        times.waited.note(call.waited(Duration::from_nanos(nanos)), count);
        Ok(self.note_answers(position, count.into()))
    }

    /// It has answered one task of a call over the socket; as [`Member::answered`].
    pub(crate) fn answered_one(
        &mut self,
        id: u64,
        index: u32,
        payload: Parcel,
        times: &mut Times,
    ) -> Result<u64, Unasked> {
        let position = self.position(id)?;
        self.trace_begin(position);
        let call = &mut self.in_flight[position].call;
        call.answer_one(index, payload)?;
        // What is long comes alone, and without a time.
        times.ran(1, 0);
        times.waited.note(call.waited(Duration::ZERO), 1);
        Ok(self.note_answers(position, 1))
    }

    /// It has begun that call; since when is known to who has an eye on it.
    pub(super) fn trace_begin(&mut self, position: usize) {
        let Some(Sent { call, ticket }) = self.in_flight.get_mut(position) else { return };
        if call.is_traced() {
            call.begun(self.child.wire().began(*ticket));
        }
    }

    /// The tasks of that call, if it has it, or had it a while ago.
    pub(crate) fn tasks_of(&self, call: u64) -> Option<Tasks> {
        let sent = self.in_flight.iter().find(|sent| sent.call.id == call);
        let recent = || self.recent.iter().rev().find(|(id, _)| *id == call);
        sent.map(|sent| sent.call.whole()).or_else(|| recent().map(|(_, tasks)| *tasks))
    }

    /// Looks which calls it has begun, for those who are to be told. Whether there may be more.
    pub(crate) fn note_begun(&mut self) -> bool {
        for position in 0..self.in_flight.len() {
            let Sent { call, ticket } = &self.in_flight[position];
            if !call.is_to_begin() {
                continue;
            }
            if self.child.wire().begun(*ticket, call.count()) == 0 {
                return true;
            }
            self.trace_begin(position);
        }
        false
    }

    /// Adds what it does and did to how its pool does.
    pub(crate) fn count(&mut self, stats: &mut Stats) {
        let workers = &mut stats.workers;
        match self.standing {
            Standing::Starting => workers.starting += 1,
            Standing::Serving | Standing::Outgrown => workers.up += 1,
            Standing::Retiring | Standing::Leaving | Standing::Severed => workers.ending += 1,
        }
        stats.cancelled += self.cancelled;
        stats.timed_out += self.timed_out;
        for Sent { call, ticket } in &self.in_flight {
            let (begun, left) = (self.child.wire().begun(*ticket, call.count()), call.left());
            let running = (begun.saturating_sub(call.answered()) as usize).min(left);
            stats.running += running as u64;
            stats.queued += (left - running) as u64;
        }
    }

    pub(super) fn note_answers(&mut self, position: usize, count: u64) -> u64 {
        let verdict = self.in_flight[position].call.verdict();
        let (counter, in_time) = match verdict {
            None => (&mut self.done, count),
            Some(Verdict::TimedOut) => (&mut self.timed_out, 0),
            Some(Verdict::Cancelled) => (&mut self.cancelled, 0),
        };
        *counter += count;
        self.drop_if_answered(position);
        in_time
    }

    pub(super) fn position(&self, id: u64) -> Result<usize, Unasked> {
        self.in_flight.iter().position(|sent| sent.call.id == id).ok_or(Unasked)
    }

    pub(super) fn drop_if_answered(&mut self, position: usize) {
        if self.in_flight[position].call.left() == 0 {
            self.note_gone(position);
            // Where it lies: to move it out takes as long as all else that is done here.
            drop(self.in_flight.drain(position..=position));
        }
    }

    pub(super) fn forget_call(&mut self, position: usize) -> Option<Call> {
        self.note_gone(position);
        Some(self.in_flight.remove(position)?.call)
    }

    /// The call at this position is about to go.
    fn note_gone(&mut self, position: usize) {
        let Some(Sent { call, .. }) = self.in_flight.get(position) else { return };
        if call.is_observed() {
            self.recent.push_back((call.id, call.whole()));
            if self.recent.len() > Self::RECENT {
                self.recent.pop_front();
            }
        }
        self.bytes = self.bytes.saturating_sub(call.bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use epilogue_process::Limits;
    use epilogue_process::entry::{Entry, Request};
    use epilogue_process::segment::Stock;

    use crate::call::{Call, NO_STATE, Which, head};
    use crate::floor::{floor_with, send};
    use crate::mailbox::Mailbox;
    use crate::worker::serve;

    #[test]
    fn what_is_taken_back_of_a_call_that_runs_does_not_count_as_ahead_any_more() {
        let mut floor = floor_with(serve);
        let park = |_: u32| -> u32 {
            loop {
                thread::park();
            }
        };
        let mut request = Request::new(head(Entry::plain(park).unwrap(), NO_STATE));
        for item in 0..9u32 {
            request.push(&item, &Limits::default(), &Stock::new(Stock::POOL)).unwrap();
        }
        let call = Call::new(1, 1, NO_STATE, request, Arc::new(Mailbox::default()), 0);
        send(&floor.states, &floor.bell, &mut floor.members[0], call);
        while !floor.is_running(1) {
            floor.members[0].child.flush();
            thread::yield_now();
        }
        assert_eq!(floor.cancel(Which::Job(1)), 8);
        let member = &floor.members[0];
        assert_eq!((member.load(), member.bytes), (1, member.in_flight[0].call.bytes()));
    }
}
