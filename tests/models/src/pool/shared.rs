//! What a pool's callers and its supervisor share, and the supervisor.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use crate::bells::{self, Bell};
use crate::floor::{Break, Floor, is_broken};
use crate::sync::{Mutex, MutexGuard};
use crate::wakes::Wakes;

pub(crate) struct Shared {
    floor: Mutex<Floor>,
    pub(crate) wakes: Arc<Wakes>,
    pub(crate) news: Bell,
    pub(crate) bell: Bell,
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
        let (wakes, news) = (Arc::new(Wakes::default()), Bell::new());
        Self { floor: Mutex::new(Floor::new(&wakes, &news)), wakes, news, bell: Bell::new() }
    }

    pub(crate) fn floor(&self) -> Held<'_> {
        Held { floor: self.floor.lock().unwrap(), _after: Some(After(self)) }
    }

    pub(crate) fn quiet_floor(&self) -> Held<'_> {
        let after = is_broken(Break::Quiet).then(|| After(self));
        Held { floor: self.floor.lock().unwrap(), _after: after }
    }

    pub(crate) fn leave(&self, floor: &mut Floor) {
        floor.tune();
        if floor.needs_supervisor() && floor.has_answers() && !is_broken(Break::Leave) {
            self.bell.ring();
        }
    }

    pub(crate) fn end(&self) {
        self.floor().is_over = true;
        self.bell.ring();
    }

    /// The supervisor, as far as it takes answers and buries workers.
    pub(crate) fn supervise(&self) {
        let sockets = self.floor().sockets();
        let watched: Vec<&Bell> = sockets.iter().chain([&self.bell]).collect();
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
            bells::wait(&watched);
            self.floor().members.iter_mut().for_each(|member| member.has_told());
        }
    }
}
