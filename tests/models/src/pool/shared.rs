//! What a pool's callers and its supervisor share, and the supervisor.

use std::ops::{Deref, DerefMut};
use std::os::fd::AsFd;
use std::sync::Arc;

use crate::bells::Bell;
use crate::bells::bell::silence;
use crate::bells::child::wait_for;
use crate::bells::poll::{PollFd, PollFlags};
use crate::floor::Floor;
use crate::sync::{Mutex, MutexGuard};
use crate::taken_out::{Break, is_broken};
use crate::wakes::Wakes;

pub(crate) struct Shared {
    floor: Mutex<Floor>,
    pub(crate) wakes: Arc<Wakes>,
    pub(crate) news: Bell,
    /// Wakes the supervisor.
    pub(crate) bell: Bell,
    /// The same, as the supervisor hears it.
    rung: Bell,
}

/// The lock; who is due is woken when it has been given back.
pub(crate) struct Held<'a> {
    floor: MutexGuard<'a, Floor>,
    _after: Option<After<'a>>,
}

struct After<'a>(&'a Shared);

impl Drop for After<'_> {
    fn drop(&mut self) {
        self.0.wake();
    }
}

impl Deref for Held<'_> {
    type Target = Floor;

    fn deref(&self) -> &Floor {
        &self.floor
    }
}

impl DerefMut for Held<'_> {
    fn deref_mut(&mut self) -> &mut Floor {
        &mut self.floor
    }
}

impl Shared {
    pub(crate) fn new() -> Self {
        let (wakes, news, rung) = (Arc::new(Wakes::default()), Bell::new(), Bell::new());
        let bell = if is_broken(Break::Leave) { Bell::new() } else { rung.clone() };
        Self { floor: Mutex::new(Floor::new(&wakes, &news)), wakes, news, bell, rung }
    }

    pub(crate) fn floor(&self) -> Held<'_> {
        Held { floor: self.floor.lock().unwrap(), _after: Some(After(self)) }
    }

    pub(crate) fn quiet_floor(&self) -> Held<'_> {
        let after = is_broken(Break::Quiet).then(|| After(self));
        Held { floor: self.floor.lock().unwrap(), _after: after }
    }

    pub(crate) fn end(&self) {
        self.floor().is_over = true;
        self.rung.ring();
    }

    /// The supervisor, as far as it takes answers and buries workers.
    pub(crate) fn supervise(&self) {
        let sockets = self.floor().sockets();
        let watched: Vec<&Bell> = sockets.iter().chain([&self.rung]).collect();
        loop {
            {
                let mut floor = self.floor();
                floor.collect();
                floor.bury();
                floor.dispatch();
                floor.tell_reader();
                if floor.is_over {
                    return;
                }
                if floor.needs_supervisor() && floor.has_answers() {
                    continue;
                }
            }
            wait(&watched);
            self.floor().members.iter_mut().for_each(|member| member.has_told());
        }
    }
}

/// Sleeps until one of them rings, and silences those that did.
fn wait(bells: &[&Bell]) {
    let mut fds: Vec<_> =
        bells.iter().map(|bell| PollFd::new(bell.as_fd(), PollFlags::POLLIN)).collect();
    wait_for(&mut fds, None);
    for fd in &fds {
        silence(fd.as_fd());
    }
}
