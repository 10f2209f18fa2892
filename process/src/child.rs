//! A child as its parent sees it: a pidfd, a wire, and a place on the ladder.
//!
//! Nothing here blocks except what says so. Whoever owns a child waits for [`Child::interest`]
//! with others or alone, calls [`Child::reap`] if the pidfd became ready, and then takes events
//! until there are none.
//!
//! # Invariants
//!
//! 1. Signals go through the pidfd, so no other process can be hit.
//! 2. All that the child sent whole is delivered before its end is told.
//! 3. When a `Child` is gone, so is the process: dropping one that runs kills and reaps it. Not so
//!    in a fork of the parent, whose copy of a `Child` is nobody's.

mod ending;
mod events;
mod starting;
#[cfg(test)]
mod tests;
mod ties;

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags};

use crate::boot::Refusal;
use crate::end::Goodbye;
use crate::entry::MainEntry;
use crate::error::StartError;
use crate::launch::{Launch, Launched, Nearby};
use crate::link::Link;
use crate::local::LocalWire;
use crate::memory;
use crate::parcel::Parcel;
use crate::ring::{Near, Reply};
use crate::sandbox::SandboxLevel;
use crate::server::Born;
use crate::status::ExitStatus;
use crate::stop::{Ladder, Rung};
use crate::tree::TreeEnd;
use crate::usage::Usage;
use crate::wire::{Wire, WireError};

pub use ending::Work;
pub(crate) use ties::{Fall, Ties};

pub use crate::setup::Limited;
pub(crate) use crate::spec::{Grandchildren, Group};
pub use crate::spec::{Spec, Stream};
pub use crate::sys::pid::{Original, own as this_process};
pub use crate::waiting::{timeout, wait_for};

/// What happened to a child.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// It is up.
    Hello,
    /// It could not prepare itself and is leaving.
    Refused(Refusal),
    /// It answered some items of a call: what [`crate::entry::answers`] decodes.
    Answers(Reply),
    /// It answered one item of a call: what [`crate::entry::answer`] decodes.
    Answer {
        /// The number of the call.
        id: u64,
        /// Which of its items it was.
        index: u32,
        /// The answer.
        payload: Parcel,
    },
    /// It has begun a call that came with descriptors, which are its alone from now on.
    Begun {
        /// The number of the call.
        id: u64,
    },
    /// It has taken more memory than [`Spec::bound_growth`] allows. It goes on.
    Grown,
    /// Its code has something to say.
    Note {
        /// The number of the call that it was about, or of the last one.
        id: u64,
        /// What it says, which may be anything.
        note: Vec<u8>,
    },
    /// It broke the protocol. It was killed; its end follows.
    Broken(WireError),
    /// It has ended and been reaped. Nothing follows.
    Ended(ExitStatus),
}

/// Whether it has said that it is up, or that it will not be, which it does once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    Awaited {
        by: Instant,
    },
    /// It has to be gone by then.
    Refused {
        by: Instant,
    },
    /// It was killed for it.
    Late,
    Up,
    /// It was killed, since it did not take its argument.
    Unread,
}

#[derive(Debug)]
enum Life {
    Running,
    /// It has ended, and something below it has not. That is looked at again then.
    Falling {
        again: Instant,
    },
    Reaped(ExitStatus),
    Told(ExitStatus),
}

/// What there is to wait for of a child, while others have it.
#[derive(Debug)]
pub struct Watch {
    ties: Arc<Ties>,
    wire: Option<PollFlags>,
    is_running: bool,
}

impl Watch {
    /// Its wire, while that is of interest.
    pub fn wire(&self) -> Option<PollFd<'_>> {
        self.wire.map(|flags| PollFd::new(self.ties.stream.as_fd(), flags))
    }

    /// Its pidfd, until it has ended.
    pub fn pidfd(&self) -> Option<PollFd<'_>> {
        self.is_running.then(|| PollFd::new(self.ties.pidfd.as_fd(), PollFlags::POLLIN))
    }

    /// The same, but for its wire.
    pub fn without_wire(self) -> Self {
        Self { wire: None, ..self }
    }
}

