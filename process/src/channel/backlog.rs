//! What a receiver has taken in while its sender's process was being joined.
//!
//! # Invariants
//!
//! 1. Messages leave in the order in which they came: those taken in first, then those that wait.
//! 2. While a thread waits for a message, nobody but that thread takes it: it would not be woken
//!    by what is in the backlog.
//! 3. A receiver that is dropped is let go at once, so that its sender learns of it.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle};

use nix::poll::{PollFd, PollFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::SigSet;

use super::error::RecvFailure;
use super::socket::{self, Message};
use crate::child::wait_for;
use crate::codec::Limits;

/// How many bytes of messages a receiver takes in, at most, while its sender's process is joined:
/// one gibibyte. Then the sender waits, as long as nobody receives.
pub const BACKLOG: usize = 1 << 30;

/// The receiving ends in this process.
static INLETS: Mutex<Vec<Weak<Inlet>>> = Mutex::new(Vec::new());

/// What a receiver consists of, without the type of its messages.
#[derive(Debug)]
pub(super) struct Inlet {
    id: u64,
    socket: Arc<OwnedFd>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    backlog: VecDeque<Message>,
    /// How many bytes the backlog has.
    bytes: usize,
    /// How many threads wait for the socket.
    waiting: usize,
    /// Nobody will receive any more.
    abandoned: bool,
    /// Wakes those who take messages in.
    drains: Vec<Arc<EventFd>>,
    room: Vec<u8>,
}

impl Inlet {
    pub(super) fn new(id: u64, socket: Arc<OwnedFd>) -> Arc<Self> {
        let inlet = Arc::new(Self { id, socket, state: Mutex::default() });
        lock(&INLETS).push(Arc::downgrade(&inlet));
        inlet
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn descriptor(&self) -> &Arc<OwnedFd> {
        &self.socket
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub(super) fn has_backlog(&self) -> bool {
        !lock(&self.state).backlog.is_empty()
    }

    pub(super) fn try_receive(&self) -> Result<Message, RecvFailure> {
        lock(&self.state).receive(self)
    }

    /// As [`Inlet::try_receive`]; if there is nothing now, this thread counts as waiting until it
    /// calls [`Inlet::end_wait`].
    pub(super) fn receive_or_wait(&self) -> Result<Message, RecvFailure> {
        let mut state = lock(&self.state);
        let received = state.receive(self);
        if let Err(RecvFailure::NotNow) = received {
            state.waiting += 1;
        }
        received
    }

    pub(super) fn end_wait(&self) {
        let mut state = lock(&self.state);
        state.waiting -= 1;
        state.wake();
    }

    /// The receiver is being dropped.
    pub(super) fn abandon(&self) {
        let mut state = lock(&self.state);
        state.abandoned = true;
        state.wake();
    }

    /// Takes in what waits; whether there may be more, now or later.
    fn take_in(&self) -> Taken {
        let mut state = lock(&self.state);
        loop {
            if state.abandoned {
                return Taken::All;
            }
            if state.waiting > 0 {
                return Taken::LeftToOthers;
            }
            if state.bytes >= BACKLOG {
                return Taken::TooMuch;
            }
            match socket::try_receive(self.socket(), &mut state.room) {
                Ok(mut message) => {
                    message.take_in(&Limits::default());
                    state.bytes += message.len();
                    state.backlog.push_back(message);
                }
                Err(RecvFailure::NotNow) => return Taken::Some,
                // It comes again to whoever receives.
                Err(_) => return Taken::All,
            }
        }
    }
}

impl State {
    fn receive(&mut self, inlet: &Inlet) -> Result<Message, RecvFailure> {
        if let Some(message) = self.backlog.pop_front() {
            self.bytes -= message.len();
            self.wake();
            return Ok(message);
        }
        socket::try_receive(inlet.socket(), &mut self.room)
    }

    fn wake(&self) {
        for drain in &self.drains {
            // It fails only if it was woken 2^64 times since it last looked.
            let _ = drain.write(1);
        }
    }
}

impl Drop for Inlet {
    fn drop(&mut self) {
        lock(&INLETS).retain(|inlet| inlet.strong_count() > 0);
    }
}

/// What came of taking messages in.
enum Taken {
    /// All that waited; more may come.
    Some,
    /// All that there will ever be.
    All,
    /// The backlog has to become shorter first.
    TooMuch,
    /// Another thread waits for them.
    LeftToOthers,
}

/// Takes messages in for as long as it lives, so that their senders need not wait.
///
/// For owners of many children: whoever waits for a child that may be sending to a receiver of this
/// process holds one meanwhile.
#[derive(Debug)]
pub struct Drain {
    inlets: Vec<Weak<Inlet>>,
    bell: Arc<EventFd>,
    shared: Arc<Mutex<Phase>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    Draining,
    Over,
}

impl Drain {
    /// Begins to take in messages for the receivers here of the channels of these numbers. None if
    /// there are no such receivers, or the system has no thread left for it.
    pub fn start(channels: &[u64]) -> Option<Self> {
        if channels.is_empty() {
            return None;
        }
        let inlets: Vec<Arc<Inlet>> = lock(&INLETS).iter().filter_map(Weak::upgrade).collect();
        let inlets: Vec<_> =
            inlets.into_iter().filter(|inlet| channels.contains(&inlet.id)).collect();
        if inlets.is_empty() {
            return None;
        }
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let bell = Arc::new(EventFd::from_flags(flags).ok()?);
        let shared = Arc::new(Mutex::new(Phase::Draining));
        for inlet in &inlets {
            lock(&inlet.state).drains.push(Arc::clone(&bell));
        }
        let (its_bell, its_phase) = (Arc::clone(&bell), Arc::clone(&shared));
        let thread = thread::Builder::new().name("epilogue-drain".to_owned());
        let weak = inlets.iter().map(Arc::downgrade).collect();
        // Without a thread to be had, messages wait as ever.
        let thread = thread.spawn(move || run(inlets, &its_bell, &its_phase)).ok();
        Some(Self { inlets: weak, bell, shared, thread })
    }
}

/// Forgets the channels that are received in no place of this process.
pub fn forget_foreign(channels: &mut Vec<u64>) {
    if channels.is_empty() {
        return;
    }
    let inlets: Vec<Arc<Inlet>> = lock(&INLETS).iter().filter_map(Weak::upgrade).collect();
    channels.retain(|channel| inlets.iter().any(|inlet| inlet.id == *channel));
}

impl Drop for Drain {
    fn drop(&mut self) {
        *lock(&self.shared) = Phase::Over;
        let _ = self.bell.write(1);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        for inlet in self.inlets.iter().filter_map(Weak::upgrade) {
            lock(&inlet.state).drains.retain(|bell| !Arc::ptr_eq(bell, &self.bell));
        }
    }
}

fn run(mut inlets: Vec<Arc<Inlet>>, bell: &EventFd, phase: &Mutex<Phase>) {
    // The program's signal handlers have nothing to do on this thread.
    let _ = SigSet::all().thread_block();
    while !inlets.is_empty() {
        let mut watched = Vec::new();
        inlets.retain(|inlet| match inlet.take_in() {
            Taken::All => false,
            Taken::Some => {
                watched.push(Arc::clone(&inlet.socket));
                true
            }
            // The bell tells when that has changed.
            Taken::TooMuch | Taken::LeftToOthers => true,
        });
        let mut fds = vec![PollFd::new(bell.as_fd(), PollFlags::POLLIN)];
        fds.extend(watched.iter().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)));
        // Where the kernel does not wait for so many, all are looked at again in a moment.
        wait_for(&mut fds, None);
        drop(fds);
        drop(watched);
        let _ = bell.read();
        if *lock(phase) == Phase::Over {
            break;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
