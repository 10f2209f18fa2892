//! A worker, as itself sees it: a thread that answers one item after the other.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;

use process::ExitStatus;
use process::ring::{Bytes, Form, Listener, Reply};

use crate::bells::Bell;
use crate::sync::{Condvar, Mutex};

/// How a worker ends that nobody has told to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It does not.
    Lives,
    /// In the item after so many that it has answered.
    DiesAfter(u32),
}

thread_local! {
    /// Of this schedule's workers, in the order in which they start; those after these live.
    static FATES: RefCell<VecDeque<Fate>> = RefCell::default();
}

/// Says how the workers end that start from here on.
pub fn set_fates(fates: &[Fate]) {
    FATES.set(fates.iter().copied().collect());
}

pub(crate) fn next_fate() -> Fate {
    FATES.with_borrow_mut(|fates| fates.pop_front().unwrap_or(Fate::Lives))
}

/// A call that lies in a ring.
pub(crate) struct Laid {
    pub(crate) id: u64,
    pub(crate) begun: u32,
    /// Where it ends, which may be taken back.
    pub(crate) end: u32,
}

/// What it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Told {
    Nothing,
    /// To end when it has nothing left to do.
    Finish,
    /// To end after what it does.
    Stop,
    /// To end in what it does.
    Abandon,
}

/// What lies between a worker and its pool; that the ring loses none of it is shown of that itself.
pub(crate) struct Between {
    /// All there ever were, by ticket.
    pub(crate) calls: Vec<Laid>,
    /// How many of these the worker has left behind.
    pub(crate) passed: usize,
    pub(crate) replies: VecDeque<Reply>,
    pub(crate) written: u32,
    pub(crate) read: u32,
    /// Who is to be told, and from the how manieth answer on.
    pub(crate) bell: Option<(Listener, u32)>,
    pub(crate) told: Told,
    pub(crate) is_up: bool,
    pub(crate) end: Option<ExitStatus>,
}

/// Both ends of it.
pub(crate) struct Ends {
    pub(crate) between: Mutex<Between>,
    /// Wakes the worker.
    pub(crate) work: Condvar,
    pub(crate) doorbell: Bell,
    pub(crate) socket: Bell,
    /// Rings when it has ended, and is never silenced.
    pub(crate) pidfd: Bell,
}

impl Ends {
    pub(crate) fn new() -> Self {
        let between = Between {
            calls: Vec::new(),
            passed: 0,
            replies: VecDeque::new(),
            written: 0,
            read: 0,
            bell: None,
            told: Told::Nothing,
            is_up: false,
            end: None,
        };
        let between = Mutex::new(between);
        Self {
            between,
            work: Condvar::new(),
            doorbell: Bell::new(),
            socket: Bell::new(),
            pidfd: Bell::new(),
        }
    }

    fn ring(&self, due: Option<(Listener, u32)>) {
        match due {
            Some((Listener::Doorbell, _)) => self.doorbell.ring(),
            Some((Listener::Socket, _)) => self.socket.ring(),
            None => {}
        }
    }

    /// Begins an item: of which call, and which of its items. None when it is to end.
    fn begin(&self) -> Option<(usize, u32)> {
        let (mut between, mut has_told) = (self.between.lock().unwrap(), false);
        loop {
            if matches!(between.told, Told::Stop | Told::Abandon) {
                return None;
            }
            while between.passed < between.calls.len() {
                let position = between.passed;
                let call = &mut between.calls[position];
                if call.begun < call.end {
                    call.begun += 1;
                    return Some((position, call.begun - 1));
                }
                between.passed += 1;
                // There is room: who was told that there is nothing to do was not told of that.
                has_told = false;
            }
            if between.told == Told::Finish {
                return None;
            }
            // It has nothing left to do, which it tells as well: once, before it sleeps.
            if !has_told {
                let due = between.bell.take();
                drop(between);
                self.ring(due);
                between = self.between.lock().unwrap();
            } else {
                between = self.work.wait(between).unwrap();
            }
            has_told = !has_told;
        }
    }

    fn answer(&self, position: usize, item: u32) {
        let mut between = self.between.lock().unwrap();
        let id = between.calls[position].id;
        let (form, bytes) = (Form::Framed, Bytes::new());
        between.replies.push_back(Reply { id, first: item, count: 1, nanos: 1, form, bytes });
        between.written += 1;
        let written = between.written;
        let due = between.bell.take_if(|(_, after)| written >= *after);
        drop(between);
        self.ring(due);
    }
}

/// Works until it is told to end, or to its fate.
pub(crate) fn work(ends: &Arc<Ends>, fate: Fate) {
    ends.between.lock().unwrap().is_up = true;
    ends.socket.ring();
    let mut answered = 0;
    let mut status = ExitStatus::Exited(0);
    while let Some((position, item)) = ends.begin() {
        if fate == Fate::DiesAfter(answered) {
            status = ExitStatus::Signaled { signal: 9, core_dumped: false };
            break;
        }
        if ends.between.lock().unwrap().told == Told::Abandon {
            break;
        }
        ends.answer(position, item);
        answered += 1;
    }
    ends.between.lock().unwrap().end = Some(status);
    ends.pidfd.ring();
}
