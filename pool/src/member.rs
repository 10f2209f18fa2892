//! One worker as the supervisor sees it: a child, and the calls that it was sent.

use std::collections::{HashSet, VecDeque};

use epilogue_process::child::{Child, Spec, Work};
use epilogue_process::parcel::Parcel;
use epilogue_process::wire::{Kind, WireError};
use epilogue_process::{ExitStatus, Refusal as StartRefusal, Rung, StartError};
use std::time::Duration;

use crate::call::Call;
use crate::error::{Refusal, TaskError, WorkerLost};
use crate::report::WorkerReport;
use crate::worker::serve;

/// How far a worker is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Started, and not yet up.
    Starting,
    /// Up, and taking calls.
    Serving,
    /// Told to end. It takes no more calls.
    Leaving,
}

/// One worker.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) child: Child,
    pub(crate) standing: Standing,
    /// Calls that it was sent and has not answered, in the order in which it takes them.
    in_flight: VecDeque<Call>,
    bytes: usize,
    /// The states that it has.
    states: HashSet<u64>,
    /// Why it could not start, if it said so.
    pub(crate) refusal: Option<StartRefusal>,
    /// What else is to be said of its end.
    pub(crate) detail: Option<String>,
    pub(crate) done: u64,
    lost: u64,
    cancelled: u64,
}

impl Member {
    /// How many calls a worker is sent ahead of the one that it runs. Enough that it does not wait
    /// for the next, and few enough that those who wait can still go to another.
    const AHEAD: usize = 16;
    /// How many bytes of calls it is sent, if there is more than one.
    const BYTES_AHEAD: usize = 1 << 20;

    pub(crate) fn start(spec: &Spec, number: u64) -> Result<Self, StartError> {
        let mut spec = spec.clone();
        spec.name = format!("{}-{number}", spec.name);
        Ok(Self {
            child: Child::start(&spec, serve)?,
            standing: Standing::Starting,
            in_flight: VecDeque::new(),
            bytes: 0,
            states: HashSet::new(),
            refusal: None,
            detail: None,
            done: 0,
            lost: 0,
            cancelled: 0,
        })
    }

    /// How many calls it has not answered.
    pub(crate) fn load(&self) -> usize {
        self.in_flight.len()
    }

    /// Whether it takes calls, or will.
    pub(crate) fn stays(&self) -> bool {
        self.standing != Standing::Leaving && self.child.is_connected()
    }

    /// Whether it can be sent this call.
    pub(crate) fn has_room(&self, call: &Call) -> bool {
        // What is meant to have one owner is not sent ahead: it would lie with a worker that is
        // busy, and be open there while another one runs the call.
        let ahead = !call.payload.moves()
            && self.in_flight.len() <= Self::AHEAD
            && self.bytes < Self::BYTES_AHEAD;
        self.standing == Standing::Serving
            && self.child.is_connected()
            && (self.in_flight.is_empty() || ahead)
    }

    /// Whether it is up and has nothing to do.
    pub(crate) fn is_idle(&self) -> bool {
        self.standing == Standing::Serving && self.child.is_connected() && self.in_flight.is_empty()
    }

    /// Whether it has the state of that number.
    pub(crate) fn knows(&self, state: u64) -> bool {
        self.states.contains(&state)
    }

    /// Sends it a state that later calls borrow.
    pub(crate) fn share(&mut self, state: u64, encoded: &Parcel) -> Result<(), WireError> {
        self.child.wire().share(state, encoded)?;
        self.states.insert(state);
        Ok(())
    }

    /// Lets it drop a state.
    pub(crate) fn forget(&mut self, state: u64) {
        if self.states.remove(&state) {
            self.child.wire().send(Kind::Forget, state, &[]);
        }
    }

    /// Sends it a call.
    pub(crate) fn send(&mut self, call: Call) {
        if self.child.wire().call(call.id, &call.payload).is_err() {
            return call.resolve(Err(Refusal::BytesOnly.into()));
        }
        self.bytes += call.payload.bytes.len();
        self.in_flight.push_back(call);
    }

    /// It has begun a call, which will never go to another worker: the descriptors are its own.
    pub(crate) fn begun(&mut self, id: u64) {
        if let Some(call) = self.in_flight.iter_mut().find(|call| call.id == id) {
            drop(call.payload.take_descriptors());
        }
    }

    /// Takes back the last call that it has not begun, if there is one.
    pub(crate) fn take_back(&mut self) -> Option<Call> {
        let last = self.in_flight.back()?.id;
        if !self.child.wire().revoke(last) {
            return None;
        }
        self.forget_call(self.in_flight.len() - 1)
    }

    /// Takes back what it has not begun of one job.
    pub(crate) fn take_back_job(&mut self, job: u64) -> Vec<Call> {
        let mut taken = Vec::new();
        for position in (0..self.in_flight.len()).rev() {
            let call = &self.in_flight[position];
            if call.job == job && self.child.wire().revoke(call.id) {
                taken.extend(self.forget_call(position));
            }
        }
        taken
    }

    /// The call that it has answered, if it was asked.
    pub(crate) fn answered(&mut self, id: u64) -> Option<Call> {
        let position = self.in_flight.iter().position(|call| call.id == id)?;
        let call = self.forget_call(position);
        self.done += 1;
        call
    }

    fn forget_call(&mut self, position: usize) -> Option<Call> {
        let call = self.in_flight.remove(position)?;
        self.bytes -= call.payload.bytes.len();
        Some(call)
    }

    /// Lets it end: it has nothing left to do.
    pub(crate) fn finish(&mut self) {
        self.standing = Standing::Leaving;
        self.child.finish();
        self.child.drained();
    }

    /// Stops it within the grace period, or `limit`; gives back what it has not begun.
    pub(crate) fn stop(&mut self, limit: Option<Duration>, work: Work) -> Vec<Call> {
        self.standing = Standing::Leaving;
        let mut taken = Vec::new();
        while let Some(call) = self.take_back() {
            taken.push(call);
        }
        self.child.stop(limit, work);
        taken
    }

    /// It has ended: the calls that it never began come back, the others have their outcome.
    pub(crate) fn bury(mut self, status: ExitStatus, stopping: bool) -> (Vec<Call>, WorkerReport) {
        let mut unbegun = Vec::new();
        for call in std::mem::take(&mut self.in_flight) {
            if !self.child.wire().may_have_begun(call.id) {
                unbegun.push(call);
            } else if stopping {
                self.cancelled += 1;
                call.resolve(Err(TaskError::Cancelled { begun: true }));
            } else {
                self.lost += 1;
                call.resolve(Err(TaskError::WorkerLost(self.loss(status))));
            }
        }
        let report = WorkerReport {
            name: self.child.name().to_owned(),
            pid: self.child.id(),
            end: self.child.end(),
            done: self.done,
            lost: self.lost,
            cancelled: self.cancelled,
            detail: self.detail,
        };
        (unbegun, report)
    }

    fn loss(&self, status: ExitStatus) -> WorkerLost {
        // A kill that was not ours is the user's, or the kernel's that had no memory left.
        let end = self.child.end();
        let foreign = status.signal() == Some(9) && end.rung < Rung::Kill;
        let memory = foreign.then(|| match end.out_of_memory {
            true => "the kernel had no memory left for its cgroup".to_owned(),
            false => "somebody killed it, or memory had run out".to_owned(),
        });
        WorkerLost {
            worker: self.child.name().to_owned(),
            pid: self.child.id(),
            status,
            begun: true,
            detail: self.detail.clone().or(memory),
        }
    }
}
