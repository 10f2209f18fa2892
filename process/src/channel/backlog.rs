//! What a receiver has taken in while its sender's process was being joined.
//!
//! # Invariants
//!
//! 1. Messages leave in the order in which they came: those taken in first, then those that wait.
//! 2. While a thread waits for a message, nobody but that thread takes it: it would not be woken
//!    by what is in the backlog.
//! 3. A receiver that is dropped is let go at once, so that its sender learns of it.
//! 4. While a receiver is on its way to another process, nothing is taken in here: it would stay
//!    behind.

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::SigSet;

use super::MAX_CAPACITY;
use super::error::RecvFailure;
use super::socket::{self, Intake, Message};
use crate::bell::Bell;
use crate::child::wait_for;
use crate::codec::Limits;
use crate::sys::pid;

/// How many bytes a receiver takes in, at most, while its sender's process is joined: one
/// gibibyte, with what it costs to keep each message. Then the sender waits, as long as nobody
/// receives.
pub const BACKLOG: usize = 1 << 30;

/// The receiving ends in this process, by the numbers of their channels.
static INLETS: Mutex<BTreeMap<u64, Vec<Weak<Inlet>>>> = Mutex::new(BTreeMap::new());

/// How many descriptors are in all the backlogs of this process.
static HELD: AtomicUsize = AtomicUsize::new(0);

/// What a receiver consists of, without the type of its messages.
#[derive(Debug)]
pub(super) struct Inlet {
    id: u64,
    socket: Arc<OwnedFd>,
    state: Mutex<State>,
    owner: u32,
}

#[derive(Debug, Default)]
struct State {
    backlog: VecDeque<(Message, Held)>,
    /// How many bytes the backlog takes up.
    bytes: usize,
    /// How many threads wait for the socket.
    waiting: usize,
    /// Nobody will receive any more.
    abandoned: bool,
    /// Wakes those who take messages in.
    drains: Vec<Arc<Bell>>,
    intake: Intake,
}

impl Inlet {
    pub(super) fn new(id: u64, socket: Arc<OwnedFd>) -> Arc<Self> {
        let inlet = Arc::new(Self { id, socket, state: Mutex::default(), owner: pid::own() });
        let others = inlets_of(&[id]);
        // What is packed for another process is read back in a rehearsal: that end is the same one
        // once more, and what it took in would be lost with it.
        if !others.iter().any(|other| Arc::ptr_eq(&other.socket, &inlet.socket)) {
            lock(&INLETS).entry(id).or_default().push(Arc::downgrade(&inlet));
        }
        inlet
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Has it packed for another process, unless something was taken in: none then. Behind the lock,
    /// for whoever takes messages in may have looked whether it is leaving just before.
    pub(super) fn leave<T>(&self, pack: impl FnOnce(&Arc<OwnedFd>) -> T) -> Option<T> {
        let mut state = lock(&self.state);
        if !state.backlog.is_empty() {
            return None;
        }
        // Whoever receives next does not know of what is owed.
        state.intake.pay(self.socket());
        Some(pack(&self.socket))
    }

    #[cfg(test)]
    pub(super) fn has_backlog(&self) -> bool {
        !lock(&self.state).backlog.is_empty()
    }

    pub(super) fn try_receive(&self) -> Result<Message, RecvFailure> {
        let received = lock(&self.state).receive(self);
        released(received)
    }

    /// As [`Inlet::try_receive`]; if there is nothing now, this thread counts as waiting until it
    /// calls [`Inlet::end_wait`].
    pub(super) fn receive_or_wait(&self) -> Result<Message, RecvFailure> {
        let received = {
            let mut state = lock(&self.state);
            let received = state.receive(self);
            if let Err(RecvFailure::NotNow) = received {
                state.waiting += 1;
            }
            received
        };
        released(received)
    }

    /// When whoever waits has to look again, whatever comes; none if that is not needed.
    pub(super) fn look_again(&self) -> Option<Instant> {
        lock(&self.state).intake.owes().then(|| Instant::now() + WITHOUT_BELL)
    }

    pub(super) fn end_wait(&self) {
        let mut state = lock(&self.state);
        state.waiting -= 1;
        state.wake();
    }

    /// Whether this is the process that made it. A copy of that may find any lock taken, for ever: it
    /// can at least let go of what it has.
    fn is_ours(&self) -> bool {
        pid::own() == self.owner
    }

    /// The receiver is being dropped.
    pub(super) fn abandon(&self) {
        if !self.is_ours() {
            return;
        }
        let backlog = {
            let mut state = lock(&self.state);
            state.abandoned = true;
            state.wake();
            mem::take(&mut state.backlog)
        };
        let held: usize = backlog.iter().map(|(_, held)| held.0).sum();
        // Nothing is added from here on, and whoever is called below finds the room.
        drop(backlog);
        if held > 0 {
            wake_all();
        }
    }

    /// Takes in what waits; whether there may be more, now or later.
    fn take_in(&self) -> Taken {
        let mut state = lock(&self.state);
        for _ in 0..MAX_CAPACITY {
            if state.abandoned {
                return Taken::All;
            }
            if state.waiting > 0 || self.is_leaving() {
                return Taken::LeftToOthers;
            }
            if state.bytes >= BACKLOG || HELD.load(Ordering::Relaxed) > most_held() {
                return Taken::TooMuch;
            }
            match socket::try_receive(self.socket(), &mut state.intake) {
                Ok(mut message) => {
                    message.take_in(&Limits::default());
                    state.bytes += message.cost();
                    let held = Held::new(message.descriptors());
                    state.backlog.push_back((message, held));
                }
                Err(RecvFailure::NotNow) => return Taken::Some,
                // It comes again to whoever receives.
                Err(_) => return Taken::All,
            }
        }
        // No more wait in a channel than that, unless others send as fast: who waits for the lock,
        // or for this thread, does not wait for those.
        Taken::Some
    }

    /// Whether it is being sent to another process: what is packed holds its socket, too.
    fn is_leaving(&self) -> bool {
        Arc::strong_count(&self.socket) > 1
    }
}

impl State {
    fn receive(&mut self, inlet: &Inlet) -> Result<(Message, Held), RecvFailure> {
        if let Some((message, held)) = self.backlog.pop_front() {
            self.bytes -= message.cost();
            self.wake();
            return Ok((message, held));
        }
        Ok((socket::try_receive(inlet.socket(), &mut self.intake)?, Held(0)))
    }

