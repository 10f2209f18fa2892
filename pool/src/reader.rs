//! Whoever waits reads: a caller that needs an outcome takes it from the ring itself.
//!
//! To be woken by the supervisor would take a second thread, and twice the time. One caller reads at
//! a time, for all; those who wait meanwhile get their outcomes from it, and as it leaves one of
//! them takes over. What only the supervisor may do, which is to start and to bury workers, it still
//! does, and tells the reader.

use std::sync::Arc;
use std::time::Instant;

use epilogue_process::bell::silence;
use epilogue_process::child::wait_for;
use nix::poll::{PollFd, PollFlags};
use std::os::fd::{AsFd, OwnedFd};

use crate::floor::{Floor, Reader};
use crate::mailbox::Mailbox;
use crate::shared::Shared;
use crate::terms::earlier;

/// How soon a reader has to know of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// It waits for each.
    Each,
    /// It waits for many, and is in time if it hears of several together; best of so many.
    Many(usize),
}

impl Need {
    fn is_met_by(self, arrivals: usize) -> bool {
        match self {
            Self::Each => arrivals > 0,
            Self::Many(several) => arrivals >= several.max(1),
        }
    }
}

impl Shared {
    /// Waits until something has arrived in this mailbox, of which something is on its way, or
    /// until the deadline.
    pub(crate) fn wait(&self, mailbox: &Arc<Mailbox>, need: Need, deadline: Option<Instant>) {
        while mailbox.is_empty() && !has_passed(deadline) {
            self.read_or_follow(mailbox, need, deadline);
            // Not by one who reads or follows: what it calls may wait for a task in turn, as a follower
            // of itself.
            self.wake();
        }
    }

    /// Waits until something has arrived, or somebody is to be woken, or until the deadline.
    fn read_or_follow(&self, mailbox: &Arc<Mailbox>, need: Need, deadline: Option<Instant>) {
        let mut floor = self.quiet_floor();
        loop {
            floor.collect();
            if !mailbox.is_empty() || self.wakes.are_due_here() || has_passed(deadline) {
                // It may just have been told to read: then another one is.
                return floor.hand_over();
            }
            // Under the lock in which it has stopped to follow: whoever is told to read does, or says so.
            if floor.reader == Reader::None {
                floor.reader = Reader::Awake;
                floor.tune();
                drop(floor);
                return self.read(mailbox, need, deadline);
            }
            floor.followers.push(Arc::clone(mailbox));
            self.wake_for_each(&floor);
            drop(floor);
            self.leave_due();
            mailbox.sleep(deadline);
            floor = self.quiet_floor();
            floor.followers.retain(|other| !Arc::ptr_eq(other, mailbox));
        }
    }

    /// Wakes those whose outcome is there, on this thread or the supervisor's.
    pub(crate) fn wake(&self) {
        if !self.wakes.wake() {
            self.bell.ring();
        }
    }

    /// Leaves those to the supervisor whose outcome is there, and whom this thread, which is about to sleep,
    /// may not wake.
    fn leave_due(&self) {
        if self.wakes.are_due() {
            self.bell.ring();
        }
    }

    /// Sees to it that somebody reads, now that one more waits without a thread.
    pub(crate) fn attend(&self) {
        let mut floor = self.floor();
        self.wake_for_each(&floor);
        floor.listen_for_each();
        self.leave(&mut floor);
    }

    /// Leaves the floor to whoever reads from here on; that is the supervisor, if nobody waits and
    /// somebody has to.
    pub(crate) fn leave(&self, floor: &mut Floor) {
        floor.tune();
        if floor.needs_supervisor() && (floor.has_answers() || floor.leave_vigil()) {
            self.bell.ring();
        }
    }

    /// A reader that needs to hear of many only hears of each from here on, for others wait too.
    fn wake_for_each(&self, floor: &Floor) {
        if floor.reader == (Reader::Asleep { is_eager: false }) {
            floor.news.ring();
        }
    }

    /// Reads until something has arrived in this mailbox, or somebody is to be woken, or until the
    /// deadline.
    fn read(&self, mailbox: &Mailbox, need: Need, deadline: Option<Instant>) {
        let mut patience = std::mem::take(&mut self.quiet_floor().patience);
        while mailbox.is_empty() && !self.wakes.are_due_here() && !has_passed(deadline) {
            let take = || {
                self.quiet_floor().collect();
                (need.is_met_by(mailbox.len()) || self.wakes.are_due_here()).then_some(())
            };
            let is_soon = self.quiet_floor().answers_soon(mailbox);
            let found = if is_soon { patience.look(take) } else { take() };
            if found.is_none() && mailbox.is_empty() {
                self.sleep(mailbox, need, deadline);
                // Whoever was woken has waited long enough, even if it needs more.
                self.quiet_floor().collect();
            }
        }
        let mut floor = self.quiet_floor();
        floor.patience = patience;
        floor.reader = Reader::None;
        floor.hand_over();
        self.leave(&mut floor);
    }

    /// Sleeps until there is something to read, or the supervisor has news.
    fn sleep(&self, mailbox: &Mailbox, need: Need, deadline: Option<Instant>) {
        let mut floor = self.quiet_floor();
        let others = !floor.followers.is_empty() || floor.wakes.are_awaited();
        let is_eager = need == Need::Each || others;
        floor.reader = Reader::Asleep { is_eager };
        floor.dispatch();
        // Once more, now that it would be told.
        if !floor.has_answers() && mailbox.is_empty() && !self.wakes.are_due_here() {
            let doorbells: Vec<Arc<OwnedFd>> = floor
                .members
                .iter()
                .filter_map(|member| member.child.doorbell().cloned())
                .collect();
            let (look_at, is_due) = floor.keep_vigil(Instant::now());
            drop(floor);
            if is_due {
                self.bell.ring();
            }
            self.leave_due();
            self.listen(&doorbells, earlier(deadline, look_at));
            floor = self.quiet_floor();
            floor.members.iter_mut().for_each(|member| member.has_told());
        }
        floor.reader = Reader::Awake;
        floor.tune();
    }

    fn listen(&self, doorbells: &[Arc<OwnedFd>], deadline: Option<Instant>) {
        let bells = doorbells.iter().map(AsFd::as_fd).chain([self.news.as_fd()]);
        let mut fds: Vec<_> = bells.map(|bell| PollFd::new(bell, PollFlags::POLLIN)).collect();
        let is_known = wait_for(&mut fds, deadline);
        for fd in fds.iter().filter(|fd| !is_known || fd.any().unwrap_or(true)) {
            // Not a read: a worker can have that wait, and would keep all who wait for outcomes.
            silence(fd.as_fd());
        }
    }
}

fn has_passed(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|deadline| deadline <= Instant::now())
}
