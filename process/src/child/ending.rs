//! The way to a child's end: down the ladder, reaped, and what is known of it then.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{Child, Fall, Life, Start};
use crate::codec::{Limits, encode};
use crate::end::End;
use crate::memory;
use crate::status::ExitStatus;
use crate::stop::{Rung, Step};
use crate::sys::pidfd::{self, Reaped, Wait};
use crate::usage::Usage;
use crate::wire::{Kind, StopOrder, Wire};

/// What becomes of the call that runs when a child is asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// It has two fifths of the time that is left to return.
    Finish,
    /// It is abandoned: the finalizers begin at once.
    Abandon,
}

impl Child {
    /// When [`Child::flush`], [`Child::reap`] and [`Child::tick`] have to be called next, if ever.
    pub fn due(&self) -> Option<Instant> {
        if let Life::Falling { again } = self.life {
            return Some(again);
        }
        let start = match self.start {
            Start::Awaited { by } | Start::Refused { by } => Some(by),
            Start::Late | Start::Up | Start::Unread => None,
        };
        let refused = self.wire.refused().filter(|_| self.is_connected() && !self.is_flushed());
        let again = refused.map(|(_, again)| *again);
        [start, self.ladder.due(), again].into_iter().flatten().min()
    }

    /// Does what is due: the next rung of the ladder, or the end of a child that is not up. Whoever
    /// calls this has taken events since `now`, if that is [due](Child::due): among them may be a hello
    /// that came in time. What a child has left behind that has ended is for [`Child::reap`].
    pub fn tick(&mut self, now: Instant) {
        if self.has_ended() {
            return;
        }
        let step = match self.start {
            Start::Awaited { by } | Start::Refused { by } if by <= now => {
                self.start = Start::Late;
                self.ladder.kill()
            }
            _ => self.ladder.tick(now),
        };
        self.take(step);
    }

    /// Whether it was stopped, and continued, since this was asked last.
    pub fn was_continued(&self) -> bool {
        pidfd::was_continued(self.ties.pidfd.as_fd())
    }

    /// Reaps the child if it has ended, and so has what it was to take along. Call it when its pidfd is
    /// readable, or what is left behind is [due](Child::due), then take events.
    pub fn reap(&mut self) {
        if let Life::Running | Life::Falling { .. } = self.life {
            match self.ties.fell() {
                Fall::Over(end) => self.tree_end = end,
                // It runs. Should it end right now, its tree has to go before it is reaped.
                Fall::Standing => return,
                Fall::Falling { again } => {
                    self.ended_on.get_or_insert(self.ladder.rung());
                    self.life = Life::Falling { again };
                    return;
                }
            }
            let reaped = pidfd::wait(self.ties.pidfd.as_fd(), Wait::Poll);
            if let Some(Reaped { status, usage }) = reaped {
                self.usage = usage;
                let rung = *self.ended_on.get_or_insert(self.ladder.rung());
                // Killed, and not by us: the kernel knows whether it was for want of memory.
                let foreign = status.signal() == Some(9) && rung < Rung::Kill;
                self.out_of_memory = foreign && memory::has_run_out();
                self.life = Life::Reaped(status);
                self.wire.peer_has_ended();
            }
        }
    }

    /// No more calls will come: it finishes those that it has, and leaves.
    pub fn finish(&mut self) {
        let step = self.ladder.finish();
        self.take(step);
    }

    /// All its calls are answered: from now on it has the grace period to leave.
    pub fn drained(&mut self) {
        self.ladder.drained(Instant::now());
    }

    /// Asks it to stop within the grace period, or within `limit` if that is shorter. The call
    /// that runs has `work` of it to return; without, the finalizers begin at once.
    pub fn stop(&mut self, limit: Option<Duration>, work: Work) {
        match self.ladder.stop(Instant::now(), limit) {
            Some(Step::Stop { remaining }) => self.send_stop(remaining, work),
            step => self.take(step),
        }
    }

    /// Has it go on, if it is stopped.
    pub fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Kills it. Its finalizers do not run.
    pub fn kill(&mut self) {
        let step = self.ladder.kill();
        self.take(step);
    }

    pub(super) fn take(&mut self, step: Option<Step>) {
        match step {
            None => {}
            Some(Step::Finish) => {
                self.wire.send(Kind::Finish, 0, &[]);
                self.flush();
            }
            Some(Step::Stop { remaining }) => self.send_stop(remaining, Work::Abandon),
            Some(Step::Signal) => {
                self.signal(Signal::SIGTERM);
                self.signal(Signal::SIGCONT);
            }
            Some(Step::Kill) => self.send_kill(),
        }
    }

    fn send_kill(&mut self) {
        if !self.ties.kill() {
            self.ladder.refused(Instant::now());
        }
    }

    fn send_stop(&mut self, remaining: Duration, work: Work) {
        let work = match work {
            Work::Abandon => Duration::ZERO,
            Work::Finish => remaining * 2 / 5,
        };
        // Up to a little before the kill, not half of the time: a child that is stopped after it
        // has read this is woken by the signal at half time, and then still needs some.
        let order = StopOrder { work, finalizers: remaining * 9 / 10 - work };
        let mut payload = Vec::new();
        if encode(&order, &mut payload, &Limits::default()).is_ok() {
            self.wire.send(Kind::Stop, 0, &payload);
            self.flush();
        }
        if order.work.is_zero() {
            // There is nothing to wait for: one that is stopped shall hear of it now.
            self.signal(Signal::SIGCONT);
        }
    }

    /// Signals the child; one that has ended already needs none.
    fn signal(&self, signal: Signal) {
        let _ = pidfd::send_signal(self.ties.pidfd.as_fd(), signal as i32);
    }

    /// How far up the ladder it had to be taken.
    pub(super) fn rung(&self) -> Rung {
        self.ended_on.unwrap_or(self.ladder.rung())
    }

    /// How it ended: the proof that is kept of a child after [`Event::Ended`](super::Event::Ended).
    pub fn end(&self) -> End {
        let status = match self.life {
            Life::Running | Life::Falling { .. } => ExitStatus::Unknown,
            Life::Reaped(status) | Life::Told(status) => status,
        };
        let goodbye = self.goodbye.as_ref();
        let usage = self.usage.map(|usage| Usage {
            peak_memory: goodbye.and_then(|goodbye| goodbye.peak_memory).or(usage.peak_memory),
            ..usage
        });
        End {
            status,
            rung: self.rung(),
            out_of_memory: self.out_of_memory,
            usage,
            tree: self.tree_end.map(|end| end.after(goodbye.and_then(|goodbye| goodbye.tree))),
            sandbox: self.sandbox.clone(),
            finalizers: goodbye.map(|goodbye| goodbye.finalizers.clone()),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if let Life::Running | Life::Falling { .. } = self.life
            && self.owner == std::process::id()
        {
            self.ties.end();
            self.ties.fell_all();
            let _ = pidfd::wait(self.ties.pidfd.as_fd(), Wait::Block);
        }
    }
}