    fn wake(&self) {
        for drain in &self.drains {
            drain.ring();
        }
    }
}

/// So many descriptors of a backlog, for as long as it lives.
#[derive(Debug)]
struct Held(usize);

impl Held {
    fn new(count: usize) -> Self {
        HELD.fetch_add(count, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        HELD.fetch_sub(self.0, Ordering::Relaxed);
    }
}

/// Backlogs leave the other half of the descriptors to the program. A message whose descriptors
/// find no room is lost.
fn most_held() -> usize {
    getrlimit(Resource::RLIMIT_NOFILE)
        .map_or(0, |(now, _)| usize::try_from(now / 2).unwrap_or(usize::MAX))
}

/// The message alone. Its descriptors are not the backlog's any more, and any receiver may have
/// waited for that.
fn released(received: Result<(Message, Held), RecvFailure>) -> Result<Message, RecvFailure> {
    let (message, held) = received?;
    let count = held.0;
    drop(held);
    if count > 0 {
        wake_all();
    }
    Ok(message)
}

/// Has all who take messages in look again: one of the receivers may not be on its way any more.
pub(super) fn wake_all() {
    for inlet in all_inlets() {
        lock(&inlet.state).wake();
    }
}

fn all_inlets() -> Vec<Arc<Inlet>> {
    lock(&INLETS).values().flatten().filter_map(Weak::upgrade).collect()
}

/// The receivers here of the channels of these numbers.
fn inlets_of(channels: &[u64]) -> Vec<Arc<Inlet>> {
    let inlets = lock(&INLETS);
    channels.iter().filter_map(|id| inlets.get(id)).flatten().filter_map(Weak::upgrade).collect()
}

/// Takes in what waits now for the receivers here of the channels of these numbers.
pub(crate) fn take_in_now(channels: &[u64]) {
    for inlet in inlets_of(channels) {
        inlet.take_in();
    }
}

impl Drop for Inlet {
    fn drop(&mut self) {
        if !self.is_ours() {
            return;
        }
        let mut inlets = lock(&INLETS);
        if let Some(same) = inlets.get_mut(&self.id) {
            same.retain(|inlet| inlet.strong_count() > 0);
            if same.is_empty() {
                inlets.remove(&self.id);
            }
        }
    }
}

/// What came of taking messages in.
enum Taken {
    /// What waited, or the first part of it; more may come.
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
    bell: Option<Arc<Bell>>,
    shared: Arc<Mutex<Phase>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    Draining,
    Over,
}

/// How often one looks whether there is something to do whom nobody can call.
const WITHOUT_BELL: Duration = Duration::from_millis(5);

impl Drain {
    /// Begins to take in messages for the receivers here of the channels of these numbers. None if
    /// there are no such receivers.
    pub fn start(channels: &[u64]) -> Option<Self> {
        if channels.is_empty() {
            return None;
        }
        let inlets = inlets_of(channels);
        if inlets.is_empty() {
            return None;
        }
        // There may be no descriptor left, perhaps since all are in messages that wait.
        let bell = Bell::new().ok().map(Arc::new);
        let shared = Arc::new(Mutex::new(Phase::Draining));
        for inlet in &inlets {
            lock(&inlet.state).drains.extend(bell.clone());
        }
        let (its_bell, its_phase) = (bell.clone(), Arc::clone(&shared));
        let thread = thread::Builder::new().name("epilogue-drain".to_owned());
        let weak = inlets.iter().map(Arc::downgrade).collect();
        // Without a thread to be had, messages wait as ever.
        let thread = thread.spawn(move || run(inlets, its_bell.as_deref(), &its_phase)).ok();
        Some(Self { inlets: weak, bell, shared, thread })
    }
}

/// Forgets the channels that are received in no place of this process, and those that are there twice: all
/// clones of a sender have one number.
pub fn forget_foreign(channels: &mut Vec<u64>) {
    if !channels.is_empty() {
        channels.sort_unstable();
        channels.dedup();
        let inlets = inlets_of(channels);
        channels.retain(|channel| inlets.iter().any(|inlet| inlet.id == *channel));
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        *lock(&self.shared) = Phase::Over;
        if let Some(bell) = &self.bell {
            bell.ring();
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let Some(own) = &self.bell else { return };
        for inlet in self.inlets.iter().filter_map(Weak::upgrade) {
            lock(&inlet.state).drains.retain(|bell| !Arc::ptr_eq(bell, own));
        }
    }
}

fn run(mut inlets: Vec<Arc<Inlet>>, bell: Option<&Bell>, phase: &Mutex<Phase>) {
    // The program's signal handlers have nothing to do on this thread.
    let _ = SigSet::all().thread_block();
    while !inlets.is_empty() {
        let mut watched = Vec::new();
        inlets.retain(|inlet| match inlet.take_in() {
            Taken::All => false,
            Taken::Some => {
                watched.push(Arc::clone(inlet));
                true
            }
            // The bell tells when that has changed.
            Taken::TooMuch | Taken::LeftToOthers => true,
        });
        let mut fds: Vec<_> =
            bell.iter().map(|bell| PollFd::new(bell.as_fd(), PollFlags::POLLIN)).collect();
        fds.extend(watched.iter().map(|inlet| PollFd::new(inlet.socket(), PollFlags::POLLIN)));
        let look_again = watched.iter().filter_map(|inlet| inlet.look_again()).min();
        let unheard = bell.is_none().then(|| Instant::now() + WITHOUT_BELL);
        wait_for(&mut fds, look_again.or(unheard));
        drop(fds);
        drop(watched);
        let _ = bell.map(Bell::silence);
        if *lock(phase) == Phase::Over {
            break;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::{INLETS, forget_foreign, lock};
    use crate::sys::copy::ends_well_in_a_copy;
    use crate::{Limits, channel, parcel};

    #[test]
    fn a_channel_is_remembered_once_however_many_senders_go() {
        let (sender, receiver) = channel::<u8>().unwrap();
        let parcel = parcel::pack(Vec::new(), &sender, &Limits::default()).unwrap();
        let own = parcel.senders()[0];
        let mut channels = vec![own; 1000];
        forget_foreign(&mut channels);
        assert_eq!(channels, [own]);
        drop(receiver);
    }

    #[test]
    fn a_copy_that_is_made_while_receivers_are_listed_lets_go_of_one() {
        let (_sender, receiver) = channel::<u8>().unwrap();
        let listed = lock(&INLETS);
        assert!(ends_well_in_a_copy(|| drop(receiver)));
        drop(listed);
    }
}
