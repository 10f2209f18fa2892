//! A child with its one call, without the type of its result.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use epilogue_embed::ending::{self, Cause, Ending};
use epilogue_embed::{Finalizer, on_stop};
use nix::poll::{PollFd, PollFlags};

use crate::channel::{Drain, take_in_now};
use crate::child::{self, Child, Event, Spec, Ties, Watch, Work};
use crate::end::End;
use crate::entry::{Entry, Request};
use crate::error::StartError;
use crate::link::{Link, Order};
use crate::parcel::Parcel;
use crate::ring::{Listener, Reply};
use crate::stdio::read_captured;
use crate::sys::pid;
use crate::sys::pidfd::{self, Wait};
use crate::wire::{Wire, WireError};

/// What came of the one call.
#[derive(Debug)]
pub(crate) enum Answered {
    Nothing,
    Here(Reply),
    Alone(Parcel),
    Broken(String),
}

/// How far the process is, from the side of its handle.
#[derive(Debug)]
enum Progress {
    Running(Box<Child>, Answered),
    /// It has ended, and nothing of it is held any more but what it left.
    Ended(Answered, End),
    /// Somebody has taken what came of it.
    Taken(End),
}

/// A child with its one call.
#[derive(Debug)]
pub(crate) struct Running {
    progress: Progress,
    captured: [Option<File>; 2],
    at_exit: Option<Finalizer>,
    id: u32,
    /// The channels whose sending end went along with the argument.
    senders: Vec<u64>,
}

/// A running process, shared by its handle and whoever else may have to wait for it: a scope, or
/// the thread that waits for a future.
pub(crate) type SharedRunning = Arc<Shared>;

/// A running process behind its lock, and in front of that whose it is: a copy of this process that
/// `fork` has made may find the lock taken, for ever.
#[derive(Debug)]
pub(crate) struct Shared {
    owner: u32,
    running: Mutex<Running>,
}

impl Shared {
    /// Whether this process started it, rather than a fork of that.
    pub(crate) fn is_ours(&self) -> bool {
        self.owner == pid::own()
    }
}

impl Deref for Shared {
    type Target = Mutex<Running>;

    fn deref(&self) -> &Mutex<Running> {
        &self.running
    }
}

/// Locks it. Who may not be alone in waiting for the process uses [`look`] and [`wait_for`].
pub(crate) fn lock(running: &Mutex<Running>) -> MutexGuard<'_, Running> {
    running.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The number of the only call of a process.
const CALL: u64 = 0;

impl Running {
    /// Starts it; with what can be reached of it while another thread waits.
    pub(crate) fn start(
        spec: &Spec,
        call: &Request,
    ) -> Result<(SharedRunning, Arc<Ties>), StartError> {
        let mut child = Child::start(spec, serve_one)?;
        child.wire().listen(Listener::Socket, 1);
        let sent = child.wire().call(CALL, 1, call.parcel()).map_err(io::Error::other);
        sent.map_err(|source| StartError::System { step: "sending the argument", source })?;
        child.finish();
        child.wait_until_up()?;
        let (ties, hook) = (Arc::clone(child.ties()), Arc::clone(child.ties()));
        let name = format!("epilogue: join process {}", child.name());
        let senders = call.parcel().senders().to_vec();
        let running = Mutex::new(Self {
            captured: child.take_captured(),
            id: child.id(),
            progress: Progress::Running(Box::new(child), Answered::Nothing),
            at_exit: None,
            senders: senders.clone(),
        });
        let running = Arc::new(Shared { owner: pid::own(), running });
        let held = Arc::downgrade(&running);
        let asked = Arc::clone(&hook);
        let ask = move |_: &Ending| asked.ask_to_stop();
        let at_exit = ending::register_asked(name, ask, move |ending| {
            let _drain = Drain::start(&senders);
            end_with_program(&hook, &held, ending);
        });
        lock(&running).at_exit = Some(at_exit);
        Ok((running, ties))
    }

    /// The child, while it runs.
    pub(crate) fn child(&self) -> Option<&Child> {
        match &self.progress {
            Progress::Running(child, _) => Some(child),
            Progress::Ended(..) | Progress::Taken(_) => None,
        }
    }

