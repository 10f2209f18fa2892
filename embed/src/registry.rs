//! The list of what is to run as this process ends: last registered first, each at most once, and some
//! after all others.
//!
//! # Invariants
//! 1. An entry leaves the list before it runs, so no two endings can run it.
//! 2. A panic in one entry leaves the others their turn.
//! 3. After [`Pass::abandon`] nothing more is started or recorded by that pass.

use std::any::Any;
use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::deadline::Enforcer;
use crate::ending::{Cause, Ending};
use crate::exit::{self, PANICKED};
use crate::report::{FinalizerEnd, Outcome};
use crate::state::{State, lock};

thread_local! {
    /// The process whose finalizer this thread runs, or zero. A copy made in one runs none.
    static INSIDE: Cell<u32> = const { Cell::new(0) };
}

/// Whether the calling thread is running a finalizer.
pub(crate) fn inside_finalizer() -> bool {
    let process = INSIDE.with(Cell::get);
    process != 0 && process == std::process::id()
}

/// Unwinds a finalizer that asked to leave the process: it ends here, as if it had returned.
pub(crate) struct LeftEarly;

/// Which clock an entry runs by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Within the deadline, always.
    Finalizer,
    /// Outside the deadline where the program exits by itself.
    Hook,
    /// As a hook, after all others, and only where the process does not go on.
    Last,
}

/// How far a walk goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Through the whole list: the process ends.
    All,
    /// To those that come last, which stay for its end: the program goes on.
    ButLast,
}

/// One closure with its name, not run yet.
pub(crate) struct Entry {
    id: u64,
    pub(crate) name: Cow<'static, str>,
    kind: Kind,
    work: Box<dyn FnOnce(&Ending) + Send>,
}

/// What is registered and what has run.
#[derive(Default)]
pub(crate) struct Registry {
    lists: Mutex<Lists>,
    opened: Condvar,
}

#[derive(Default)]
struct Lists {
    next: u64,
    waiting: Vec<Entry>,
    /// Nothing that is added now would run: this process is about to be gone.
    is_closed: bool,
    ended: Vec<FinalizerEnd>,
}

impl Lists {
    /// Where the next entry is that such a walk runs.
    fn next(&self, reach: Reach) -> Option<usize> {
        let last = || self.waiting.len().checked_sub(1).filter(|_| reach == Reach::All);
        self.waiting.iter().rposition(|entry| entry.kind != Kind::Last).or_else(last)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("waiting", &lock(&self.lists).waiting.len()).finish()
    }
}

impl Registry {
    /// Adds an entry that runs before all that are there, and returns its id.
    ///
    /// Where nothing that is added would run any more this waits for the end of the process, or for the
    /// program to go on after all; on the thread that `ends` it, which must go on, it returns none.
    pub(crate) fn add(
        &self,
        name: Cow<'static, str>,
        kind: Kind,
        work: Box<dyn FnOnce(&Ending) + Send>,
        ends: impl Fn() -> bool,
    ) -> Option<u64> {
        let mut lists = lock(&self.lists);
        while lists.is_closed {
            if ends() {
                return None;
            }
            lists = self.opened.wait(lists).unwrap_or_else(PoisonError::into_inner);
        }
        let id = lists.next;
        lists.next += 1;
        lists.waiting.push(Entry { id, name, kind, work });
        Some(id)
    }

    /// Takes nothing more, if nothing waits to be run. In one step: what is added is run, or refused.
    pub(crate) fn close(&self) -> bool {
        let mut lists = lock(&self.lists);
        lists.is_closed = lists.waiting.is_empty();
        lists.is_closed
    }

    /// Takes entries again: the program goes on.
    pub(crate) fn open(&self) {
        lock(&self.lists).is_closed = false;
        self.opened.notify_all();
    }

    /// Takes the entry away, unless it has run or is running.
    pub(crate) fn take(&self, id: u64) -> Option<Entry> {
        let mut lists = lock(&self.lists);
        let place = lists.waiting.iter().position(|entry| entry.id == id)?;
        Some(lists.waiting.remove(place))
    }

    /// What has run so far, in order.
    pub(crate) fn ended(&self) -> Vec<FinalizerEnd> {
        lock(&self.lists).ended.clone()
    }

    /// Records an end for [`Registry::ended`], and gives it back.
    pub(crate) fn record(&self, end: FinalizerEnd) -> FinalizerEnd {
        lock(&self.lists).ended.push(end.clone());
        end
    }

    /// Whether nothing waits to be run.
    pub(crate) fn is_empty(&self, reach: Reach) -> bool {
        lock(&self.lists).next(reach).is_none()
    }

    fn pop(&self, reach: Reach) -> Option<Entry> {
        let lists = &mut lock(&self.lists);
        lists.next(reach).map(|place| lists.waiting.remove(place))
    }
}

