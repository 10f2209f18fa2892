//! How a pool ends: what it is told to, and when it is too late.

use std::time::{Duration, Instant};

use epilogue_process::child::Work;

use super::{Floor, Phase};
use crate::call::Which;
use crate::ends::{Deadline, Order};

impl Floor {
    pub(crate) fn is_over(&self) -> bool {
        match self.phase {
            Phase::Starting(_) | Phase::Running => false,
            Phase::Draining { .. } => self.members.is_empty() && self.queue.is_empty(),
            Phase::Stopping => self.members.is_empty(),
        }
    }

    /// Ends as it is told to, or further if it was told so before.
    pub(crate) fn end(&mut self, order: Order) {
        match order {
            Order::Finish { deadline } => self.close(deadline),
            Order::FinishBegun { deadline } => {
                self.cancel_unbegun();
                self.close(deadline);
            }
            Order::Stop { limit, work } => self.stop(limit, work),
        }
    }

    /// Finishes what there is, then ends; stops if that takes longer than the deadline.
    fn close(&mut self, deadline: Option<Deadline>) {
        match &mut self.phase {
            Phase::Starting(_) | Phase::Running => {
                self.phase = Phase::Draining { deadline };
                // Who failed before has cost nobody who serves anything, and is not held against them now.
                self.hiring.succeeded();
            }
            Phase::Draining { deadline: earlier } => {
                let both = earlier.zip(deadline).map(|(one, other)| one.or_sooner(other));
                *earlier = both.or(*earlier).or(deadline);
            }
            Phase::Stopping => {}
        }
        self.dispatch();
    }

    /// Ends within the grace period, or within `limit` if that is shorter.
    pub(super) fn stop(&mut self, limit: Option<Duration>, work: Work) {
        self.phase = Phase::Stopping;
        self.cancel_unbegun();
        for member in &mut self.members {
            member.stop(limit, work);
        }
        self.tune();
        self.tell_reader();
    }

    fn cancel_unbegun(&mut self) {
        let mut unbegun: Vec<_> = self.queue.drain(..).collect();
        unbegun.extend(self.take_back_all(Which::All));
        unbegun.into_iter().for_each(|call| self.drop_call(call));
        self.tell_reader();
    }

    /// Stops if the deadline is over. What workers have answered was collected before.
    pub(crate) fn stop_if_late(&mut self, now: Instant) {
        if let Phase::Draining { deadline: Some(Deadline { at, limit }) } = self.phase
            && at <= now
        {
            self.stop(limit, Work::Finish);
        }
    }

    /// When it is too late to finish.
    pub(crate) fn ending_due(&self) -> Option<Instant> {
        match self.phase {
            Phase::Draining { deadline } => deadline.map(|deadline| deadline.at),
            Phase::Starting(_) | Phase::Running | Phase::Stopping => None,
        }
    }
}
