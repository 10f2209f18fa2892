//! The list of what is to run as this process ends: last registered first, each at most once, and some
//! after all others.
//!
//! # Invariants
//! 1. An entry leaves the list before it runs, so no two endings can run it.
//! 2. A panic in one entry leaves the others their turn.

mod pass;

use std::any::Any;
use std::borrow::Cow;
use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use libc::pid_t;

pub(crate) use self::pass::Pass;
use crate::deadline::Deadline;
use crate::ending::{Cause, Ending};
use crate::exit::{self, PANICKED};
use crate::report::{FinalizerEnd, Outcome};
use crate::state::{State, lock};
use crate::sys::action::{is_paused, this_thread};

thread_local! {
    /// The process whose finalizer this thread runs, or zero. A copy made in one runs none.
    static INSIDE: Cell<u32> = const { Cell::new(0) };
    /// The number of the walk that this thread runs a finalizer for, or zero.
    static WALK: Cell<usize> = const { Cell::new(0) };
}

/// Whether the calling thread is running a finalizer.
pub(crate) fn inside_finalizer() -> bool {
    let process = INSIDE.with(Cell::get);
    process != 0 && process == std::process::id()
}

/// Whether the calling thread is running a finalizer for the one that has the turn to end this process. Not one
/// by hand, nor one that was left behind: whoever did that may have the turn once more.
pub(crate) fn inside_ending(state: &State) -> bool {
    inside_finalizer() && WALK.with(Cell::get) > state.registry.abandoned.load(Ordering::SeqCst)
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
    /// Through the whole list, but the program goes on if it cannot be replaced.
    AllBeforeExec,
    /// To those that come last, which stay for its end: the program goes on.
    ButLast,
}

/// One closure with its name, not run yet.
pub(crate) struct Entry {
    id: u64,
    pub(crate) name: Cow<'static, str>,
    kind: Kind,
    ask: Option<Work>,
    work: Work,
}

/// A closure that is told why the process ends.
pub(crate) type Work = Box<dyn FnOnce(&Ending) + Send>;

/// How many ends are kept: a program that cleans up again and again must not grow.
const KEPT: usize = 1000;

/// What is registered and what has run.
#[derive(Default)]
pub(crate) struct Registry {
    lists: Mutex<Lists>,
    /// Told when entries are taken again.
    opened: Condvar,
    /// Told when an entry that ran by hand has ended, or one was added.
    by_hand_ended: Condvar,
    /// The last walk that was cut short, or zero: those before it are over, or were left behind as well.
    abandoned: AtomicUsize,
}

#[derive(Default)]
struct Lists {
    next: u64,
    waiting: Vec<Entry>,
    /// What the entry is that a walk runs.
    running: Option<Kind>,
    /// What threads of the program run outside every walk.
    by_hand: Vec<ByHand>,
    /// Nothing that is added now would run: this process is about to be gone.
    is_closed: bool,
    ended: VecDeque<FinalizerEnd>,
}

/// An entry that a thread of the program runs by hand.
struct ByHand {
    id: u64,
    name: Cow<'static, str>,
    kind: Kind,
    thread: pid_t,
}

impl Lists {
    /// What runs by hand on other threads than `ender`: one that leaves the process in the middle of
    /// its own does not wait for that.
    fn by_hand(&self, ender: pid_t) -> impl Iterator<Item = &ByHand> {
        self.by_hand.iter().filter(move |running| running.thread != ender)
    }

    /// Where the next entry is that such a walk runs.
    fn next(&self, reach: Reach) -> Option<usize> {
        let last = || self.waiting.len().checked_sub(1).filter(|_| reach != Reach::ButLast);
        self.waiting.iter().rposition(|entry| entry.kind != Kind::Last).or_else(last)
    }

    fn take(&mut self, id: u64) -> Option<Entry> {
        let place = self.waiting.iter().position(|entry| entry.id == id)?;
        Some(self.waiting.remove(place))
    }

    fn keep(&mut self, end: FinalizerEnd) {
        if self.ended.len() == KEPT {
            self.ended.pop_front();
        }
        self.ended.push_back(end);
    }

    /// What those are asked by that run next, up to the first finalizer.
    fn asks(&mut self) -> Vec<Work> {
        // It may need what was registered before it.
        let mut running = self.by_hand.iter().map(|running| running.kind).chain(self.running);
        if running.any(|kind| kind == Kind::Finalizer) {
            return Vec::new();
        }
        let next = self.waiting.iter_mut().rev();
        let hooks = next.take_while(|entry| entry.kind != Kind::Finalizer);
        hooks.filter_map(|entry| entry.ask.take()).collect()
    }
}

