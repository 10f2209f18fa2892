//! Where the outcomes of a task, or of all tasks of a job, wait for whoever asked for them.

use std::collections::VecDeque;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use epilogue_process::parcel::Parcel;
use epilogue_process::ring::Reply;

use crate::error::TaskError;
use crate::scope::{Tally, Ticket};
use crate::sync::{AtomicBool, Condvar, Mutex, MutexGuard, Ordering};
use crate::wakes::{Subscriber, Told, Wakes};

/// Which of a job's tasks an outcome belongs to.
pub(crate) type Index = usize;

/// The outcomes of some tasks that follow one another.
#[derive(Debug)]
pub(crate) struct Arrival {
    /// The first of them.
    pub(crate) first: Index,
    pub(crate) outcomes: Outcomes,
}

#[derive(Debug)]
pub(crate) enum Outcomes {
    /// Encoded answers, as many as the reply says.
    Answers(Reply),
    /// One encoded answer that came alone.
    Answer(Parcel),
    /// Why so many tasks have no answer.
    Failed { count: usize, error: TaskError },
}

impl Arrival {
    /// How many outcomes there are.
    pub(crate) fn count(&self) -> usize {
        match &self.outcomes {
            Outcomes::Answers(reply) => reply.count as usize,
            Outcomes::Answer(_) => 1,
            Outcomes::Failed { count, .. } => *count,
        }
    }

    /// How many bytes they have.
    pub(crate) fn bytes(&self) -> usize {
        match &self.outcomes {
            Outcomes::Answers(reply) => reply.bytes.len(),
            Outcomes::Answer(parcel) => parcel.len(),
            Outcomes::Failed { .. } => 0,
        }
    }
}

#[derive(Debug, Default)]
struct Content {
    arrivals: VecDeque<Arrival>,
    /// Whether the owner, who sleeps until something arrives, shall read what workers answer.
    promoted: bool,
    /// How many sleep: to notify nobody is a system call, too.
    sleepers: usize,
    /// Who is to be woken, once, when something has arrived.
    subscriber: Option<Subscriber>,
    /// Where everything goes instead, as the one of that position.
    forward: Option<(Arc<Mailbox>, Index)>,
    /// That its one task, which was submitted in a scope, has no outcome yet.
    ticket: Option<Ticket>,
}

/// The outcomes that have arrived for one owner.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    content: Mutex<Content>,
    /// Whether there may be something to take. Written behind the lock: whoever has had that since,
    /// sees it.
    is_filled: AtomicBool,
    /// Whether none of the owner's tasks is to begin any more. Of the floor, and behind its lock.
    begins_no_more: AtomicBool,
    arrived: Condvar,
    cost: Cost,
}

impl Mailbox {
    /// One for the outcome of a task in a scope.
    pub(crate) fn with_ticket(ticket: Ticket) -> Self {
        let content = Content { ticket: Some(ticket), ..Content::default() };
        Self { content: Mutex::new(content), ..Self::default() }
    }

    /// Whether it is for a task in this scope that has no outcome yet.
    pub(crate) fn is_of(&self, tally: &Arc<Tally>) -> bool {
        self.lock().ticket.as_ref().is_some_and(|ticket| ticket.is_of(tally))
    }

    /// None of the owner's tasks is to begin any more, nor again.
    pub(crate) fn begin_no_more(&self) {
        self.begins_no_more.store(true, Ordering::Relaxed);
    }

    pub(crate) fn begins_no_more(&self) -> bool {
        self.begins_no_more.load(Ordering::Relaxed)
    }

    pub(crate) fn put(&self, arrival: Arrival) {
        let mut content = self.lock();
        let ticket = content.ticket.take();
        if let Some((other, first)) = content.forward.clone() {
            drop(content);
            return other.put(Arrival { first, ..arrival });
        }
        content.arrivals.push_back(arrival);
        self.is_filled.store(true, Ordering::Relaxed);
        if content.sleepers > 0 {
            self.arrived.notify_one();
        }
        if let Some(subscriber) = content.subscriber.take() {
            subscriber.fulfil();
        }
        drop(content);
        // As the last: whoever hears of the end of the scope finds the outcome.
        drop(ticket);
    }

    /// Has somebody told when something has arrived, instead of who was to be told before.
    ///
    /// # Errors
    ///
    /// Who was to be told, if something has arrived already: then nobody is.
    pub(crate) fn subscribe(&self, told: Told, wakes: &Arc<Wakes>) -> Result<(), Told> {
        let mut content = self.lock();
        if !content.arrivals.is_empty() {
            return Err(told);
        }
        let unused = content.subscriber.replace(Subscriber::new(told, wakes));
        // Dropping a waker calls code that is not ours: not behind the lock.
        drop(content);
        drop(unused);
        Ok(())
    }

