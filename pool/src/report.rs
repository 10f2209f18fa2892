//! The proof of how a pool ended.

use std::fmt;

use epilogue_process::End;

/// How a pool ended: every worker's end, and what became of the tasks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
#[must_use = "a report says whether every worker ended well"]
pub struct Report {
    /// The pool's name.
    pub name: String,
    /// How each worker ended, in the order of their ends; those who were replaced come first.
    pub workers: Vec<WorkerReport>,
    /// How many more workers had ended than are listed: the list has a bound.
    pub omitted: u64,
    /// Tasks whose function ran to its end.
    pub done: u64,
    /// Tasks that were lost with their worker.
    pub lost: u64,
    /// Tasks that were cancelled.
    pub cancelled: u64,
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
    /// Tasks whose function ran to its end in it.
    pub done: u64,
    /// Tasks that were lost with it.
    pub lost: u64,
    /// Tasks that it had begun, and that were cancelled.
    pub cancelled: u64,
    /// What else is known, such as that it broke the protocol.
    pub detail: Option<String>,
}

impl Report {
    /// The most workers that are listed. A pool whose tasks kill their workers may go through any
    /// number of them.
    const MAX_LISTED: usize = 1000;

    pub(crate) fn new(name: String) -> Self {
        Self { name, ..Self::default() }
    }

    pub(crate) fn push(&mut self, worker: WorkerReport) {
        self.lost += worker.lost;
        self.cancelled += worker.cancelled;
        if self.workers.len() == Self::MAX_LISTED {
            // The last ends tell more about how a pool ended than the first.
            self.workers.remove(0);
            self.omitted += 1;
        }
        self.workers.push(worker);
    }

    /// Whether every worker exited with code 0, and no task was lost.
    pub fn is_clean(&self) -> bool {
        self.omitted == 0
            && self.lost == 0
            && self.workers.iter().all(|worker| worker.end.success())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, done, lost, cancelled, .. } = self;
        write!(f, "pool {name}: {done} tasks done, {lost} lost, {cancelled} cancelled")?;
        if let Some(cause) = &self.broken {
            write!(f, "\n  gave up: {cause}")?;
        }
        if self.omitted > 0 {
            write!(f, "\n  {} earlier workers are not listed", self.omitted)?;
        }
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
        if end.out_of_memory {
            f.write_str(", out of memory")?;
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