/// A process that this one started.
#[derive(Debug)]
pub struct Child {
    pid: libc::pid_t,
    ties: Arc<Ties>,
    wire: LocalWire,
    /// What it rings if it is told to; only those have one that get many calls.
    doorbell: Option<Arc<OwnedFd>>,
    /// Whether the answers were taken that it had not handed over as it ended.
    salvaged: bool,
    name: String,
    start_deadline: Duration,
    start: Start,
    ladder: Ladder,
    /// The rung that it ended on. Whatever is asked of it after that is asked in vain.
    ended_on: Option<Rung>,
    life: Life,
    wire_open: bool,
    /// Whether the last look at its wire ended with more to read.
    has_more: bool,
    broken: bool,
    /// How much of its sandbox is enforced, if it has one and is up.
    sandbox: Option<SandboxLevel>,
    /// How it broke the protocol, if it did.
    broke: Option<String>,
    goodbye: Option<Goodbye>,
    usage: Option<Usage>,
    /// An answer that came while the end of what was queued still waited to be written.
    early: Option<Event>,
    out_of_memory: bool,
    captured: [Option<File>; 2],
    tree_end: Option<TreeEnd>,
    owner: u32,
}

impl Child {
    /// Starts a child that will run `main`. It is not up before [`Event::Hello`].
    ///
    /// # Errors
    ///
    /// [`StartError`]; nothing was started.
    pub fn start(spec: &Spec, main: fn(Link)) -> Result<Self, StartError> {
        let main = MainEntry::new(main)?;
        memory::note();
        let (launch, Nearby { stream, second, ring, doorbell }) = Launch::prepare(spec)?;
        let mut wire = LocalWire::new(stream, Near::new(ring, spec.ring), spec.frame_limit());
        let first = starting::first_frame(spec, launch.token, main)?;
        // In the socket before there is a child, which then need not wait for it; but not before
        // somebody watches what the child will start.
        let is_early = spec.setup.grandchildren == Grandchildren::Kept;
        if is_early {
            wire.start(&first, doorbell.as_ref());
            // Should that fail, reading finds the same trouble, and tells of it.
            let _ = wire.flush();
        }
        let Launched { born, captured } = launch.start(spec)?;
        let mut child = Self::new(spec, born, wire, second);
        (child.doorbell, child.captured) = (doorbell, captured);
        if !is_early {
            // Before the first frame: until then it runs none of the user's code.
            child.ties.plant(spec.grace_period);
            child.wire.start(&first, child.doorbell.clone().as_ref());
            child.flush();
        }
        Ok(child)
    }

    /// A child that runs, and whose first frame may not have been sent; `second` is its connection, too.
    pub(crate) fn new(spec: &Spec, born: Born, wire: LocalWire, second: UnixStream) -> Self {
        Self {
            pid: born.pid,
            wire,
            ties: Arc::new(Ties::new(born.pid, born.pidfd, second)),
            doorbell: None,
            salvaged: false,
            name: spec.name.clone(),
            start_deadline: spec.start_deadline,
            start: Start::Awaited { by: Instant::now() + spec.start_deadline },
            ladder: Ladder::new(spec.grace_period),
            ended_on: None,
            life: Life::Running,
            wire_open: true,
            has_more: false,
            broken: false,
            sandbox: None,
            broke: None,
            goodbye: None,
            usage: None,
            early: None,
            out_of_memory: false,
            captured: [None, None],
            tree_end: None,
            owner: std::process::id(),
        }
    }

    /// Its process id. Once it has been reaped, the number may mean another process.
    pub fn id(&self) -> u32 {
        self.pid.unsigned_abs()
    }

    /// The name that it was started with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What its parent can send it.
    pub fn wire(&mut self) -> &mut LocalWire {
        &mut self.wire
    }

