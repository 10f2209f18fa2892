//! What becomes of the calls of a worker that has ended.

use epilogue_process::wire::Wire;
use epilogue_process::{ExitStatus, Rung};

use super::{Member, Sent};
use crate::call::Call;
use crate::error::{TaskError, WorkerLost};
use crate::report::WorkerReport;

/// What is left of a worker that has ended.
#[derive(Debug)]
pub(crate) struct Buried {
    /// What it never began.
    pub(crate) unbegun: Vec<Call>,
    /// What it began, and is to be begun again.
    pub(crate) again: Vec<Call>,
    pub(crate) report: WorkerReport,
}

impl Member {
    /// It has ended: the tasks that it never began come back, and those that may be begun again.
    /// The others have their outcome.
    pub(crate) fn bury(
        mut self,
        status: ExitStatus,
        stopping: bool,
        mut number: impl FnMut() -> u64,
    ) -> Buried {
        let (mut unbegun, mut again) = (Vec::new(), Vec::new());
        for Sent { mut call, ticket } in std::mem::take(&mut self.in_flight) {
            let (begun, first) = (self.child.wire().begun(ticket, call.count()), call.answered());
            // Items are claimed several at a time, and answered one by one: after the last answer
            // one can have run. Not so if its answers were not believed.
            let running = begun.min(if self.child.is_trusted() { first + 1 } else { begun });
            unbegun.extend(call.split_off(running, number()));
            if call.left() == 0 {
                continue;
            }
            if call.is_traced() {
                call.begun(self.child.wire().began(ticket));
            }
            let error = match (call.verdict(), stopping) {
                (Some(verdict), _) => verdict.into(),
                (None, true) => TaskError::Cancelled { begun: true },
                (None, false) => match call.lost(self.loss(status), number()) {
                    Ok(rest) => {
                        again.push(rest);
                        continue;
                    }
                    Err(error) => error,
                },
            };
            self.fail(call, error);
        }
        let report = WorkerReport {
            name: self.child.name().to_owned(),
            pid: self.child.id(),
            end: self.child.end(),
            done: self.done,
            lost: self.lost,
            cancelled: self.cancelled,
            timed_out: self.timed_out,
            retried: again.iter().map(|call| call.left() as u64).sum(),
            detail: self.detail,
        };
        Buried { unbegun, again, report }
    }

    /// Gives the tasks of a call that it had begun this outcome, and counts them.
    fn fail(&mut self, call: Call, error: TaskError) {
        let counter = match error {
            TaskError::TimedOut => &mut self.timed_out,
            TaskError::Cancelled { .. } => &mut self.cancelled,
            _ => &mut self.lost,
        };
        *counter += call.fail(error) as u64;
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