/// One walk through the list, which another thread may cut short.
#[derive(Debug)]
pub(crate) struct Pass {
    cause: Cause,
    reach: Reach,
    progress: Mutex<Progress>,
    ended: Condvar,
}

#[derive(Debug)]
struct Progress {
    running: Option<Cow<'static, str>>,
    done: Vec<FinalizerEnd>,
    state: Walk,
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
        let progress = Progress { running: None, done: Vec::new(), state: Walk::Going };
        Self { cause, reach, progress: Mutex::new(progress), ended: Condvar::new() }
    }

    /// How far this walk goes.
    pub(crate) fn reach(&self) -> Reach {
        self.reach
    }

    /// Runs every entry of `state`'s list that is in reach, those included that are added meanwhile.
    pub(crate) fn run(&self, state: &'static State, skip: fn() -> bool) {
        while !skip() {
            let Some(entry) = self.next(state) else {
                return;
            };
            let outcome = match (entry.kind, self.cause) {
                (Kind::Hook | Kind::Last, Cause::Exit) => {
                    state.deadline.pause_for(|| entry.run_in_ending(self.cause))
                }
                _ => entry.run_in_ending(self.cause),
            };
            if !self.finish(state, outcome) {
                return;
            }
        }
        self.skip_rest(state);
        self.end(&mut lock(&self.progress));
    }

    /// Waits until every entry has run, or until the end of the time if nobody else enforces it.
    pub(crate) fn wait(&self, state: &State, enforcer: Enforcer) {
        let mut progress = lock(&self.progress);
        while progress.state == Walk::Going {
            let left = match enforcer {
                Enforcer::Kernel => None,
                Enforcer::Waiter => state.deadline.remaining(),
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
        if let Some(name) = progress.running.take() {
            let end = state.registry.record(FinalizerEnd::new(name, Outcome::TimedOut));
            progress.done.push(end);
        }
        drop(progress);
        self.skip_rest(state);
    }

    /// What this walk did.
    pub(crate) fn done(&self) -> Vec<FinalizerEnd> {
        lock(&self.progress).done.clone()
    }

    fn next(&self, state: &State) -> Option<Entry> {
        let mut progress = lock(&self.progress);
        if progress.state == Walk::Abandoned {
            return None;
        }
        while let Some(entry) = state.registry.pop(self.reach) {
            let has_time = entry.kind != Kind::Finalizer && self.cause == Cause::Exit;
            if has_time || state.deadline.remaining() != Some(Duration::ZERO) {
                progress.running = Some(entry.name.clone());
                return Some(entry);
            }
            progress.done.push(skip(state, entry));
        }
        self.end(&mut progress);
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
    std::mem::forget(entry.work);
    state.registry.record(FinalizerEnd::new(entry.name, Outcome::Skipped))
}

impl Entry {
    /// Runs it on this thread. A copy that it makes by `fork` does not come back: what follows, the
    /// other finalizers above all, is the original's, and so are the locks.
    fn run_in_ending(self, cause: Cause) -> Outcome {
        let process = std::process::id();
        let outcome = self.run(cause);
        let code = if outcome == Outcome::Ran { 0 } else { PANICKED };
        exit::end_copy_of(process, code);
        outcome
    }

    /// Runs it on this thread. A panic is caught.
    pub(crate) fn run(self, cause: Cause) -> Outcome {
        let outer = INSIDE.with(|inside| inside.replace(std::process::id()));
        let work = AssertUnwindSafe(move || (self.work)(&Ending::new(cause)));
        let result = catch_unwind(work);
        INSIDE.with(|inside| inside.set(outer));
        match result {
            Ok(()) => Outcome::Ran,
            Err(payload) => outcome_of(payload),
        }
    }
}

fn outcome_of(payload: Box<dyn Any + Send>) -> Outcome {
    if payload.is::<LeftEarly>() {
        return Outcome::Ran;
    }
    let message = match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (None, Some(text)) => text.clone(),
        (None, None) => String::from("a panic without a message"),
    };
    // Dropping a payload runs user code, which could panic again with nobody to catch it.
    std::mem::forget(payload);
    Outcome::Panicked { message }
}

#[cfg(test)]
mod tests {
    use super::{Cause, Kind, Pass, Reach, State};

    #[test]
    fn a_walk_that_is_over_as_the_time_is_takes_nothing_that_came_after_it() {
        let state: &'static State = Box::leak(Box::default());
        let pass = Pass::new(Cause::Cleanup, Reach::ButLast);
        pass.run(state, || false);
        state.registry.add("late".into(), Kind::Finalizer, Box::new(|_| ()), || false);
        pass.abandon(state);
        assert!(!state.registry.is_empty(Reach::ButLast));
    }
}
