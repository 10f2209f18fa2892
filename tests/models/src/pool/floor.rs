//! A floor as small as can be: who reads, who waits, and workers that are threads.
//!
//! Who reads and who is told is decided as in `pool/src/floor.rs` and `pool/src/floor/work.rs`, as far as
//! there is anything here to decide on. It is a copy, and shorter: here nothing is queued, started, limited
//! in time or closed, and answers of a worker that is dead are taken as it is buried.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use crate::bells::Bell;
use crate::error::TaskError;
use crate::mailbox::{Arrival, Mailbox, Outcomes};
use crate::sync::Mutex;
use crate::wakes::Wakes;

/// What is taken out, on purpose: a model that still passes shows nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Break {
    /// A reader that leaves tells nobody.
    HandOver,
    /// A reader that sleeps is not told of what it did not take itself, nor that others have come.
    News,
    /// Nobody looks once more before it sleeps.
    Look,
    /// Workers tell nobody.
    Listen,
    /// The supervisor is not told that nobody else reads.
    Leave,
    /// Who reads or follows calls those who are due.
    Quiet,
}

impl Break {
    pub(crate) const ALL: [Self; 6] =
        [Self::HandOver, Self::News, Self::Look, Self::Listen, Self::Leave, Self::Quiet];
}

static BROKEN: OnceLock<Break> = OnceLock::new();

pub(crate) fn take_out(what: Break) {
    let _ = BROKEN.set(what);
}

