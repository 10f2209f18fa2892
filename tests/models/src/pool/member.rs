//! A worker, and the tasks that it was sent.

#[path = "../../../../pool/src/member/listening.rs"]
mod listening;

use std::collections::VecDeque;
use std::sync::Arc;

use crate::error::TaskError;
use crate::mailbox::{Arrival, Mailbox, Outcomes};
use crate::ring::Listener;
use crate::worker::Child;

pub(crate) struct Member {
    pub(crate) child: Child,
    in_flight: VecDeque<(Arc<Mailbox>, usize)>,
    listener: Option<Listener>,
}

impl Member {
    pub(crate) fn new(child: Child, tasks: &[(Arc<Mailbox>, usize)]) -> Self {
        Self { child, in_flight: tasks.iter().cloned().collect(), listener: None }
    }

    /// As it is where nothing is known of how long tasks take.
    fn reserve(&self) -> usize {
        self.in_flight.len() / 2
    }

    pub(crate) fn take_answers(&mut self) -> bool {
        let count = self.child.answers();
        self.resolve(count);
        count > 0
    }

    /// What one that is dead has not answered is lost.
    pub(crate) fn bury(&mut self) {
        if self.child.is_dead() {
            self.take_answers();
            self.resolve(self.in_flight.len());
        }
    }

    fn resolve(&mut self, count: usize) {
        for (mailbox, first) in self.in_flight.drain(..count) {
            mailbox
                .put(Arrival { first, outcomes: Outcomes::Failed { count: 1, error: TaskError } });
        }
    }
}
