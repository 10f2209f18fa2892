//! What is left below a child that has ended, on its way down: asked, then killed, in steps that wait
//! for nothing.
//!
//! Who is there is looked up at each step, rather than kept as descriptors: this program may have none
//! to spare, and nothing here rests on one that it cannot open. That nobody is left is believed only
//! of a look that could be taken.

use std::collections::BTreeSet;
use std::io;
use std::time::{Duration, Instant};

use epilogue_embed::ending;

use super::{Leader, Tree, TreeEnd};
use crate::sys::pidfd::AGAIN;

/// A tree on its way down.
#[derive(Debug)]
pub(crate) struct Felling {
    tree: Tree,
    stage: Stage,
    grace_period: Duration,
    /// When whoever still runs is killed, once the child has ended.
    kill_at: Option<Instant>,
    /// How many there were at first.
    left: usize,
    pauses: Pauses,
    again: Instant,
}

/// How far it is. It only moves forward.
#[derive(Debug)]
enum Stage {
    /// Nobody was asked yet.
    Standing,
    /// These have heard that they are to end.
    Asked(BTreeSet<libc::pid_t>),
    /// These had to be killed, which was last tried so often in vain.
    Killed { killed: BTreeSet<libc::pid_t>, in_vain: u32 },
}

/// How often in a row it may be that nobody who is left can be killed, or seen: about a quarter of a second.
/// The kernel may refuse it once for want of memory, and for ever where they are another user's by now.
const TRIES: u32 = 16;

/// The pauses between looks. They grow: most end at once.
#[derive(Debug)]
pub(super) struct Pauses(Duration);

impl Default for Pauses {
    fn default() -> Self {
        Self(Duration::from_millis(1))
    }
}

impl Pauses {
    pub(super) fn next(&mut self) -> Duration {
        let next = (self.0 * 2).min(AGAIN);
        std::mem::replace(&mut self.0, next)
    }
}

/// Whether a look that has failed may succeed a little later. If not, it is forbidden: a sandbox may hide
/// all other processes.
pub(super) fn will_pass(error: &io::Error) -> bool {
    let passing = [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::EAGAIN, libc::EINTR];
    error.raw_os_error().is_some_and(|error| passing.contains(&error))
}

impl Felling {
    /// What will become of the tree of a child that runs.
    pub(crate) fn new(tree: Tree, grace_period: Duration) -> Self {
        let (stage, pauses, again) = (Stage::Standing, Pauses::default(), Instant::now());
        Self { tree, stage, grace_period, kill_at: None, left: 0, pauses, again }
    }

    /// When to look again.
    pub(crate) fn due(&self) -> Instant {
        self.again
    }

    /// Looks, if it is time to, and takes the next step. The child has ended and was not reaped by us
    /// yet.
    ///
    /// What became of it, once nothing of it runs any more but whom this program may not kill; who was
    /// the child's is reaped by whoever inherited it.
    pub(crate) fn advance(&mut self, child: Leader<'_>, now: Instant) -> Option<TreeEnd> {
        let mut kill_at = self.kill_at.unwrap_or(now + self.grace_period);
        if let Some(left) = ending::remaining() {
            // This program ends: what is deaf must be killed before the program is, however busy the
            // machine, and other finalizers need some of that time.
            kill_at = kill_at.min(now + left / 4);
        }
        self.kill_at = Some(kill_at);
        if now < self.again {
            return None;
        }
        let mut is_hidden = false;
        if let Stage::Standing = self.stage {
            match self.tree.ask(child) {
                Ok((left, asked)) => (self.left, self.stage) = (left, Stage::Asked(asked)),
                Err(error) => is_hidden = !will_pass(&error),
            }
        }
        let is_killing = matches!(self.stage, Stage::Killed { .. });
        if !is_killing && (is_hidden || kill_at <= now || self.have_gone(child)) {
            self.stage = Stage::Killed { killed: BTreeSet::new(), in_vain: 0 };
            self.pauses = Pauses::default();
        }
        let end = self.kill(child);
        self.again = now + self.pauses.next();
        end
    }

    /// Kills those who still run, once it has come to that.
    fn kill(&mut self, child: Leader<'_>) -> Option<TreeEnd> {
        let Stage::Killed { killed, in_vain } = &mut self.stage else { return None };
        // Those that were started meanwhile had their time, too.
        let stubborn = self.tree.members(child).unwrap_or_default();
        killed.extend(&stubborn);
        // Also if a look finds nobody: one that forks and ends, again and again, is a step ahead of
        // every look.
        let were_killed = self.tree.kill(child, &stubborn);
        let left = self.tree.members(child);
        *in_vain = if were_killed && left.is_ok() { 0 } else { *in_vain + 1 };
        let running = match left {
            Ok(left) if left.is_empty() => 0,
            // Nor will it be seen later whether they have ended.
            Err(error) if !will_pass(&error) => 0,
            // Whoever was killed will end, and is waited for.
            _ if *in_vain < TRIES => return None,
            left => left.map_or(0, |left| left.len()),
        };
        let killed = killed.len();
        let (mechanism, left) = (self.tree.mechanism(), self.left.max(killed));
        Some(TreeEnd { mechanism, left, killed: killed.saturating_sub(running), running })
    }

    /// Whether none of those that were asked is left.
    fn have_gone(&mut self, child: Leader<'_>) -> bool {
        let Stage::Asked(asked) = &self.stage else { return false };
        self.tree.members(child).is_ok_and(|left| left.is_disjoint(asked))
    }
}
