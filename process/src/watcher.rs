//! The watcher: a thread of every child that reads the wire and watches the parent.
//!
//! It is why a child obeys in the middle of a call, and why none outlives its parent: the end of
//! the parent, however sudden, makes its pidfd readable, and the watcher then runs the finalizers
//! and ends the process, whatever the main thread is doing. It is also the one thread that lets
//! signals in for embed, whose own is started only when one has come.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use epilogue_embed::ending::{self, Attendant, Cause, StopReason};
use epilogue_embed::lent::Thread;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};
use nix::sys::socket::{MsgFlags, getsockopt, sockopt};
use nix::unistd::{Pid, getppid};

use crate::child::Grandchildren;
use crate::codec::{Limits, decode};
use crate::link::{Order, order};
use crate::port::{Going, Port};
use crate::server;
use crate::sys::descriptors::receive;
use crate::sys::pidfd;
use crate::tree;
use crate::wire::{Inbox, Kind, StopOrder, WireError};

/// A descriptor that becomes readable as the parent ends, whatever thread of it started us.
///
/// None if the parent is gone already, or if the wire is not one that it made: a variable that
/// was set by hand must not make a program wait on whatever its descriptor 3 is.
pub(crate) fn parent(wire: BorrowedFd<'_>) -> Option<OwnedFd> {
    // It wakes a stopped child, which can then see that its parent is gone. It must be harmless:
    // it fires as well when the *thread* ends that started this child.
    let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGCONT);
    let maker = getsockopt(&wire, sockopt::PeerCredentials).ok()?.pid();
    if maker != getppid().as_raw() {
        return None;
    }
    match getsockopt(&wire, sockopt::PeerPidfd) {
        Ok(pidfd) => Some(pidfd),
        Err(_) => {
            // Before Linux 6.5: open by number, then see that the number still meant our parent.
            let pid = getppid();
            let pidfd = pidfd::open(pid.as_raw()).ok()?;
            (getppid() == pid).then_some(pidfd)
        }
    }
}

#[derive(Debug)]
pub(crate) struct Watcher {
    parent: OwnedFd,
    parent_id: Pid,
    port: Arc<Port>,
    inbox: Inbox,
    /// Dropped when no more orders will come.
    orders: Option<Sender<Order>>,
    /// When the call that runs has had its time.
    leave_at: Option<Instant>,
    /// How long the callbacks that hear of the stop may hold up the finalizers.
    callbacks: Duration,
    grandchildren: Grandchildren,
}

/// What the watcher does next.
enum Next {
    Watch,
    Leave,
}

/// The thread, before there is anything to watch. It inherits that every signal is blocked.
#[derive(Debug)]
pub(crate) struct Post {
    thread: Thread,
    desk: Arc<Desk>,
}

#[derive(Debug)]
struct Desk {
    duty: Mutex<Duty>,
    given: Condvar,
}

/// What the thread is to do.
#[derive(Debug, Default)]
enum Duty {
    #[default]
    Wait,
    Watch(Box<Watcher>, Attendant),
    Leave,
}

impl Post {
    /// Starts the thread, which waits for its duty.
    pub(crate) fn open() -> io::Result<Self> {
        Self::new(Duty::Wait)
    }

    /// Starts a thread that watches from the beginning.
    pub(crate) fn open_and_fill(watcher: Watcher, attendant: Attendant) -> io::Result<()> {
        Self::new(Duty::Watch(Box::new(watcher), attendant)).map(drop)
    }

    fn new(duty: Duty) -> io::Result<Self> {
        let desk = Arc::new(Desk { duty: Mutex::new(duty), given: Condvar::new() });
        let thread = Thread::start(c"epilogue-watch", Arc::clone(&desk), |desk| {
            if let Duty::Watch(mut watcher, mut attendant) = desk.wait() {
                watcher.run(&mut attendant);
            }
        })?;
        Ok(Self { thread, desk })
    }

    /// Has the thread watch from here on.
    pub(crate) fn fill(self, watcher: Watcher, attendant: Attendant) {
        self.desk.give(Duty::Watch(Box::new(watcher), attendant));
    }

    /// Ends the thread. When this returns it is gone.
    pub(crate) fn close(self) {
        self.desk.give(Duty::Leave);
        self.thread.join();
        // The kernel counts it a moment longer than the C library does.
        server::threads();
    }
}

impl Desk {
    fn give(&self, duty: Duty) {
        *self.duty.lock().unwrap_or_else(PoisonError::into_inner) = duty;
        self.given.notify_one();
    }

    fn wait(&self) -> Duty {
        let duty = self.duty.lock().unwrap_or_else(PoisonError::into_inner);
        let given = self.given.wait_while(duty, |duty| matches!(duty, Duty::Wait));
        std::mem::take(&mut given.unwrap_or_else(PoisonError::into_inner))
    }
}

/// How long an orphan takes to end its tree where its finalizers have no time, and so none of them does.
const WITHOUT_TIME: Duration = Duration::from_secs(1);