    fn child_mut(&mut self) -> Option<&mut Child> {
        match &mut self.progress {
            Progress::Running(child, _) => Some(child),
            Progress::Ended(..) | Progress::Taken(_) => None,
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.child().is_none()
    }

    /// As [`Running::advance`], for one who does not wait and may come again and again: what the
    /// process sends to receivers here is taken in, or it might wait for us for ever.
    pub(crate) fn look(&mut self) {
        if !self.has_ended() {
            take_in_now(&self.senders);
        }
        self.advance();
    }

    /// Takes notice of what has happened, and waits for nothing.
    pub(crate) fn advance(&mut self) {
        if let Some(child) = self.child_mut() {
            child.reap();
            child.flush();
            child.tick(Instant::now());
        }
        while let Some(event) = self.child_mut().and_then(Child::event) {
            self.note(event);
        }
    }

    /// Waits until the process has ended, or until `deadline`; whether it has.
    ///
    /// What it sends to receivers here is taken in, or it might wait for us as we wait for it.
    pub(crate) fn wait(&mut self, deadline: Option<Instant>) -> bool {
        let now = deadline.is_some_and(|deadline| deadline <= Instant::now());
        let _drain = (!now).then(|| Drain::start(&self.senders));
        while let Some(event) = self.child_mut().and_then(|child| child.wait_event(deadline)) {
            self.note(event);
        }
        self.has_ended()
    }

    /// What came of it, once it has ended. The answer is given once.
    pub(crate) fn take(&mut self) -> Option<(Answered, End)> {
        match &mut self.progress {
            Progress::Running(..) => None,
            Progress::Ended(answered, end) => {
                let (answered, end) = (std::mem::replace(answered, Answered::Nothing), end.clone());
                self.progress = Progress::Taken(end.clone());
                Some((answered, end))
            }
            Progress::Taken(end) => Some((Answered::Nothing, end.clone())),
        }
    }

    /// Whether its answer was taken already.
    pub(crate) fn was_taken(&self) -> bool {
        matches!(self.progress, Progress::Taken(_))
    }

    /// Stops it, abandoning its function.
    pub(crate) fn stop(&mut self) {
        if let Some(child) = self.child_mut() {
            child.stop(None, Work::Abandon);
        }
    }

    pub(crate) fn kill(&mut self) {
        if let Some(child) = self.child_mut() {
            child.kill();
        }
    }

    /// How it ended, once it has.
    pub(crate) fn end(&self) -> Option<&End> {
        match &self.progress {
            Progress::Running(..) => None,
            Progress::Ended(_, end) | Progress::Taken(end) => Some(end),
        }
    }

    /// What it wrote, where that was captured.
    pub(crate) fn captured(&mut self) -> (Vec<u8>, Vec<u8>) {
        let [stdout, stderr] = std::mem::take(&mut self.captured);
        let read = |memory: Option<File>| memory.as_ref().map(read_captured).unwrap_or_default();
        (read(stdout), read(stderr))
    }

    fn note(&mut self, event: Event) {
        let Progress::Running(child, answered) = &mut self.progress else { return };
        // It was asked once, for one thing.
        let is_asked = matches!(answered, Answered::Nothing);
        match event {
            Event::Answers(reply) if is_asked && is_the_answer(&reply) => {
                *answered = Answered::Here(reply);
                child.drained();
            }
            Event::Answer { id: CALL, index: 0, payload } if is_asked => {
                *answered = Answered::Alone(payload);
                child.drained();
            }
            // Of more than was asked for, whoever decodes them would be at it for ever.
            Event::Answers(_) | Event::Answer { .. } => {
                let broken = child.distrust(WireError::Garbage);
                self.note(broken);
            }
            Event::Broken(error) => *answered = Answered::Broken(error.to_string()),
            Event::Hello
            | Event::Refused(_)
            | Event::Begun { .. }
            | Event::Grown
            | Event::Note { .. } => {}
            Event::Ended(_) => {
                let answered = std::mem::replace(answered, Answered::Nothing);
                self.progress = Progress::Ended(answered, child.end());
                if let Some(at_exit) = self.at_exit.take() {
                    at_exit.cancel();
                }
            }
        }
    }
}

/// Whether it answers the only call.
fn is_the_answer(reply: &Reply) -> bool {
    (reply.id, reply.first, reply.count) == (CALL, 0, 1)
}

impl Drop for Shared {
    fn drop(&mut self) {
        // In a fork the child is the business of the process that started it.
        if !self.is_ours() {
            return;
        }
        let running = self.running.get_mut().unwrap_or_else(PoisonError::into_inner);
        if !running.has_ended() {
            if thread::panicking() {
                running.stop();
            }
            running.wait(None);
        }
    }
}

/// What there is to wait for, while others may wait for the same process or want to stop it: it
/// is waited for without the lock.
#[derive(Debug)]
pub(crate) struct Sight {
    watch: Watch,
    due: Option<Instant>,
}

/// Takes notice of what has happened. None if there is nothing to wait for: the process has ended,
/// or is another process's and will never be seen to end here.
pub(crate) fn look(running: &SharedRunning) -> Option<Sight> {
    if !running.is_ours() {
        return None;
    }
    see(&mut lock(running))
}

fn see(running: &mut Running) -> Option<Sight> {
    running.advance();
    let child = running.child()?;
    Some(Sight { watch: child.watch(), due: child.due() })
}

/// Takes in what the processes send to receivers here, for as long as the result lives. Whoever
/// waits for one of them holds it: they might wait for us as we wait for them.
pub(crate) fn drain(processes: &[&SharedRunning]) -> Option<Drain> {
    let ours = processes.iter().filter(|running| running.is_ours());
    let senders = ours.flat_map(|running| lock(running).senders.clone());
    Drain::start(&senders.collect::<Vec<_>>())
}

/// Waits until it is worth to [`look`] again at one of them.
pub(crate) fn wait_for(sights: &[Sight]) {
    let mut fds = Vec::new();
    for Sight { watch, due: _ } in sights {
        fds.extend(watch.pidfd());
        fds.extend(watch.wire());
    }
    child::wait_for(&mut fds, sights.iter().filter_map(|sight| sight.due).min());
}

/// The main function of such a child: one call, one answer.
fn serve_one(mut link: Link) {
    let limits = link.limits().clone();
    while let Some(order) = link.next_order() {
        let Order::Call(mut call) = order else { continue };
        let mut answering = link.answer(&call);
        // The argument owns them from here on: what it drops early is closed early.
        let luggage = call.payload.take_luggage();
        match Entry::read(&call.payload.bytes) {
            Some((entry, argument)) => {
                entry.run(argument, luggage, None, &limits, &mut answering);
            }
            None => Entry::reject(&mut answering),
        }
        answering.finish();
        // Without waiting to be told that no more comes: that would take longer than many a call.
        return;
    }
}

/// Joins a child whose handle nobody will drop any more: it was leaked, or is in a static.
///
/// A program that exits grants it all the time it needs; one that is ended by a signal stops it
/// within what is left of its own time.
fn end_with_program(ties: &Arc<Ties>, running: &Weak<Shared>, ending: &Ending) {
    match (ending.cause(), ending.remaining()) {
        (Cause::Exit, None) => {
            let held = Arc::clone(ties);
            let ending = *ending;
            on_stop(move |_| {
                held.ask_to_stop();
                ending.ask_next();
            });
            drain_until_end(ties, running, None);
        }
        // A signal, `cleanup`, or our own parent's request: time is short.
        (_, left) => {
            let begin = Instant::now();
            let kill_at = left.map(|left| begin + left * 4 / 5);
            ties.ask_to_stop();
            // All of them before one is waited for, so that their times pass together.
            ending.ask_next();
            drain_until_end(ties, running, kill_at);
            ties.end();
        }
    }
    // Nobody else may be left who would.
    ties.fell_all();
    let _ = pidfd::wait(ties.pidfd.as_fd(), Wait::Block);
}

/// When it is looked again whether somebody still reads what a child writes.
const TURN: Duration = Duration::from_millis(20);

/// Waits for the child's end or for `until`, and reads what it writes: one whose reply does not fit the
/// socket's buffer would never end.
///
/// Threads go on as a program exits, and one may be in the middle of a `join`. What is taken away from
/// it here leaves it with a part of a frame, for which it kills the child; so this reads as it does, one
/// at a time. Nor is its lock waited for: whoever holds it reads, for as long as it likes, or takes a
/// result to pieces by code of the user's, which may never end, while our time does.
fn drain_until_end(ties: &Ties, running: &Weak<Shared>, until: Option<Instant>) {
    let is_over = || until.is_some_and(|until| until <= Instant::now());
    while !is_over() {
        let sight = running.upgrade().and_then(|running| match running.try_lock() {
            Ok(mut running) => see(&mut running),
            Err(TryLockError::Poisoned(running)) => see(&mut running.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        });
        if let Some(sight) = sight {
            wait_for(&[Sight { due: earlier(sight.due, until), ..sight }]);
        } else if pidfd::has_ended(ties.pidfd.as_fd()) {
            return;
        } else {
            let mut fds = [PollFd::new(ties.pidfd.as_fd(), PollFlags::POLLIN)];
            child::wait_for(&mut fds, earlier(Some(Instant::now() + TURN), until));
        }
    }
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}
