//! The supervisor: the one thread of a pool that starts, watches and ends its workers.
//!
//! It runs nobody's code, so nothing that a task or a caller does can block it. It sleeps until a
//! caller, a worker or a deadline wakes it, and an idle pool wakes it never. When the thread has
//! ended, every worker has been reaped.

use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::Instant;

use epilogue_process::child::{Spec, Watch, wait_for};
use epilogue_process::link::Link;
use nix::poll::{PollFd, PollFlags};
use nix::sys::signal::SigSet;
use std::os::fd::AsFd;

use crate::error::Refusal;
use crate::event::Event;
use crate::member::Member;
use crate::report::Report;
use crate::shared::Shared;
use crate::stall::Look;
use crate::terms::earlier;

pub(crate) struct Supervisor {
    pub(crate) spec: Spec,
    pub(crate) main: fn(Link),
    pub(crate) shared: Arc<Shared>,
}

/// Which descriptor of a worker became ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Wire,
    Pidfd,
}

impl Supervisor {
    /// So often in a row it takes answers without a look at the workers: about a thousandth of a second.
    const IN_A_ROW: u32 = 128;

    /// Runs the pool until it has ended, and leaves word if that was by a panic.
    pub(crate) fn watch(self) -> Report {
        let shared = Arc::clone(&self.shared);
        let report = panic::catch_unwind(AssertUnwindSafe(|| self.run()));
        if report.is_err() {
            let cause = "the pool's own thread panicked".to_owned();
            shared.give_up(Refusal::Broken { cause });
        }
        shared.end_alone();
        report.unwrap_or_else(|payload| panic::resume_unwind(payload))
    }

    fn run(self) -> Report {
        // The program's signal handlers have nothing to do on this thread.
        let _ = SigSet::all().thread_block();
        let mut in_a_row = 0;
        loop {
            self.hire();
            self.look_at_suspects();
            let (watches, due) = {
                let mut floor = self.shared.floor();
                floor.collect();
                floor.enforce(Instant::now());
                floor.stop_if_late(Instant::now());
                floor.dispatch();
                floor.tell_reader();
                // After hiring: if that has failed for good, nothing would end the sleep.
                if floor.is_over() {
                    return floor.report().clone().finished();
                }
                floor.members.iter_mut().for_each(|member| member.child.flush());
                if floor.needs_supervisor() && floor.has_answers() {
                    in_a_row += 1;
                    if in_a_row < Self::IN_A_ROW {
                        continue;
                    }
                    // It does not sleep: nobody tells of these. But they may come for as long as there
                    // are tasks, and who has died meanwhile is to be found.
                    self.shared.bell.ring();
                }
                in_a_row = 0;
                let due = floor.members.iter().filter_map(Member::due);
                let due = due.chain(floor.staffing_due()).chain(floor.ending_due());
                let due = due.chain(floor.alarm.at()).min();
                let due = earlier(due, floor.vigil_due(Instant::now()));
                let watches: Vec<_> = floor.members.iter().map(Member::watch).collect();
                (watches, due)
            };
            let ready = self.sleep(&watches, due);
            self.look_after(&ready);
        }
    }

    /// Looks at the workers that do not get on, if it is time to. Nobody waits for the lock while
    /// `/proc` is read.
    fn look_at_suspects(&self) {
        let suspects = self.shared.floor().suspects(Instant::now());
        for suspect in suspects {
            if let Some(look) = Look::at(suspect.pid) {
                self.shared.floor().judge(&suspect, look);
            }
        }
    }

    /// Starts the workers that are missing. Nobody waits for the lock while they start.
    fn hire(&self) {
        loop {
            let (number, recycling) = {
                let mut floor = self.shared.floor();
                if floor.missing(Instant::now()) == 0 {
                    return;
                }
                (floor.next_worker(), floor.recycling())
            };
            match Member::start(&self.spec, number, recycling, self.main) {
                Ok(member) => self.shared.floor().hire(member),
                Err(error) => {
                    let mut floor = self.shared.floor();
                    floor.tell(|| Event::StartFailed { cause: error.to_string() });
                    return floor.start_failed(error);
                }
            }
        }
    }

    fn sleep(&self, watches: &[Watch], due: Option<Instant>) -> Vec<(usize, Source)> {
        let bell = &self.shared.bell;
        let mut fds = vec![PollFd::new(bell.as_fd(), PollFlags::POLLIN)];
        let mut owners = vec![];
        for (owner, watch) in watches.iter().enumerate() {
            let (wire, pidfd) = (watch.wire(), watch.pidfd());
            fds.extend(wire.into_iter().inspect(|_| owners.push((owner, Source::Wire))));
            fds.extend(pidfd.into_iter().inspect(|_| owners.push((owner, Source::Pidfd))));
        }
        let is_known = wait_for(&mut fds, due);
        let ready = fds.iter().skip(1).zip(owners);
        let ready = ready.filter(|(fd, _)| !is_known || fd.any().unwrap_or(true));
        let ready = ready.map(|(_, owner)| owner).collect();
        bell.silence();
        ready
    }

    /// Only this thread buries, so the positions of workers still hold.
    fn look_after(&self, ready: &[(usize, Source)]) {
        let mut floor = self.shared.floor();
        for &(owner, source) in ready {
            if source == Source::Pidfd {
                floor.members[owner].child.reap();
            }
        }
        let now = Instant::now();
        floor.let_idle_go(now);
        let mut ended = Vec::new();
        for owner in 0..floor.members.len() {
            let member = &mut floor.members[owner];
            if member.child.has_ended() {
                // It is reaped when nothing is left below it, which no descriptor tells.
                member.child.reap();
            }
            // Before its time is up: all this may have stood still since it was seen that nothing had
            // come of it, and one that was up in time is not late because nobody has looked.
            let is_due = member.child.has_ended() || member.due().is_some_and(|due| due <= now);
            if is_due || ready.iter().any(|&(other, _)| other == owner) {
                ended.extend(floor.look_at(owner).map(|status| (owner, status)));
            }
            floor.members[owner].child.tick(now);
        }
        // From the back, so that the positions of the others still hold.
        for (owner, status) in ended.into_iter().rev() {
            floor.bury(owner, status);
        }
    }
}