    /// What becomes readable once the child rings; see [`LocalWire::listen`].
    pub fn doorbell(&self) -> Option<&Arc<OwnedFd>> {
        self.doorbell.as_ref()
    }

    pub(crate) fn ties(&self) -> &Arc<Ties> {
        &self.ties
    }

    /// Whether nothing waits to be written to its socket.
    pub fn is_flushed(&self) -> bool {
        self.wire.is_flushed()
    }

    /// Whether it can be sent anything: false once it has closed its wire, even if it lives on, or has
    /// ended.
    pub fn is_connected(&self) -> bool {
        self.wire_open && !self.has_ended()
    }

    /// Whether it is known to have ended, be it that its tree has not, and it is not reaped yet.
    pub fn has_ended(&self) -> bool {
        !matches!(self.life, Life::Running)
    }

    /// Writes what is queued, as far as the connection takes it.
    pub fn flush(&mut self) {
        // One that has closed its end may still read what it is told.
        if self.wire.flush().is_err() {
            // Reading will find the same trouble, and tells of it: the wire is closed or not one.
            let step = self.ladder.kill();
            self.take(step);
        }
    }

    /// What to wait for: the wire, then the pidfd. None of either while it is of no interest.
    pub fn interest(&self) -> [Option<PollFd<'_>>; 2] {
        let wire = self.wire_interest().map(|flags| PollFd::new(self.wire.as_fd(), flags));
        let running = matches!(self.life, Life::Running);
        [wire, running.then(|| PollFd::new(self.ties.pidfd.as_fd(), PollFlags::POLLIN))]
    }

    /// What to wait for, while others have the child.
    pub fn watch(&self) -> Watch {
        let ties = Arc::clone(&self.ties);
        Watch { ties, wire: self.wire_interest(), is_running: matches!(self.life, Life::Running) }
    }

    /// Whether [`Child::event`] gave none because others are to have their turn, and not because there was
    /// nothing more to read: it may write faster than it is read.
    pub fn has_more(&self) -> bool {
        self.has_more
    }

    /// Whether something for it is on its way, and not refused by the kernel: that may stay so.
    pub fn is_sending(&self) -> bool {
        !self.wire.is_flushed() && self.wire.refused().is_none()
    }

    /// What to wait for on the wire, while it is open.
    pub(crate) fn wire_interest(&self) -> Option<PollFlags> {
        let mut flags = PollFlags::POLLIN;
        if self.is_sending() {
            flags |= PollFlags::POLLOUT;
        }
        self.wire_open.then_some(flags)
    }

    /// Blocks until something happens, `deadline` passes (then none), or the child has ended.
    pub(crate) fn wait_event(&mut self, deadline: Option<Instant>) -> Option<Event> {
        loop {
            if let Some(event) = self.event() {
                return Some(event);
            }
            let now = Instant::now();
            if deadline.is_some_and(|deadline| deadline <= now)
                || matches!(self.life, Life::Told(_))
            {
                return None;
            }
            self.tick(now);
            let until = match (deadline, self.due()) {
                (Some(deadline), Some(due)) => Some(deadline.min(due)),
                (deadline, due) => deadline.or(due),
            };
            self.block(until);
        }
    }

    fn block(&mut self, until: Option<Instant>) {
        let [wire, pidfd] = self.interest();
        let mut fds: Vec<_> = wire.into_iter().chain(pidfd).collect();
        wait_for(&mut fds, until);
        self.reap();
        self.flush();
    }

    /// How much of its sandbox is enforced, once it is up.
    pub(crate) fn sandbox(&self) -> Option<&SandboxLevel> {
        self.sandbox.as_ref()
    }

    /// The files that its standard output and error went to, where they were captured.
    pub(crate) fn take_captured(&mut self) -> [Option<File>; 2] {
        std::mem::take(&mut self.captured)
    }
}
