//! The supervisor: the one thread of a pool that starts, feeds, watches and ends its workers.
//!
//! It moves bytes and runs nobody's code, so nothing that a task or a caller does can block it. It
//! is told what to do by commands, sleeps until a command, a worker or a deadline wakes it, and an
//! idle pool wakes it never.
//!
//! # Invariants
//!
//! 1. A call is in the queue, or with one worker, or has its outcome.
//! 2. A worker's death touches the one call that it had begun.
//! 3. When the thread has ended, every worker has been reaped.

use std::collections::{HashMap, VecDeque};
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use epilogue_process::StartError;
use epilogue_process::child::{Event, Spec, Work, wait_for};
use epilogue_process::parcel::Parcel;
use nix::poll::{PollFd, PollFlags};
use nix::sys::signal::SigSet;
use std::os::fd::AsFd;

use crate::bell::Bell;
use crate::builder::Builder;
use crate::call::Call;
use crate::error::{Refusal, TaskError};
use crate::hiring::Hiring;
use crate::member::{Member, Standing};
use crate::report::Report;

/// What the supervisor can be asked to do.
#[derive(Debug)]
pub(crate) enum Command {
    /// Do this call.
    Submit(Call),
    /// Keep a state that later calls borrow.
    Share { id: u64, encoded: Parcel },
    /// No call will borrow that state any more.
    Forget { id: u64 },
    /// Cancel the calls of this job that have not begun.
    Cancel { job: u64 },
    /// Finish what was submitted, then end.
    Close,
    /// End within the grace period, or within `limit` if that is shorter.
    Terminate { limit: Option<Duration>, work: Work },
}

/// How far a pool is on its way down. Phases only ever move forward.
#[derive(Debug)]
enum Phase {
    /// No worker is up yet, and somebody waits to hear of the first.
    Starting(Sender<Result<(), StartError>>),
    Running,
    /// No new calls: those that there are get done.
    Draining,
    /// No calls at all: the workers are on the ladder.
    Stopping,
}

pub(crate) struct Supervisor {
    spec: Spec,
    wanted: usize,
    commands: Receiver<Command>,
    bell: Arc<Bell>,
    closed: Arc<OnceLock<Refusal>>,
    phase: Phase,
    members: Vec<Member>,
    queue: VecDeque<Call>,
    states: HashMap<u64, Parcel>,
    report: Report,
    hired: u64,
    hiring: Hiring,
}

impl Supervisor {
    pub(crate) fn new(
        builder: Builder,
        commands: Receiver<Command>,
        bell: Arc<Bell>,
        closed: Arc<OnceLock<Refusal>>,
        started: Sender<Result<(), StartError>>,
    ) -> Self {
        Self {
            report: Report::new(builder.spec.name.clone()),
            spec: builder.spec,
            wanted: builder.workers,
            commands,
            bell,
            closed,
            phase: Phase::Starting(started),
            members: Vec::new(),
            queue: VecDeque::new(),
            states: HashMap::new(),
            hired: 0,
            hiring: Hiring::default(),
        }
    }

    /// Runs the pool until it has ended, and leaves word if that was by a panic.
    pub(crate) fn watch(self) -> Report {
        let closed = Arc::clone(&self.closed);
        // What a panic leaves half-done is dropped with the supervisor: its workers are killed.
        panic::catch_unwind(AssertUnwindSafe(|| self.run())).unwrap_or_else(|payload| {
            let cause = "the pool's own thread panicked".to_owned();
            let _ = closed.set(Refusal::Broken { cause });
            panic::resume_unwind(payload)
        })
    }

    fn run(mut self) -> Report {
        // The program's signal handlers have nothing to do on this thread.
        let _ = SigSet::all().thread_block();
        loop {
            self.hire();
            self.dispatch();
            // After hiring: if that has failed for good, nothing would end the sleep.
            if self.is_over() {
                return self.report;
            }
            self.members.iter_mut().for_each(|member| member.child.flush());
            self.sleep();
            self.obey();
        }
    }

    fn is_over(&self) -> bool {
        match self.phase {
            Phase::Starting(_) | Phase::Running => false,
            Phase::Draining => self.members.is_empty() && self.queue.is_empty(),
            Phase::Stopping => self.members.is_empty(),
        }
    }

    // Commands.

