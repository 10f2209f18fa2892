//! A walk through the list, as an ending runs what is registered.
//!
//! # Invariants
//! 1. After [`Pass::abandon`] nothing more is started or recorded by that pass.
//! 2. No walk is over while another thread runs an entry by hand that was registered before the walk had come
//!    to the end of the list, and there is time.

use std::borrow::Cow;
use std::mem;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use libc::pid_t;

use super::{Entry, Kind, Reach, is_over};
use crate::deadline::Enforcer;
use crate::ending::{Cause, Ending};
use crate::report::{FinalizerEnd, Outcome};
use crate::state::{State, lock};
use crate::sys::action::this_thread;

/// One walk through the list, which another thread may cut short.
#[derive(Debug)]
pub(crate) struct Pass {
    /// Of two walks of a process, the one that was made later has the greater one.
    number: usize,
    cause: Cause,
    reach: Reach,
    /// The thread that ends the process, which made this.
    ender: pid_t,
    progress: Mutex<Progress>,
    ended: Condvar,
}

#[derive(Debug)]
struct Progress {
    running: Option<Cow<'static, str>>,
    done: Vec<FinalizerEnd>,
    /// What the next entry's number was as the list was empty for the first time.
    before: Option<u64>,
    state: Walk,
}

impl Progress {
    /// Notes what runs by hand for longer than there is time. Whoever runs it gets its end.
    fn leave_behind(&mut self, by_hand: Vec<Cow<'static, str>>) {
        let end = |name| FinalizerEnd::new(name, Outcome::TimedOut);
        self.done.extend(by_hand.into_iter().map(end));
    }
}

/// How far a walk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Walk {
    Going,
    Over,
    Abandoned,
}