/// Whether no time is left.
fn is_over(deadline: &Deadline) -> bool {
    deadline.remaining() == Some(Duration::ZERO)
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
        ask: Option<Work>,
        work: Work,
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
        lists.waiting.push(Entry { id, name, kind, ask, work });
        // A walk that waits runs it: of those that come and run by hand, it would never see the end.
        self.by_hand_ended.notify_all();
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
        lock(&self.lists).take(id)
    }

    /// Takes the entry away, unless it has run or is running, and runs it on this thread. An ending waits
    /// for it.
    pub(crate) fn run_by_hand(&self, id: u64) -> Option<Outcome> {
        let entry = {
            let mut lists = lock(&self.lists);
            let entry = lists.take(id)?;
            let name = entry.name.clone();
            lists.by_hand.push(ByHand { id, name, kind: entry.kind, thread: this_thread() });
            entry
        };
        let process = std::process::id();
        let outcome = entry.run(&Ending::new(Cause::Cleanup, Reach::ButLast));
        // In a copy made by `fork` in there the list is its original's.
        if process == std::process::id() {
            self.end_by_hand(id, &outcome);
        }
        Some(outcome)
    }

    fn end_by_hand(&self, id: u64, outcome: &Outcome) {
        let mut lists = lock(&self.lists);
        if let Some(place) = lists.by_hand.iter().position(|running| running.id == id) {
            let ByHand { name, .. } = lists.by_hand.swap_remove(place);
            lists.keep(FinalizerEnd::new(name, outcome.clone()));
        }
        self.by_hand_ended.notify_all();
    }

    /// What runs by hand on threads that wait for this ending: it never ends.
    fn stuck_hands(&self, state: &State, ender: pid_t) -> Vec<u64> {
        let hands = |lists: &Lists| -> Vec<_> {
            lists.by_hand(ender).map(|running| (running.id, running.thread)).collect()
        };
        let running = hands(&lock(&self.lists));
        // Behind no lock: it asks the kernel.
        let stuck = running
            .into_iter()
            .filter(|&(_, thread)| state.gate.is_left_by(thread) || is_paused(thread));
        stuck.map(|(id, _)| id).collect()
    }

    /// Whether there is nothing to wait for: of what was registered `before`, nothing runs by hand on other
    /// threads than `ender` but what is stuck.
    fn has_no_hands(&self, state: &State, ender: pid_t, before: u64) -> bool {
        let stuck = self.stuck_hands(state, ender);
        let is_nothing = |running: &ByHand| running.id >= before || stuck.contains(&running.id);
        lock(&self.lists).by_hand(ender).all(is_nothing)
    }

    /// The number of what is registered next.
    fn next_id(&self) -> u64 {
        lock(&self.lists).next
    }

    /// Nobody waits any more for what still runs by hand on other threads than `ender`: its names.
    fn leave_hands(&self, ender: pid_t) -> Vec<Cow<'static, str>> {
        let mut lists = lock(&self.lists);
        let (left, own) = mem::take(&mut lists.by_hand)
            .into_iter()
            .partition::<Vec<_>, _>(|running| running.thread != ender);
        lists.by_hand = own;
        left.into_iter().map(|running| running.name).collect()
    }

    /// Waits until something that runs by hand has ended, or there is something to run, or it is time to
    /// look again who is stuck.
    fn wait_for_hands(&self, ender: pid_t, reach: Reach, deadline: &Deadline) {
        const LOOK: Duration = Duration::from_millis(50);
        let lists = lock(&self.lists);
        if lists.by_hand(ender).next().is_some() && lists.next(reach).is_none() {
            let left = deadline.remaining().map_or(LOOK, |left| left.min(LOOK));
            drop(self.by_hand_ended.wait_timeout(lists, left));
        }
    }

    /// Asks those that run next, up to the first finalizer, each once.
    pub(crate) fn ask_next(&self, ending: &Ending) {
        // Behind no lock: whoever is asked may register something.
        let asks = lock(&self.lists).asks();
        for ask in asks {
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| ask(ending))) {
                mem::forget(payload);
            }
        }
    }

    /// The last that have run so far, in order.
    pub(crate) fn ended(&self) -> Vec<FinalizerEnd> {
        lock(&self.lists).ended.iter().cloned().collect()
    }

    /// Records the end of what a walk took, for [`Registry::ended`], and gives it back.
    pub(crate) fn record(&self, end: FinalizerEnd) -> FinalizerEnd {
        let mut lists = lock(&self.lists);
        lists.running = None;
        lists.keep(end.clone());
        end
    }

    /// Whether nothing waits to be run.
    pub(crate) fn is_empty(&self, reach: Reach) -> bool {
        lock(&self.lists).next(reach).is_none()
    }

    fn pop(&self, reach: Reach) -> Option<Entry> {
        let lists = &mut lock(&self.lists);
        let entry = lists.next(reach).map(|place| lists.waiting.remove(place))?;
        lists.running = Some(entry.kind);
        Some(entry)
    }
}

