//! A pool is used and ended, while its workers die or answer: each task has one outcome, and the pool ends.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

use epilogue_process::Limits;
use epilogue_process::bell::Bell;
use epilogue_process::entry::{Entry, Request};
use shuttle::thread::{self, JoinHandle};
use stand_in::{Fate, set_fates};

use crate::call::{NO_STATE, Which, head};
use crate::ends::Order;
use crate::flag::Flag;
use crate::floor::Reader;
use crate::harness::Model;
use crate::mailbox::Mailbox;
use crate::pool::Pool;
use crate::reader::Need;
use crate::report::Report;
use crate::shared::Shared;
use crate::sync::{AtomicUsize, Ordering};
use crate::taken_out::{Break, is_broken};
use crate::terms::Terms;
use crate::wakes::Told;

const SOME: usize = 10_000;
/// One in some 20,000 is enough to show what was wrong there once.
const MANY: usize = 100_000;

pub(crate) const MODELS: [Model; 10] = [
    Model {
        name: "calls_that_queue",
        run: calls_that_queue,
        schedules: SOME,
        needs: &[Break::News, Break::Look, Break::Listen],
    },
    Model {
        name: "a_call_of_many_tasks",
        run: a_call_of_many_tasks,
        schedules: SOME,
        needs: &[Break::Look, Break::Listen],
    },
    Model {
        name: "calls_that_are_cancelled",
        run: calls_that_are_cancelled,
        schedules: SOME,
        needs: &[Break::News, Break::Look, Break::Listen],
    },
    Model {
        name: "calls_that_nobody_waits_for",
        run: calls_that_nobody_waits_for,
        schedules: MANY,
        needs: &[Break::Look, Break::Listen],
    },
    Model {
        name: "a_worker_that_dies",
        run: a_worker_that_dies,
        schedules: SOME,
        needs: &[Break::News, Break::Look, Break::Listen],
    },
    Model {
        name: "tasks_that_are_awaited",
        run: tasks_that_are_awaited,
        schedules: SOME,
        needs: &[Break::Look, Break::Listen, Break::Leave],
    },
    Model {
        name: "a_pool_that_is_resized",
        run: a_pool_that_is_resized,
        schedules: SOME,
        needs: &[Break::News, Break::Look, Break::Listen],
    },
    Model {
        name: "a_pool_that_finishes",
        run: a_pool_that_finishes,
        schedules: SOME,
        needs: &[Break::News, Break::Look, Break::Listen],
    },
    Model {
        name: "a_pool_that_finishes_what_has_begun",
        run: a_pool_that_finishes_what_has_begun,
        schedules: SOME,
        needs: &[Break::News, Break::Listen],
    },
    Model {
        name: "a_pool_that_stops",
        run: a_pool_that_stops,
        schedules: SOME,
        needs: &[Break::News],
    },
];

/// A pool, and the thread that is its supervisor.
struct Running {
    shared: Arc<Shared>,
    supervisor: JoinHandle<Report>,
}

impl Running {
    fn start(workers: usize, fates: &[Fate]) -> Self {
        stand_in::begin();
        set_fates(fates);
        let (mut supervisor, _) = Shared::prepare(Pool::builder().workers(workers)).unwrap();
        let shared = Arc::get_mut(&mut supervisor.shared).unwrap();
        if is_broken(Break::Leave) {
            shared.bell = Arc::new(shared.bell.mute());
        }
        if is_broken(Break::News) {
            shared.floor().news = Arc::new(Bell::new().unwrap());
        }
        let shared = Arc::clone(&supervisor.shared);
        Self { shared, supervisor: thread::spawn(move || supervisor.watch()) }
    }

    fn call(&self, caller: impl FnOnce(&Shared) + Send + 'static) -> JoinHandle<()> {
        let shared = Arc::clone(&self.shared);
        thread::spawn(move || caller(&shared))
    }

    /// Ends it, which those who still call hear of; what it says then.
    fn end(self, order: Order, callers: impl IntoIterator<Item = JoinHandle<()>>) -> Report {
        end(&self.shared, order);
        join(callers);
        let report = self.supervisor.join().unwrap();
        let floor = self.shared.floor();
        assert!(floor.reader == Reader::None && floor.followers.is_empty());
        assert!(floor.members.is_empty() && floor.queue.is_empty());
        report
    }
}