impl Watcher {
    pub(crate) fn new(
        parent: OwnedFd,
        port: Arc<Port>,
        inbox: Inbox,
        orders: Sender<Order>,
        callbacks: Duration,
        grandchildren: Grandchildren,
    ) -> Self {
        let (parent_id, orders) = (getppid(), Some(orders));
        Self { parent, parent_id, port, inbox, orders, leave_at: None, callbacks, grandchildren }
    }

    /// Watches, until it is time to leave; then it ends the process.
    fn run(&mut self, attendant: &mut Attendant) -> ! {
        // A panic in here would be ours. A child that nobody watches must not go on.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.watch(attendant))) {
            std::mem::forget(panic);
        }
        ending::leave_here(0, Cause::Parent)
    }

    fn watch(&mut self, attendant: &mut Attendant) {
        // What came together with the first frame is in the inbox already.
        let mut next = self.obey();
        while let Next::Watch = next {
            next = self.wait(attendant);
        }
    }

    fn wait(&mut self, attendant: &mut Attendant) -> Next {
        let left = match self.leave_at.map(|at| at.checked_duration_since(Instant::now())) {
            Some(None) => return Next::Leave,
            Some(left) => left,
            None => None,
        };
        match attendant.wait([self.port.stream().as_fd(), self.parent.as_fd()], left) {
            Ok([_, true]) => self.parent_is_gone(),
            Ok([true, false]) => self.read(),
            Ok([false, false]) => Next::Watch,
            Err(_) => self.look(),
        }
    }

    /// Where the kernel does not wait: it has no memory, or a task has lowered `RLIMIT_NOFILE` to
    /// less than two descriptors, which some do that are to open nothing any more.
    fn look(&mut self) -> Next {
        thread::sleep(Duration::from_millis(1));
        // Whoever inherits an orphan is another process than its parent was.
        if getppid() == self.parent_id { self.read() } else { self.parent_is_gone() }
    }

    fn read(&mut self) -> Next {
        let fd = self.port.stream().as_fd();
        match self.inbox.fill(|room| receive(fd, room, MsgFlags::MSG_DONTWAIT)) {
            Ok(0) => self.parent_is_gone(),
            Ok(_) => self.obey(),
            Err(WireError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Next::Watch,
            Err(_) => self.parent_is_gone(),
        }
    }

    fn obey(&mut self) -> Next {
        loop {
            let frame = match self.inbox.next() {
                Ok(Some(frame)) => frame,
                Ok(None) => return Next::Watch,
                // The parent does not send garbage; somebody else has taken its place.
                Err(_) => return self.parent_is_gone(),
            };
            match frame.kind {
                Kind::Finish => {
                    self.orders = None;
                    self.port.advance(Going::Finishing);
                }
                Kind::Stop => self.stop(&frame.payload),
                _ => {
                    if let (Some(orders), Some(order)) = (&self.orders, order(frame)) {
                        // The main function may have returned already: then nobody needs it.
                        let _ = orders.send(order);
                    }
                }
            }
        }
    }

    fn stop(&mut self, payload: &[u8]) {
        let order = decode(payload, &Limits::default());
        let order = order.unwrap_or(StopOrder { work: Duration::ZERO, finalizers: Duration::ZERO });
        self.port.advance(Going::Stopping);
        self.orders = None;
        ending::set_deadline_at_most(order.work + order.finalizers);
        self.leave_at = Some(Instant::now() + order.work);
        request_stop(StopReason::Parent, self.callbacks.min(order.finalizers / 2));
    }

    fn parent_is_gone(&self) -> Next {
        // What follows may wait for a lock of the loader's, which user code may hold for ever; and nobody
        // is left who would end that.
        ending::expect_within(self.callbacks);
        self.port.advance(Going::Stopping);
        let ends_tree = self.grandchildren == Grandchildren::Ended;
        if ends_tree {
            tree::end_own_in_time(self.parent_id, &self.port);
        }
        request_stop(StopReason::ParentGone, self.callbacks);
        if ends_tree && ending::granted().is_zero() {
            tree::end_own(self.parent_id, &self.port, WITHOUT_TIME);
        }
        Next::Leave
    }
}

/// Tells the program's callbacks to stop, and waits for them, but not for ever: this thread is the
/// only one that can end an orphan.
fn request_stop(reason: StopReason, patience: Duration) {
    let returned = Arc::new((Mutex::new(false), Condvar::new()));
    let asked =
        Thread::start(c"epilogue-stop", (reason, Arc::clone(&returned)), |(reason, returned)| {
            // What a callback starts must not begin with every signal blocked, as this thread does.
            let _ = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
            // Nothing may unwind out of a thread of the C library's.
            let asked = catch_unwind(AssertUnwindSafe(|| ending::request_stop(*reason)));
            std::mem::forget(asked);
            *returned.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
            returned.1.notify_one();
        });
    match asked {
        Ok(_) => {
            let lock = returned.0.lock().unwrap_or_else(PoisonError::into_inner);
            drop(returned.1.wait_timeout_while(lock, patience, |returned| !*returned));
        }
        Err(_) => ending::request_stop(reason),
    }
}