impl Pass {
    /// A walk that has not begun.
    pub(crate) fn new(cause: Cause, reach: Reach) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(1);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let progress =
            Progress { running: None, done: Vec::new(), before: None, state: Walk::Going };
        let (progress, ended) = (Mutex::new(progress), Condvar::new());
        Self { number, cause, reach, ender: this_thread(), progress, ended }
    }

    /// Whether there is nothing to run in `state`'s list, and nothing to wait for.
    pub(crate) fn is_needless(&self, state: &State) -> bool {
        state.registry.has_no_hands(state, self.ender, u64::MAX)
            && state.registry.is_empty(self.reach)
    }

    /// Runs every entry of `state`'s list that is in reach, those included that are added meanwhile, and
    /// waits for those that other threads run by hand.
    pub(crate) fn run(&self, state: &'static State, skip: fn() -> bool) {
        while !skip() {
            let Some(entry) = self.next(state) else {
                return;
            };
            let ending = Ending::new(self.cause, self.reach);
            let outcome = match (entry.kind, self.cause) {
                (Kind::Hook | Kind::Last, Cause::Exit) => {
                    state.deadline.pause_for(|| entry.run_in_ending(&ending, self.number))
                }
                _ => entry.run_in_ending(&ending, self.number),
            };
            if !self.finish(state, outcome) {
                return;
            }
        }
        while let Some(entry) = self.next(state) {
            // Its captures may have a slow drop, and who asked to skip it is in a hurry.
            mem::forget((entry.ask, entry.work));
            if !self.finish(state, Outcome::Skipped) {
                return;
            }
        }
    }

    /// Waits until every entry has run, or until the end of the time if nobody else enforces it.
    pub(crate) fn wait(&self, state: &State, enforcer: Enforcer) {
        let mut progress = lock(&self.progress);
        while progress.state == Walk::Going {
            let left = match enforcer {
                Enforcer::Kernel => None,
                Enforcer::Waiter | Enforcer::WaiterAlone => state.deadline.remaining(),
            };
            progress = match left {
                None => self.ended.wait(progress).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => {
                    drop(progress);
                    return self.abandon(state);
                }
                Some(left) => {
                    let waited = self.ended.wait_timeout(progress, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Leaves behind what still runs and skips the rest, at the end of the time.
    fn abandon(&self, state: &State) {
        let mut progress = lock(&self.progress);
        if progress.state != Walk::Going {
            // It has just come to its end: what was registered since is for the next ending.
            return;
        }
        progress.state = Walk::Abandoned;
        state.registry.abandoned.fetch_max(self.number, Ordering::SeqCst);
        if let Some(name) = progress.running.take() {
            let end = state.registry.record(FinalizerEnd::new(name, Outcome::TimedOut));
            progress.done.push(end);
        }
        progress.leave_behind(state.registry.leave_hands(self.ender));
        drop(progress);
        self.skip_rest(state);
    }

    /// What this walk did.
    pub(crate) fn done(&self) -> Vec<FinalizerEnd> {
        lock(&self.progress).done.clone()
    }

    fn next(&self, state: &State) -> Option<Entry> {
        loop {
            let mut progress = lock(&self.progress);
            if progress.state == Walk::Abandoned {
                return None;
            }
            // Before the look at the list: one that has ended since may have registered another.
            let next = state.registry.next_id();
            let before = progress.before.unwrap_or(next);
            let is_last = state.registry.has_no_hands(state, self.ender, before);
            if let Some(entry) = self.pop(state, &mut progress) {
                return Some(entry);
            }
            // What is registered from here on is run by this walk, if nobody else does: one thread after the
            // other that does so would keep it until the deadline.
            progress.before = Some(before);
            if is_last || is_over(&state.deadline) {
                progress.leave_behind(state.registry.leave_hands(self.ender));
                self.end(&mut progress);
                return None;
            }
            // Who cuts this walk short must find it.
            drop(progress);
            state.registry.wait_for_hands(self.ender, self.reach, &state.deadline);
        }
    }

    fn pop(&self, state: &State, progress: &mut Progress) -> Option<Entry> {
        while let Some(entry) = state.registry.pop(self.reach) {
            let has_time = entry.kind != Kind::Finalizer && self.cause == Cause::Exit;
            if has_time || !is_over(&state.deadline) {
                progress.running = Some(entry.name.clone());
                return Some(entry);
            }
            progress.done.push(skip(state, entry));
        }
        None
    }

    fn end(&self, progress: &mut Progress) {
        if progress.state == Walk::Going {
            progress.state = Walk::Over;
        }
        self.ended.notify_all();
    }

    /// Records what ran, or says that nobody waits for it any more.
    fn finish(&self, state: &State, outcome: Outcome) -> bool {
        let mut progress = lock(&self.progress);
        let Some(name) = progress.running.take() else {
            return false;
        };
        let end = state.registry.record(FinalizerEnd::new(name, outcome));
        progress.done.push(end);
        true
    }

    fn skip_rest(&self, state: &State) {
        while let Some(entry) = state.registry.pop(self.reach) {
            let end = skip(state, entry);
            lock(&self.progress).done.push(end);
        }
    }
}

fn skip(state: &State, entry: Entry) -> FinalizerEnd {
    // Its captures may have a slow or panicking drop, and the time is over.
    mem::forget((entry.ask, entry.work));
    state.registry.record(FinalizerEnd::new(entry.name, Outcome::Skipped))
}

#[cfg(test)]
mod tests {
    use std::sync::{LazyLock, mpsc};

    use super::{Cause, Ending, Kind, Pass, Reach, State};

    #[test]
    fn nobody_is_asked_while_a_finalizer_runs_that_may_need_them() {
        static STATE: LazyLock<State> = LazyLock::new(State::default);
        let state = &*STATE;
        let (told, asked) = mpsc::channel();
        let ask = Box::new(move |_: &Ending| told.send(()).unwrap());
        let ended = Box::new(|_: &Ending| ());
        state.registry.add("first".into(), Kind::Hook, Some(ask), ended, || true);
        // As a callback would that an earlier hook has left.
        let uses = Box::new(|ending: &Ending| state.registry.ask_next(ending));
        state.registry.add("uses it".into(), Kind::Finalizer, None, uses, || true);
        Pass::new(Cause::Exit, Reach::All).run(state, || false);
        assert_eq!(asked.try_iter().count(), 0);
    }

    #[test]
    fn a_hook_is_told_whether_the_program_may_go_on() {
        static STATES: LazyLock<[State; 3]> = LazyLock::new(Default::default);
        let walks = [(Reach::All, false), (Reach::AllBeforeExec, true), (Reach::ButLast, true)];
        for (state, (reach, goes_on)) in STATES.iter().zip(walks) {
            let (told, heard) = mpsc::channel();
            let hook = Box::new(move |ending: &Ending| told.send(ending.may_go_on()).unwrap());
            state.registry.add("asks".into(), Kind::Hook, None, hook, || true);
            Pass::new(Cause::Cleanup, reach).run(state, || false);
            assert_eq!(heard.recv(), Ok(goes_on), "{reach:?}");
        }
    }

    #[test]
    fn a_walk_that_is_over_as_the_time_is_takes_nothing_that_came_after_it() {
        static STATE: LazyLock<State> = LazyLock::new(State::default);
        let state = &*STATE;
        let pass = Pass::new(Cause::Cleanup, Reach::ButLast);
        pass.run(state, || false);
        state.registry.add("late".into(), Kind::Finalizer, None, Box::new(|_| ()), || false);
        pass.abandon(state);
        assert!(!state.registry.is_empty(Reach::ButLast));
    }
}