fn end(shared: &Shared, order: Order) {
    // Its thread is not one that it could wait for.
    drop(shared.end(order));
    if is_broken(Break::Leave) {
        shared.floor().bell.ring();
    }
}

/// Submits a call of so many tasks, if the pool takes any.
fn submit(shared: &Shared, mailbox: &Arc<Mailbox>, first: usize, count: u32) -> bool {
    submit_job(shared, mailbox, first, count).is_some()
}

/// The same; its number.
fn submit_job(shared: &Shared, mailbox: &Arc<Mailbox>, first: usize, count: u32) -> Option<u64> {
    let mut request = Request::new(head(Entry::plain(|n: u32| n).unwrap(), NO_STATE));
    for item in 0..count {
        request.push(&item, &Limits::default(), &shared.stock).unwrap();
    }
    let submitted = shared.submit(&Terms::default(), None, NO_STATE, request, first, mailbox);
    submitted.ok().map(|submitted| submitted.job)
}

/// Waits until so many outcomes have come: each once.
fn take(shared: &Shared, mailbox: &Arc<Mailbox>, count: usize, need: Need) {
    let (mut taken, mut arrived) = (Vec::new(), VecDeque::new());
    while taken.len() < count {
        shared.wait(mailbox, need, None);
        mailbox.take_all(&mut arrived);
        let all = arrived.drain(..).flat_map(|one| one.first..one.first + one.count());
        taken.extend(all);
    }
    taken.sort_unstable();
    assert_eq!(taken, (0..count).collect::<Vec<_>>());
}

/// Two callers submit more than the workers have room for, and wait.
fn calls_that_queue() {
    let pool = Running::start(2, &[]);
    let callers = [0, 1].map(|_| {
        pool.call(|shared| {
            let mailbox = Arc::default();
            (0..4).for_each(|first| assert!(submit(shared, &mailbox, first, 1)));
            take(shared, &mailbox, 4, Need::Each);
        })
    });
    join(callers);
    let report = pool.end(Order::CLOSE, []);
    assert_eq!((report.done, report.workers.len()), (8, 2));
}

/// A caller waits for all of one call, of which an idle worker takes over a half, and another one for a task.
fn a_call_of_many_tasks() {
    let pool = Running::start(2, &[]);
    let many = pool.call(|shared| {
        let mailbox = Arc::default();
        assert!(submit(shared, &mailbox, 0, 5));
        take(shared, &mailbox, 5, Need::Many(5));
    });
    let one = pool.call(|shared| {
        let mailbox = Arc::default();
        assert!(submit(shared, &mailbox, 0, 1));
        take(shared, &mailbox, 1, Need::Each);
    });
    join([many, one]);
    assert_eq!(pool.end(Order::CLOSE, []).done, 6);
}

/// A caller takes back what it submitted: what lay in the worker's ring has no room there for the calls of
/// another caller, until the worker has passed it.
fn calls_that_are_cancelled() {
    let pool = Running::start(1, &[]);
    let cancels = pool.call(|shared| {
        let mailbox = Arc::default();
        let jobs = [0, 1, 2].map(|first| submit_job(shared, &mailbox, first, 1).unwrap());
        for job in jobs {
            shared.floor().cancel(Which::Job(job));
        }
        take(shared, &mailbox, 3, Need::Each);
    });
    let waits = pool.call(|shared| {
        let mailbox = Arc::default();
        (0..3).for_each(|first| assert!(submit(shared, &mailbox, first, 1)));
        take(shared, &mailbox, 3, Need::Each);
    });
    join([cancels, waits]);
    let report = pool.end(Order::CLOSE, []);
    assert_eq!(report.done + report.cancelled, 6);
    assert!(report.cancelled <= 3);
}

