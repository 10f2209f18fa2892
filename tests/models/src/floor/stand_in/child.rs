//! A child that is a thread, as its pool sees it.

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use process::child::{Event, Original, Spec, Work, this_process};
use process::link::Link;
use process::parcel::Parcel;
use process::{ExitStatus, Finalizer, Refusal, Rung, SandboxLevel, StartError, TreeEnd, Usage};
use shuttle::thread;

pub use crate::bells::child::wait_for;
use crate::bells::poll::{PollFd, PollFlags};
use crate::far::{Between, Ends, Laid, Told, next_fate, work};
use crate::ring::{Listener, Ticket};
use crate::sync::MutexGuard;
use crate::taken_out::{Break, is_broken};
use crate::wire::{Wire, WireError};

/// As the real one, which only `process` can make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    pub status: ExitStatus,
    pub rung: Rung,
    pub out_of_memory: bool,
    pub usage: Option<Usage>,
    pub tree: Option<TreeEnd>,
    pub sandbox: Option<SandboxLevel>,
    pub finalizers: Option<Vec<Finalizer>>,
}

impl End {
    pub fn success(&self) -> bool {
        self.status.success()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Running,
    Reaped(ExitStatus),
    Told(ExitStatus),
}

#[derive(Debug)]
pub struct Child {
    line: Line,
    name: String,
    /// Whether it has said that it is up.
    is_up: bool,
    wire_open: bool,
    life: Life,
}

#[derive(Debug)]
pub struct Watch {
    line: Line,
    wire_open: bool,
    is_running: bool,
}

impl Watch {
    pub fn wire(&self) -> Option<PollFd<'_>> {
        self.wire_open.then(|| PollFd::new(self.line.0.socket.as_fd(), PollFlags::POLLIN))
    }

    pub fn pidfd(&self) -> Option<PollFd<'_>> {
        self.is_running.then(|| PollFd::new(self.line.0.pidfd.as_fd(), PollFlags::POLLIN))
    }

    pub fn without_wire(self) -> Self {
        Self { wire_open: false, ..self }
    }
}

impl Child {
    pub fn start(spec: &Spec, _: fn(Link)) -> Result<Self, StartError> {
        let (ends, fate) = (Arc::new(Ends::new()), next_fate());
        let line = Line(Arc::clone(&ends));
        thread::spawn(move || work(&ends, fate));
        let name = spec.name.clone();
        Ok(Self { line, name, is_up: false, wire_open: true, life: Life::Running })
    }

    pub fn id(&self) -> u32 {
        0
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn wire(&mut self) -> &mut Line {
        &mut self.line
    }

    pub fn doorbell(&self) -> Option<&Arc<OwnedFd>> {
        Some(&self.line.0.doorbell.0)
    }

    pub fn watch(&self) -> Watch {
        let (wire_open, is_running) = (self.wire_open, self.life == Life::Running);
        Watch { line: self.line.clone(), wire_open, is_running }
    }

    pub fn has_more(&self) -> bool {
        false
    }

    pub fn is_connected(&self) -> bool {
        self.wire_open && !self.has_ended()
    }

    pub fn has_ended(&self) -> bool {
        self.life != Life::Running
    }

    pub fn is_trusted(&self) -> bool {
        true
    }

    /// None here breaks the protocol.
    pub fn distrust(&mut self, error: WireError) -> Event {
        panic!("{error}")
    }

    pub fn answers(&mut self) -> Option<Event> {
        if let Life::Told(_) = self.life {
            return None;
        }
        let mut between = self.line.lock();
        let reply = between.replies.pop_front()?;
        between.read += 1;
        Some(Event::Answers(reply))
    }

    pub fn event(&mut self) -> Option<Event> {
        if let Some(event) = self.answers() {
            return Some(event);
        }
        // Before what it says is looked at: it rings when it has said more.
        crate::bell::silence(self.line.0.socket.as_fd());
        let (is_up, has_ended) = {
            let between = self.line.lock();
            (between.is_up, between.end.is_some())
        };
        if self.wire_open && is_up && !std::mem::replace(&mut self.is_up, true) {
            return Some(Event::Hello);
        }
        self.wire_open &= !has_ended;
        match self.life {
            Life::Reaped(status) => {
                if let Some(event) = self.answers() {
                    return Some(event);
                }
                self.life = Life::Told(status);
                Some(Event::Ended(status))
            }
            Life::Running | Life::Told(_) => None,
        }
    }

    pub fn reap(&mut self) {
        if let (Life::Running, Some(status)) = (self.life, self.line.lock().end) {
            self.life = Life::Reaped(status);
        }
    }

    pub fn finish(&mut self) {
        self.line.tell(Told::Finish);
    }

    pub fn stop(&mut self, _: Option<Duration>, work: Work) {
        self.line.tell(match work {
            Work::Finish => Told::Stop,
            Work::Abandon => Told::Abandon,
        });
    }

    pub fn end(&self) -> End {
        let status = match self.life {
            Life::Running => ExitStatus::Unknown,
            Life::Reaped(status) | Life::Told(status) => status,
        };
        let (rung, out_of_memory) = (Rung::Finish, false);
        End {
            status,
            rung,
            out_of_memory,
            usage: None,
            tree: None,
            sandbox: None,
            finalizers: None,
        }
    }

    /// Nothing is on its way for long.
    pub fn is_flushed(&self) -> bool {
        true
    }

    pub fn is_sending(&self) -> bool {
        false
    }

    pub fn flush(&mut self) {}

    pub fn drained(&mut self) {}

    /// Time does not pass here.
    pub fn due(&self) -> Option<Instant> {
        None
    }

    pub fn tick(&mut self, _: Instant) {}

    pub fn resume(&self) {}

    pub fn was_continued(&self) -> bool {
        false
    }

    pub fn start_error(&self, _: Option<Refusal>, status: ExitStatus) -> StartError {
        StartError::EndedEarly { status }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.line.tell(Told::Abandon);
    }
}

/// Its wire.
#[derive(Clone)]
pub struct Line(Arc<Ends>);

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Line")
    }
}