    /// Nobody is to be woken any more.
    pub(crate) fn unsubscribe(&self) {
        let unused = self.lock().subscriber.take();
        drop(unused);
    }

    /// Has all that has arrived here, and that will, arrive in `other`, as the one of that position.
    pub(crate) fn forward(&self, other: &Arc<Self>, position: Index) {
        let mut content = self.lock();
        content.forward = Some((Arc::clone(other), position));
        let arrivals = std::mem::take(&mut content.arrivals);
        drop(content);
        arrivals.into_iter().for_each(|arrival| other.put(Arrival { first: position, ..arrival }));
    }

    /// Takes all that has arrived; `taken` is empty, and its memory is kept for what arrives next.
    pub(crate) fn take_all(&self, taken: &mut VecDeque<Arrival>) {
        // A map asks before each call that it sends, and mostly in vain.
        if self.is_filled.load(Ordering::Relaxed) {
            let mut content = self.lock();
            self.is_filled.store(false, Ordering::Relaxed);
            std::mem::swap(&mut content.arrivals, taken);
        }
    }

    pub(crate) fn take(&self) -> Option<Arrival> {
        self.lock().arrivals.pop_front()
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().arrivals.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().arrivals.is_empty()
    }

    /// Sleeps until something has arrived, or the owner is to read itself, or until the deadline.
    pub(crate) fn sleep(&self, deadline: Option<Instant>) {
        let mut content = self.lock();
        content.sleepers += 1;
        let nothing = |content: &mut Content| content.arrivals.is_empty() && !content.promoted;
        content = match deadline {
            None => {
                self.arrived.wait_while(content, nothing).unwrap_or_else(PoisonError::into_inner)
            }
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                let woken = self.arrived.wait_timeout_while(content, left, nothing);
                woken.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        content.sleepers -= 1;
        content.promoted = false;
    }

    /// Has the owner read what workers answer, as the one who did so has what it waited for.
    pub(crate) fn promote(&self) {
        self.lock().promoted = true;
        self.arrived.notify_one();
    }

    pub(crate) fn cost(&self) -> &Cost {
        &self.cost
    }

    fn lock(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long a task of this job takes: the mean of the last ones, as the workers measure it.
#[derive(Debug, Default)]
pub(crate) struct Cost {
    /// Nanoseconds, and how many tasks took them. At each look three quarters of both remain, so a
    /// record of many tasks counts for as many: what is known of a single one is mostly how long it
    /// takes to begin.
    nanos: AtomicU64,
    tasks: AtomicU64,
    /// The one by the other; zero as long as nothing is known.
    each: AtomicU64,
}

impl Cost {
    /// The sums are of so many parts of what was measured, for what is left of a few is not nothing.
    const PARTS: u64 = 256;

    /// Takes notice of so many tasks that took so long. Of those who do, one at a time.
    pub(crate) fn note(&self, count: u32, nanos: u64) {
        let add = |sum: &AtomicU64, more: u64| {
            let before = sum.load(Ordering::Relaxed);
            let now = (before - before / 4).saturating_add(more.saturating_mul(Self::PARTS));
            sum.store(now, Ordering::Relaxed);
            now
        };
        let (nanos, tasks) = (add(&self.nanos, nanos), add(&self.tasks, count.into()));
        self.each.store((nanos / tasks.max(1)).max(1), Ordering::Relaxed);
    }

    fn each(&self) -> Option<u64> {
        Some(self.each.load(Ordering::Relaxed)).filter(|&each| each > 0)
    }

    /// How long so many tasks will take. None as long as nothing is known.
    pub(crate) fn of(&self, count: usize) -> Option<Duration> {
        Some(Duration::from_nanos(self.each()?.saturating_mul(count as u64)))
    }

    /// How many tasks take so long. None as long as nothing is known.
    pub(crate) fn in_time(&self, time: Duration) -> Option<usize> {
        usize::try_from(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX) / self.each()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::Cost;
    use std::time::Duration;

    #[test]
    fn a_record_of_many_tasks_counts_for_as_many() {
        let cost = Cost::default();
        assert_eq!(cost.of(1), None);
        let is_about = |nanos: u64| {
            let each = cost.of(1).unwrap();
            Duration::from_nanos(nanos * 9 / 10) < each && each < Duration::from_nanos(nanos * 2)
        };
        (0..20).for_each(|_| cost.note(1, 1_000));
        assert!(is_about(1_000));
        cost.note(1_000, 10_000);
        assert!(is_about(10));
        // And is forgotten as fast.
        (0..30).for_each(|_| cost.note(1, 1_000));
        assert!(is_about(1_000));
    }
}