/// The supervisor alone sees to it that they are done before the pool has ended.
fn calls_that_nobody_waits_for() {
    let pool = Running::start(2, &[Fate::DiesAfter(1)]);
    let mailbox = Arc::default();
    (0..5).for_each(|first| assert!(submit(&pool.shared, &mailbox, first, 1)));
    let report = pool.end(Order::CLOSE, []);
    assert_eq!((report.done + report.lost, mailbox.len()), (5, 5));
}

/// It takes one task along, and another one takes its place.
fn a_worker_that_dies() {
    let pool = Running::start(2, &[Fate::DiesAfter(1)]);
    let callers = [0, 1].map(|_| {
        pool.call(|shared| {
            let mailbox = Arc::default();
            (0..3).for_each(|first| assert!(submit(shared, &mailbox, first, 1)));
            take(shared, &mailbox, 3, Need::Each);
        })
    });
    join(callers);
    let report = pool.end(Order::CLOSE, []);
    assert_eq!(report.done + report.lost, 6);
    assert!(report.lost <= 1 && report.broken.is_none());
}

/// Two tasks are awaited without a thread, of which one is lost, perhaps, while a caller waits for its own.
fn tasks_that_are_awaited() {
    let pool = Running::start(2, &[Fate::DiesAfter(1)]);
    let awaited = [0, 1].map(|_| {
        pool.call(|shared| {
            let (mailbox, flag) = (Arc::default(), Arc::new(Flag::default()));
            assert!(submit(shared, &mailbox, 0, 1));
            let told = || Told::Woken(Waker::from(Arc::clone(&flag)));
            while mailbox.subscribe(told(), &shared.wakes).is_ok() {
                shared.attend();
                flag.wait();
            }
            assert_eq!(mailbox.take().unwrap().first, 0);
            assert!(mailbox.take().is_none());
        })
    });
    let waits = pool.call(|shared| {
        let mailbox = Arc::default();
        (0..2).for_each(|first| assert!(submit(shared, &mailbox, first, 1)));
        take(shared, &mailbox, 2, Need::Each);
    });
    join(awaited.into_iter().chain([waits]));
    let report = pool.end(Order::CLOSE, []);
    assert_eq!(report.done + report.lost, 4);
}

/// Another worker comes, and one leaves, while a caller waits for more than one has room for.
fn a_pool_that_is_resized() {
    let pool = Running::start(1, &[]);
    let waits = pool.call(|shared| {
        let mailbox = Arc::default();
        (0..4).for_each(|first| assert!(submit(shared, &mailbox, first, 1)));
        take(shared, &mailbox, 4, Need::Each);
    });
    let resizes = pool.call(|shared| {
        [2, 1].into_iter().for_each(|workers| shared.floor().resize(workers));
    });
    join([waits, resizes]);
    let report = pool.end(Order::CLOSE, []);
    assert_eq!((report.done, report.cancelled), (4, 0));
}

/// A pool ends while two callers submit, and one of its workers dies; how, and how many tasks it took.
fn end_while_used(order: Order) -> (Report, u64) {
    let pool = Running::start(2, &[Fate::DiesAfter(1)]);
    let taken = Arc::new(AtomicUsize::new(0));
    let callers = [0, 1].map(|_| {
        let taken = Arc::clone(&taken);
        pool.call(move |shared| {
            let mailbox = Arc::default();
            let count = (0..3).take_while(|&first| submit(shared, &mailbox, first, 1)).count();
            taken.fetch_add(count, Ordering::Relaxed);
            take(shared, &mailbox, count, Need::Each);
        })
    });
    let report = pool.end(order, callers);
    (report, taken.load(Ordering::Relaxed) as u64)
}

fn a_pool_that_finishes() {
    let (report, taken) = end_while_used(Order::CLOSE);
    assert_eq!((report.done + report.lost, report.cancelled), (taken, 0));
}

fn a_pool_that_finishes_what_has_begun() {
    let (report, taken) = end_while_used(Order::FinishBegun { deadline: None });
    assert_eq!(report.done + report.lost + report.cancelled, taken);
}

fn a_pool_that_stops() {
    let (report, taken) = end_while_used(Order::TERMINATE);
    assert_eq!(report.done + report.lost + report.cancelled, taken);
}

fn join(threads: impl IntoIterator<Item = JoinHandle<()>>) {
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}