impl Line {
    /// How many calls fit into its ring, those included that were taken back.
    const ROOM: usize = 2;

    fn lock(&self) -> MutexGuard<'_, Between> {
        self.0.between.lock().unwrap()
    }

    fn tell(&self, told: Told) {
        let mut between = self.lock();
        between.told = between.told.max(told);
        self.0.work.notify_one();
    }

    pub fn began(&self, _: Ticket) -> Option<Duration> {
        None
    }

    pub fn running_for(&self) -> Duration {
        Duration::ZERO
    }

    pub fn ask_to_stop(&self, _: u64) {}

    pub fn made_room(&self) {}

    pub fn listen(&mut self, listener: Listener, records: u32) {
        let mut between = self.lock();
        let after = between.read + records;
        between.bell = (!is_broken(Break::Listen)).then_some((listener, after));
    }

    pub fn stop_listening(&mut self) {
        self.lock().bell = None;
    }

    pub fn is_listening(&self) -> bool {
        self.lock().bell.is_some()
    }

    pub fn has_reply(&self) -> bool {
        !self.lock().replies.is_empty() && !is_broken(Break::Look)
    }
}

impl Wire for Line {
    fn has_room(&mut self, _: usize) -> Result<bool, WireError> {
        let between = self.lock();
        Ok(between.calls.len() - between.passed < Self::ROOM)
    }

    fn call(&mut self, id: u64, count: u32, _: &Parcel) -> Result<Ticket, WireError> {
        let mut between = self.lock();
        between.calls.push(Laid { id, begun: 0, end: count });
        self.0.work.notify_one();
        Ok(Ticket(between.calls.len() - 1))
    }

    fn revoke(&mut self, ticket: Ticket, _: u32) -> bool {
        let mut between = self.lock();
        let call = &mut between.calls[ticket.0];
        let is_unbegun = call.begun == 0;
        if is_unbegun {
            call.end = 0;
        }
        is_unbegun
    }

    fn shorten(&mut self, ticket: Ticket, _: u32, keep: &dyn Fn(u32) -> u32) -> u32 {
        let mut between = self.lock();
        let call = &mut between.calls[ticket.0];
        call.end = call.begun + keep(call.end - call.begun);
        call.end
    }

    fn begun(&self, ticket: Ticket, _: u32) -> u32 {
        self.lock().calls[ticket.0].begun
    }

    fn share(&mut self, _: u64, _: &Parcel) -> Result<(), WireError> {
        Ok(())
    }

    fn forget(&mut self, _: u64) {}
}