impl Entry {
    /// Runs it on this thread, for the `walk` of that number. A copy that it makes by `fork` does not come
    /// back: what follows, the other finalizers above all, is the original's, and so are the locks.
    fn run_in_ending(self, ending: &Ending, walk: usize) -> Outcome {
        let process = std::process::id();
        let outer = WALK.with(|number| number.replace(walk));
        let outcome = self.run(ending);
        WALK.with(|number| number.set(outer));
        let code = if outcome == Outcome::Ran { 0 } else { PANICKED };
        exit::end_copy_of(process, code);
        outcome
    }

    /// Runs it on this thread. A panic is caught.
    fn run(self, ending: &Ending) -> Outcome {
        let outer = INSIDE.with(|inside| inside.replace(std::process::id()));
        let Self { ask, work, .. } = self;
        let work = AssertUnwindSafe(move || {
            // Here, since its drop is the user's as well.
            drop(ask);
            work(ending);
        });
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
    mem::forget(payload);
    Outcome::Panicked { message }
}

#[cfg(test)]
mod tests {
    use std::sync::{LazyLock, mpsc};

    use super::{Cause, Ending, FinalizerEnd, KEPT, Kind, Outcome, Reach, Registry, State};

    #[test]
    fn who_runs_after_a_finalizer_is_not_asked_before_it_and_nobody_twice() {
        let (state, (told, asked)) = (State::default(), mpsc::channel());
        let add = |name: &'static str, kind| {
            let told = told.clone();
            let ask = Box::new(move |_: &Ending| told.send(name).unwrap());
            state.registry.add(name.into(), kind, Some(ask), Box::new(|_| ()), || true);
        };
        add("first", Kind::Hook);
        state.registry.add("uses it".into(), Kind::Finalizer, None, Box::new(|_| ()), || true);
        add("second", Kind::Hook);
        add("third", Kind::Hook);
        for _ in 0..2 {
            state.registry.ask_next(&Ending::new(Cause::Cleanup, Reach::ButLast));
        }
        assert_eq!(asked.try_iter().collect::<Vec<_>>(), ["third", "second"]);
    }

    #[test]
    fn nobody_is_asked_while_a_finalizer_runs_by_hand_that_may_need_them() {
        static STATE: LazyLock<State> = LazyLock::new(State::default);
        let state = &*STATE;
        let (told, asked) = mpsc::channel();
        let ask = Box::new(move |_: &Ending| told.send(()).unwrap());
        state.registry.add("first".into(), Kind::Hook, Some(ask), Box::new(|_| ()), || true);
        let uses = Box::new(|ending: &Ending| state.registry.ask_next(ending));
        let by_hand = state.registry.add("uses it".into(), Kind::Finalizer, None, uses, || true);
        assert_eq!(state.registry.run_by_hand(by_hand.unwrap()), Some(Outcome::Ran));
        assert_eq!(asked.try_iter().count(), 0);
        state.registry.ask_next(&Ending::new(Cause::Cleanup, Reach::ButLast));
        assert_eq!(asked.try_iter().count(), 1);
    }

    #[test]
    fn of_the_ends_the_last_are_kept_and_no_more() {
        let registry = Registry::default();
        let mut ran = Vec::new();
        for number in 0..KEPT + 2 {
            let name = number.to_string();
            let id = registry
                .add(name.clone().into(), Kind::Finalizer, None, Box::new(|_| ()), || true)
                .unwrap();
            assert_eq!(registry.run_by_hand(id), Some(Outcome::Ran));
            ran.push(FinalizerEnd::new(name.into(), Outcome::Ran));
        }
        assert_eq!(registry.ended(), ran[2..]);
    }
}
