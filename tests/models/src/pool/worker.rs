//! A worker that is a thread, and what lies between it and its pool.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::bells::Bell;
use crate::ring::Listener;
use crate::sync::Mutex;
use crate::taken_out::{Break, is_broken};

/// What the ring is to a pool; that it loses no bell is shown of the ring itself.
#[derive(Default)]
struct Ring {
    answers: usize,
    written: usize,
    read: usize,
    is_dead: bool,
    /// Who is to be told, and from the how manieth answer on.
    bell: Option<(Listener, usize)>,
}

/// A worker, as itself sees it.
pub(crate) struct Far {
    ring: Arc<Mutex<Ring>>,
    doorbell: Bell,
    socket: Bell,
}

impl Far {
    pub(crate) fn answer(&self) {
        let mut ring = self.ring.lock().unwrap();
        ring.answers += 1;
        ring.written += 1;
        let written = ring.written;
        let due = ring.bell.take_if(|(_, after)| written >= *after);
        drop(ring);
        self.tell(due);
    }

    pub(crate) fn idle(&self) {
        let due = self.ring.lock().unwrap().bell.take();
        self.tell(due);
    }

    /// Its pidfd, which the supervisor watches as well, is its socket here.
    pub(crate) fn die(&self) {
        self.ring.lock().unwrap().is_dead = true;
        self.socket.ring();
    }

    fn tell(&self, due: Option<(Listener, usize)>) {
        match due {
            Some((Listener::Doorbell, _)) => self.doorbell.ring(),
            Some((Listener::Socket, _)) => self.socket.ring(),
            None => {}
        }
    }
}

/// A worker, as its pool sees it.
pub(crate) struct Child {
    wire: Wire,
    doorbell: Bell,
    socket: Bell,
}

impl Child {
    /// A worker, and what it is to the pool.
    pub(crate) fn start() -> (Self, Far) {
        let (ring, doorbell, socket) = (Arc::default(), Bell::new(), Bell::new());
        let wire = Wire(Arc::clone(&ring));
        let child = Self { wire, doorbell: doorbell.clone(), socket: socket.clone() };
        (child, Far { ring, doorbell, socket })
    }

    pub(crate) fn wire(&mut self) -> &mut Wire {
        &mut self.wire
    }

    pub(crate) fn doorbell(&self) -> Option<&Arc<OwnedFd>> {
        Some(&self.doorbell.0)
    }

    pub(crate) fn socket(&self) -> &Bell {
        &self.socket
    }

    /// None here writes what a worker does not.
    pub(crate) fn is_trusted(&self) -> bool {
        true
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.wire.0.lock().unwrap().is_dead
    }

    /// How many answers there are that were not taken; they are now.
    pub(crate) fn answers(&mut self) -> usize {
        let mut ring = self.wire.0.lock().unwrap();
        let count = std::mem::take(&mut ring.answers);
        ring.read += count;
        count
    }
}

pub(crate) struct Wire(Arc<Mutex<Ring>>);

impl Wire {
    pub(crate) fn listen(&mut self, listener: Listener, records: u32) {
        let mut ring = self.0.lock().unwrap();
        let bell = (listener, ring.read + records as usize);
        ring.bell = (!is_broken(Break::Listen)).then_some(bell);
    }

    pub(crate) fn stop_listening(&mut self) {
        self.0.lock().unwrap().bell = None;
    }

    pub(crate) fn is_listening(&mut self) -> bool {
        self.0.lock().unwrap().bell.is_some()
    }

    pub(crate) fn has_reply(&mut self) -> bool {
        self.0.lock().unwrap().answers > 0 && !is_broken(Break::Look)
    }
}