pub(crate) fn is_broken(what: Break) -> bool {
    BROKEN.get() == Some(&what)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    None,
    Awake,
    Asleep { is_eager: bool },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Listener {
    Socket,
    Doorbell,
}

/// Looks once: a model has no clock.
#[derive(Default)]
pub(crate) struct Patience;

impl Patience {
    pub(crate) fn look<T>(&mut self, mut found: impl FnMut() -> Option<T>) -> Option<T> {
        found()
    }
}

/// What the ring is to a pool; that it loses no bell is shown of the ring itself.
#[derive(Default)]
struct Wire {
    answers: usize,
    written: usize,
    read: usize,
    is_dead: bool,
    /// Who is to be told, and from the how manieth answer on.
    bell: Option<(Listener, usize)>,
}

/// A worker, as itself sees it.
#[derive(Clone)]
pub(crate) struct Far {
    wire: Arc<Mutex<Wire>>,
    doorbell: Bell,
    socket: Bell,
}

impl Far {
    pub(crate) fn answer(&self) {
        let mut wire = self.wire.lock().unwrap();
        wire.answers += 1;
        wire.written += 1;
        let written = wire.written;
        let due = wire.bell.take_if(|(_, after)| written >= *after);
        drop(wire);
        self.tell(due);
    }

    pub(crate) fn idle(&self) {
        let due = self.wire.lock().unwrap().bell.take();
        self.tell(due);
    }

    /// Its pidfd, which the supervisor watches as well, is its socket here.
    pub(crate) fn die(&self) {
        self.wire.lock().unwrap().is_dead = true;
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
pub(crate) struct Member {
    pub(crate) child: Child,
    in_flight: VecDeque<(Arc<Mailbox>, usize)>,
    listener: Option<Listener>,
}

pub(crate) struct Child(Far);

impl Child {
    pub(crate) fn doorbell(&self) -> Option<&Arc<OwnedFd>> {
        Some(&self.0.doorbell.0)
    }
}

impl Member {
    pub(crate) fn has_told(&mut self) {
        if self.child.0.wire.lock().unwrap().bell.is_none() {
            self.listener = None;
        }
    }

    fn listen(&mut self, listener: Option<Listener>, is_eager: bool) {
        let has_nothing_to_tell = listener.is_some() && self.in_flight.is_empty();
        if self.listener == listener || has_nothing_to_tell {
            return;
        }
        self.listener = listener;
        let several = self.in_flight.len().div_ceil(2).max(1);
        let mut wire = self.child.0.wire.lock().unwrap();
        let after = wire.read + if is_eager { 1 } else { several };
        wire.bell =
            listener.map(|listener| (listener, after)).filter(|_| !is_broken(Break::Listen));
    }

    fn take_answers(&mut self) -> bool {
        let mut wire = self.child.0.wire.lock().unwrap();
        let count = std::mem::take(&mut wire.answers);
        wire.read += count;
        drop(wire);
        self.resolve(count);
        count > 0
    }

    /// What one that is dead has not answered is lost.
    fn bury(&mut self) {
        if self.child.0.wire.lock().unwrap().is_dead {
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

pub(crate) struct Floor {
    pub(crate) reader: Reader,
    pub(crate) followers: Vec<Arc<Mailbox>>,
    pub(crate) members: Vec<Member>,
    pub(crate) patience: Patience,
    pub(crate) news: Bell,
    pub(crate) wakes: Arc<Wakes>,
    pub(crate) is_over: bool,
    is_tuned: bool,
}

impl Floor {
    pub(crate) fn new(wakes: &Arc<Wakes>, news: &Bell) -> Self {
        Self {
            reader: Reader::None,
            followers: Vec::new(),
            members: Vec::new(),
            patience: Patience,
            news: if is_broken(Break::News) { Bell::new() } else { news.clone() },
            wakes: Arc::clone(wakes),
            is_over: false,
            is_tuned: false,
        }
    }

    /// Whoever looks here looks once: it is the same as to sleep at once.
    pub(crate) fn answers_soon(&self, _mailbox: &Mailbox) -> bool {
        true
    }

    /// A worker that is to answer these, in this order.
    pub(crate) fn hire(&mut self, tasks: &[(Arc<Mailbox>, usize)]) -> Far {
        let far = Far { wire: Arc::default(), doorbell: Bell::new(), socket: Bell::new() };
        let (child, in_flight) = (Child(far.clone()), tasks.iter().cloned().collect());
        self.members.push(Member { child, in_flight, listener: None });
        far
    }

    pub(crate) fn sockets(&self) -> Vec<Bell> {
        self.members.iter().map(|member| member.child.0.socket.clone()).collect()
    }

    pub(crate) fn tune(&mut self) {
        let (listener, is_eager) = match self.reader {
            Reader::Awake => (None, true),
            Reader::Asleep { is_eager } => (Some(Listener::Doorbell), is_eager),
            Reader::None if self.needs_supervisor() => {
                (Some(Listener::Socket), self.wakes.are_awaited())
            }
            Reader::None => (None, true),
        };
        if listener.is_none() && !self.is_tuned {
            return;
        }
        self.is_tuned = listener.is_some();
        self.members.iter_mut().for_each(|member| member.listen(listener, is_eager));
    }

    pub(crate) fn collect(&mut self) {
        let has_taken =
            self.members.iter_mut().fold(false, |taken, member| member.take_answers() | taken);
        if has_taken {
            self.dispatch();
            self.tell_reader();
        }
    }

    pub(crate) fn bury(&mut self) {
        self.members.iter_mut().for_each(Member::bury);
    }

    pub(crate) fn dispatch(&mut self) {
        self.tune();
    }

    pub(crate) fn needs_supervisor(&self) -> bool {
        self.reader == Reader::None && self.wakes.are_awaited()
    }

    pub(crate) fn listen_for_each(&mut self) {
        if self.reader == Reader::None {
            self.members.iter_mut().for_each(|member| member.listener = None);
        }
    }

    pub(crate) fn hand_over(&mut self) {
        if let (Reader::None, Some(follower), false) =
            (self.reader, self.followers.first(), is_broken(Break::HandOver))
        {
            follower.promote();
        }
    }

    pub(crate) fn has_answers(&mut self) -> bool {
        let has_some = |member: &Member| member.child.0.wire.lock().unwrap().answers > 0;
        self.members.iter().any(has_some) && !is_broken(Break::Look)
    }

    pub(crate) fn tell_reader(&self) {
        if let Reader::Asleep { .. } = self.reader {
            self.news.ring();
        }
    }

    /// Nothing stalls here.
    pub(crate) fn keep_vigil(&mut self, _: Instant) -> (Option<Instant>, bool) {
        (None, false)
    }
}
