//! How much a worker is sent ahead of what it does.

use std::time::Duration;

use epilogue_process::wire::Wire;

use super::{Member, Sent};
use crate::call::Call;

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
    /// How many bytes of calls it is sent, if there is more than one.
    const BYTES_AHEAD: usize = 1 << 20;

    /// How long it will be busy with what it has. None if that is not known.
    pub(crate) fn backlog(&self) -> Option<Duration> {
        // Calls of one job mostly, so the last tells for all.
        match self.in_flight.back() {
            None => Some(Duration::ZERO),
            Some(Sent { call, .. }) => call.mailbox().cost().of(call.left() * self.in_flight.len()),
        }
    }

    /// How many tasks it may do besides those that it has. None if that has no end.
    pub(crate) fn tasks_left(&self) -> Option<u64> {
        // Without an end there is nothing to count.
        self.recycling.left_after(0)?;
        self.recycling.left_after(self.done + self.tasks() as u64)
    }

    /// Takes the tasks out of a call that are more than it may do.
    pub(crate) fn cut(&self, call: &mut Call, number: impl FnOnce() -> u64) -> Option<Call> {
        let left = u32::try_from(self.tasks_left()?).unwrap_or(u32::MAX);
        call.split_off(call.answered().saturating_add(left), number())
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

    /// How many of its calls it still has when others are to be sent: a half, or what it does in the
    /// time until somebody has a CPU for that.
    pub(super) fn reserve(&self) -> usize {
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
}