    fn obey(&mut self) {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Submit(call) => self.enqueue(call),
                Command::Share { id, encoded } => drop(self.states.insert(id, encoded)),
                Command::Forget { id } => {
                    self.states.remove(&id);
                    self.members.iter_mut().for_each(|member| member.forget(id));
                }
                Command::Cancel { job } => self.cancel(job),
                Command::Close => {
                    if let Phase::Starting(_) | Phase::Running = self.phase {
                        self.phase = Phase::Draining;
                    }
                }
                Command::Terminate { limit, work } => self.stop(limit, work),
            }
        }
    }

    fn enqueue(&mut self, call: Call) {
        match (&self.phase, self.closed.get()) {
            // It came after the queue was emptied for good.
            (Phase::Stopping, Some(refusal @ Refusal::Broken { .. })) => {
                call.resolve(Err(refusal.clone().into()));
            }
            (Phase::Stopping, _) => self.drop_call(call),
            // A call that comes while the pool closes was submitted before that.
            (Phase::Starting(_) | Phase::Running | Phase::Draining, _) => {
                self.queue.push_back(call);
            }
        }
    }

    fn drop_call(&mut self, call: Call) {
        self.report.cancelled += 1;
        call.resolve(Err(TaskError::Cancelled { begun: false }));
    }

    fn cancel(&mut self, job: u64) {
        let (cancelled, kept) = self.queue.drain(..).partition::<Vec<_>, _>(|call| call.job == job);
        self.queue = kept.into();
        let taken = self.members.iter_mut().flat_map(|member| member.take_back_job(job));
        let cancelled: Vec<_> = cancelled.into_iter().chain(taken).collect();
        cancelled.into_iter().for_each(|call| self.drop_call(call));
    }

    fn stop(&mut self, limit: Option<Duration>, work: Work) {
        self.phase = Phase::Stopping;
        let taken = self.members.iter_mut().flat_map(|member| member.stop(limit, work));
        let unbegun: Vec<_> = self.queue.drain(..).chain(taken.collect::<Vec<_>>()).collect();
        unbegun.into_iter().for_each(|call| self.drop_call(call));
    }

    // Work.

    fn dispatch(&mut self) {
        while let Some(next) = self.queue.front() {
            let free = self.members.iter_mut().filter(|member| member.has_room(next));
            let Some(member) = free.min_by_key(|member| member.load()) else { return };
            if let Some(call) = self.queue.pop_front() {
                send(&self.states, member, call);
            }
        }
        self.level();
        if let Phase::Draining = self.phase {
            let idle = self.members.iter_mut().filter(|member| member.is_idle());
            idle.for_each(Member::finish);
        }
    }

    /// Gives workers that have nothing to do a half of what the busiest has not begun.
    fn level(&mut self) {
        while let Some(idle) = self.members.iter().position(Member::is_idle) {
            let busiest = (0..self.members.len()).max_by_key(|&other| self.members[other].load());
            let Some(busiest) = busiest.filter(|&other| self.members[other].load() > 1) else {
                return;
            };
            let share = self.members[busiest].load() / 2;
            let taken: Vec<_> =
                std::iter::from_fn(|| self.members[busiest].take_back()).take(share).collect();
            if taken.is_empty() {
                return;
            }
            for call in taken.into_iter().rev() {
                send(&self.states, &mut self.members[idle], call);
            }
        }
    }

    // Workers.

    /// Starts the workers that are missing.
    fn hire(&mut self) {
        let wanted = match self.phase {
            Phase::Starting(_) | Phase::Running => self.wanted,
            // The last calls need somebody, if those who had them have died.
            Phase::Draining => self.queue.len().min(self.wanted),
            Phase::Stopping => 0,
        };
        let staying = self.members.iter().filter(|member| member.stays()).count();
        let mut missing = wanted.saturating_sub(staying);
        while missing > 0 && self.hiring.is_allowed(Instant::now()) {
            self.hired += 1;
            match Member::start(&self.spec, self.hired) {
                Ok(member) => self.members.push(member),
                Err(error) => return self.hiring_failed(error),
            }
            missing -= 1;
        }
    }

    /// A worker ended without having done anything, or could not be started at all.
    fn hiring_failed(&mut self, error: StartError) {
        let cause = error.to_string();
        if let Phase::Starting(started) = &self.phase {
            // Nobody waits for the first worker only if the caller is gone.
            let _ = started.send(Err(error));
            // They stay until they are reaped: several may have ended at once, to be buried yet.
            self.members.iter_mut().for_each(|member| member.child.kill());
            return self.give_up(cause);
        }
        let alone = !self.members.iter().any(|member| member.standing == Standing::Serving);
        if self.hiring.failed(Instant::now(), self.wanted) && alone {
            self.give_up(cause);
        }
    }

    fn give_up(&mut self, cause: String) {
        let refusal = Refusal::Broken { cause: cause.clone() };
        let _ = self.closed.set(refusal.clone());
        self.report.broken = Some(cause);
        for call in self.queue.drain(..) {
            call.resolve(Err(refusal.clone().into()));
        }
        self.stop(None, Work::Finish);
    }

    // Waiting.

    fn sleep(&mut self) {
        self.bell.sleepy();
        if !self.commands.is_empty() {
            self.bell.awake();
            return;
        }
        let due = self.members.iter().filter_map(|member| member.child.due());
        let due = due.chain(self.hiring.retry_at()).min();
        let mut fds = vec![PollFd::new(self.bell.as_fd(), PollFlags::POLLIN)];
        let mut owners = vec![];
        for (owner, member) in self.members.iter().enumerate() {
            let [wire, pidfd] = member.child.interest();
            fds.extend(wire.into_iter().inspect(|_| owners.push((owner, Source::Wire))));
            fds.extend(pidfd.into_iter().inspect(|_| owners.push((owner, Source::Pidfd))));
        }
        let is_known = wait_for(&mut fds, due);
        let ready = fds.iter().skip(1).zip(owners);
        let ready: Vec<_> = ready
            .filter(|(fd, _)| !is_known || fd.any().unwrap_or(true))
            .map(|(_, (owner, source))| (owner, source))
            .collect();
        self.bell.awake();
        self.look_after(&ready);
    }

    fn look_after(&mut self, ready: &[(usize, Source)]) {
        for &(owner, source) in ready {
            if let Source::Pidfd = source {
                self.members[owner].child.reap();
            }
        }
        let now = Instant::now();
        let mut ended = Vec::new();
        for owner in 0..self.members.len() {
            self.members[owner].child.tick(now);
            if !ready.iter().any(|&(other, _)| other == owner) {
                continue;
            }
            while let Some(event) = self.members[owner].child.event() {
                if let Event::Ended(status) = event {
                    ended.push((owner, status));
                } else {
                    self.handle(owner, event);
                }
            }
            self.requeue_unreachable(owner);
        }
        // From the back, so that the positions of the others still hold.
        for (owner, status) in ended.into_iter().rev() {
            self.bury(owner, status);
        }
    }

    /// A worker that closed its wire may live on for the whole grace period. What it has not
    /// begun does not wait for its end.
    fn requeue_unreachable(&mut self, owner: usize) {
        let member = &mut self.members[owner];
        if member.standing != Standing::Leaving && !member.child.is_connected() {
            while let Some(call) = member.take_back() {
                self.queue.push_front(call);
            }
        }
    }

    fn handle(&mut self, owner: usize, event: Event) {
        let member = &mut self.members[owner];
        match event {
            Event::Hello => {
                if member.standing == Standing::Starting {
                    member.standing = Standing::Serving;
                }
                if let Phase::Starting(started) = &self.phase {
                    let _ = started.send(Ok(()));
                    self.phase = Phase::Running;
                }
            }
            Event::Refused(refusal) => member.refusal = Some(refusal),
            Event::Reply { id, payload } => match member.answered(id) {
                Some(call) => {
                    self.report.done += 1;
                    self.hiring.succeeded();
                    call.resolve(Ok(payload));
                }
                None => {
                    member.detail = Some("it answered a call that it did not have".to_owned());
                    member.child.kill();
                }
            },
            Event::Begun { id } => member.begun(id),
            Event::Broken(error) => member.detail = Some(error.to_string()),
            _ => {}
        }
    }

    fn bury(&mut self, owner: usize, status: epilogue_process::ExitStatus) {
        let mut member = self.members.remove(owner);
        let stopping = matches!(self.phase, Phase::Stopping);
        let left = member.standing == Standing::Leaving;
        let was_up = member.standing != Standing::Starting;
        let start_error = (!was_up).then(|| {
            let refusal = member.refusal.take();
            member.child.start_error(refusal, status)
        });
        let error = start_error.unwrap_or(StartError::EndedEarly { status });
        let (unbegun, report) = member.bury(status, stopping);
        let productive = report.done + report.lost > 0;
        self.report.push(report);
        if stopping {
            unbegun.into_iter().for_each(|call| self.drop_call(call));
            return;
        }
        // They go first: they were submitted before all that waits.
        unbegun.into_iter().rev().for_each(|call| self.queue.push_front(call));
        if !left && !productive {
            self.hiring_failed(error);
        }
    }
}

/// Which descriptor of a worker became ready.
#[derive(Debug, Clone, Copy)]
enum Source {
    Wire,
    Pidfd,
}

/// Sends a call to a worker, after the state that it borrows if the worker has not got that.
fn send(states: &HashMap<u64, Parcel>, member: &mut Member, call: Call) {
    if let Some(encoded) = states.get(&call.state).filter(|_| !member.knows(call.state))
        && member.share(call.state, encoded).is_err()
    {
        return call.resolve(Err(Refusal::BytesOnly.into()));
    }
    member.send(call);
}
