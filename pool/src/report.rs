//! The proof of how a pool ended.

use std::fmt;

use epilogue_process::{End, Usage};

use crate::stall::Stall;

/// How a pool ended: every worker's end, and what became of the tasks. Those that it refused, since
/// it had given up, say, are in none of the counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
#[must_use = "a report says whether every worker ended well"]
pub struct Report {
    /// The pool's name.
    pub name: String,
    /// How each worker ended, in the order of their ends; those who were replaced come first.
    pub workers: Vec<WorkerReport>,
    /// How many more workers had ended than are listed: the list holds the last thousand.
    pub omitted: u64,
    /// How many workers did not exit with code 0, those included that are not listed.
    pub failed: u64,
    /// What all workers together have used of the CPU, and the most memory that one of them had.
    pub usage: Usage,
    /// Tasks that a worker answered in time: with a value, or with an error such as a panic.
    pub done: u64,
    /// Tasks that were lost with their worker.
    pub lost: u64,
    /// Tasks that were cancelled.
    pub cancelled: u64,
    /// Tasks that took longer than they were allowed to, or waited longer.
    pub timed_out: u64,
    /// How often a task was begun again, because its worker had died during it.
    pub retried: u64,
    /// Workers that had something to do, and did not get on with it; the first hundred.
    pub stalls: Vec<Stall>,
    /// Why the pool gave up, if it did.
    pub broken: Option<String>,
}

/// How one worker ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerReport {
    /// Its name.
    pub name: String,
    /// The process id that it had.
    pub pid: u32,
    /// Its exit status, how far it had to be pushed, and which finalizers ran.
    pub end: End,
    /// Tasks that it answered in time: with a value, or with an error such as a panic.
    pub done: u64,
    /// Tasks that were lost with it.
    pub lost: u64,
    /// Tasks that it had begun, and that were cancelled.
    pub cancelled: u64,
    /// Tasks that took longer than they were allowed to: it was ended for the last of them.
    pub timed_out: u64,
    /// Tasks that it had begun as it died, and that were begun again in another one.
    pub retried: u64,
    /// What else is known, such as that it broke the protocol.
    pub detail: Option<String>,
}

impl Report {
    /// The most workers that are listed. A pool that replaces them may go through any number.
    const MAX_LISTED: usize = 1000;
    /// The most stalls that are listed. A pool may go on for years, in which many are not news.
    const MAX_STALLS: usize = 100;

    pub(crate) fn new(name: String) -> Self {
        Self { name, ..Self::default() }
    }

    pub(crate) fn push(&mut self, worker: WorkerReport) {
        self.lost += worker.lost;
        self.cancelled += worker.cancelled;
        self.failed += u64::from(!worker.end.success());
        self.usage.add(&worker.end.usage.unwrap_or_default());
        self.timed_out += worker.timed_out;
        self.retried += worker.retried;
        self.workers.push(worker);
        // Many at once: a pool that replaces each worker after one task has one for each.
        if self.workers.len() >= 2 * Self::MAX_LISTED {
            self.omit();
        }
    }

    pub(crate) fn push_stall(&mut self, stall: Stall) {
        if self.stalls.len() < Self::MAX_STALLS {
            self.stalls.push(stall);
        }
    }

    /// The list as it is handed out.
    pub(crate) fn finished(mut self) -> Self {
        self.omit();
        self
    }

    /// The last ends tell more about how a pool ended than the first.
    fn omit(&mut self) {
        let surplus = self.workers.len().saturating_sub(Self::MAX_LISTED);
        self.workers.drain(..surplus);
        self.omitted += surplus as u64;
    }

    /// Whether every worker exited with code 0, and no task was lost. Tasks that were cancelled,
    /// took or waited too long, or were refused do not count; nor do workers that were ended for
    /// such a task, if they left in time; nor, by itself, that the pool [gave up](Report::broken).
    pub fn is_clean(&self) -> bool {
        self.failed == 0 && self.lost == 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, done, lost, cancelled, .. } = self;
        write!(f, "pool {name}: {done} tasks done, {lost} lost, {cancelled} cancelled")?;
        if self.timed_out > 0 {
            write!(f, ", {} timed out", self.timed_out)?;
        }
        if self.retried > 0 {
            write!(f, ", {} tried again", self.retried)?;
        }
        if let Some(cause) = &self.broken {
            write!(f, "\n  gave up: {cause}")?;
        }
        if self.omitted > 0 {
            let Self { omitted, failed, usage, .. } = self;
            write!(
                f,
                "\n  {omitted} earlier workers are not listed; of all, {failed} did not exit"
            )?;
            write!(f, " with code 0; together: {usage}")?;
        }
        self.stalls.iter().try_for_each(|stall| write!(f, "\n  {stall}"))?;
        self.workers.iter().try_for_each(|worker| write!(f, "\n  {worker}"))
    }
}

impl fmt::Display for WorkerReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, pid, end, done, .. } = self;
        write!(f, "{name} (pid {pid}): {}, {}, {done} tasks done", end.rung, end.status)?;
        if self.lost > 0 {
            write!(f, ", {} lost", self.lost)?;
        }
        if self.cancelled > 0 {
            write!(f, ", {} cancelled", self.cancelled)?;
        }
        if self.timed_out > 0 {
            write!(f, ", {} timed out", self.timed_out)?;
        }
        if self.retried > 0 {
            write!(f, ", {} tried again", self.retried)?;
        }
        if end.out_of_memory {
            f.write_str(", out of memory")?;
        }
        if let Some(usage) = end.usage {
            write!(f, "; {usage}")?;
        }
        match end.finalizers.as_deref() {
            None => f.write_str("; it could not tell which finalizers ran")?,
            Some([]) => {}
            Some(finalizers) => {
                f.write_str("; finalizers: ")?;
                for (position, finalizer) in finalizers.iter().enumerate() {
                    let comma = if position == 0 { "" } else { ", " };
                    write!(f, "{comma}{finalizer}")?;
                }
            }
        }
        match &self.detail {
            Some(detail) => write!(f, "; {detail}"),
            None => Ok(()),
        }
    }
}
