//! Tasks can be waited for together and without a thread: as they are done, and as futures.

use std::future::poll_fn;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;

use epilogue::pool::CloseError;
use epilogue::{Pool, Refusal, Task, TaskError, as_completed};
use nix::sys::signal::{Signal, kill};
use support::{Gate, begin, block_on, procfs, through};

struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn outcomes_are_given_as_they_are_done_with_the_position_of_their_task() {
    let (oracle, _watchdog) = begin();
    let gate = Gate::new();
    let pool = Pool::new(2).unwrap();
    let mut tasks = vec![pool.submit((gate.path(), 0u64), through).unwrap()];
    let pass = |(_, n): (PathBuf, u64)| n;
    tasks.extend((1..50).map(|n| pool.submit((gate.path(), n), pass).unwrap()));
    let mut outcomes = as_completed(tasks);
    assert_eq!(outcomes.len(), 50);
    let mut positions: Vec<_> = outcomes.by_ref().take(49).map(|(n, _)| n).collect();
    positions.sort();
    assert_eq!(positions, (1..50).collect::<Vec<_>>(), "the first waits at the gate");
    drop(gate);
    let (position, value) = outcomes.next().unwrap();
    assert_eq!((position, value.unwrap()), (0, 0));
    assert!((0..3).all(|_| outcomes.next().is_none()));
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn all_kinds_of_outcomes_are_given_and_those_of_tasks_that_were_done_before() {
    let (oracle, _watchdog) = begin();
    let (pool, other) = (Pool::new(2).unwrap(), Pool::new(1).unwrap());
    let mut joined = pool.submit(0u64, |x| x).unwrap();
    while joined.try_join().unwrap().is_none() {}
    let done = pool.submit(1u64, |x| x).unwrap();
    while !done.is_finished() {}
    let elsewhere = other.submit(2u64, |x| x).unwrap();
    let dies = pool.submit(3u64, |_| std::process::abort()).unwrap();
    let panics = pool.submit(4u64, |x| if x == 4 { panic!("on purpose") } else { x }).unwrap();
    let of_the_past = {
        let past = Pool::new(1).unwrap();
        past.submit(5u64, |x| x).unwrap()
    };
    let tasks = [joined, done, elsewhere, dies, panics, of_the_past];
    let mut outcomes: Vec<_> = pool.as_completed(tasks).collect();
    outcomes.sort_by_key(|(position, _)| *position);
    let outcomes: Vec<_> = outcomes.into_iter().map(|(_, outcome)| outcome).collect();
    let [joined, done, elsewhere, dies, panics, past] = &outcomes[..] else { panic!() };
    assert!(matches!(joined, Err(TaskError::AlreadyJoined)), "{joined:?}");
    assert!(matches!((done, elsewhere, past), (Ok(1), Ok(2), Ok(5))), "{outcomes:?}");
    assert!(matches!(dies, Err(TaskError::WorkerLost(_))), "{dies:?}");
    assert!(matches!(panics, Err(TaskError::Panicked(_))), "{panics:?}");
    assert!(pool.as_completed(Vec::<Task<u8>>::new()).next().is_none());
    drop((pool, other));
    oracle.nothing_left();
}

#[test]
fn tasks_of_several_pools_are_waited_for_together() {
    let (oracle, _watchdog) = begin();
    let pools = [Pool::new(1).unwrap(), Pool::new(1).unwrap()];
    let mut gates = [Gate::new(), Gate::new()];
    let tasks = [0, 1].map(|n| pools[n].submit((gates[n].path(), n as u64), through).unwrap());
    for gate in &mut gates {
        gate.wait();
    }
    let mut outcomes = as_completed(tasks);
    for n in [1, 0] {
        gates[n].open_once();
        let (position, value) = outcomes.next().unwrap();
        assert_eq!((position, value.unwrap()), (n, n as u64));
    }
    drop((outcomes, pools, gates));
    oracle.nothing_left();
}

#[test]
fn whoever_waits_for_what_is_cancelled_is_told_however_the_pool_ends() {
    let (oracle, _watchdog) = begin();
    for _ in 0..20 {
        let pool = Pool::new(2).unwrap();
        let tasks = pool.submit_all(0..100u64, |x| x).unwrap();
        let waits = pool.submit_all(0..100u64, |x| x).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| assert_eq!(as_completed(tasks).count(), 100));
            scope.spawn(|| {
                for task in waits {
                    let outcome = block_on(task);
                    let is_told = matches!(outcome, Ok(_) | Err(TaskError::Cancelled { .. }));
                    assert!(is_told, "{outcome:?}");
                }
            });
            assert!(pool.terminate().is_ok());
        });
        drop(pool);
    }
    oracle.nothing_left();
}

#[test]
fn many_tasks_are_submitted_at_once_and_each_has_its_outcome() {
    let (oracle, _watchdog) = begin();
    let mut limits = epilogue::Limits::default();
    limits.max_bytes = 1 << 16;
    let pool = Pool::builder().workers(2).limits(limits).start().unwrap();
    let tasks = pool.submit_all(0..10_000u64, |x| x + 1).unwrap();
    for (n, task) in tasks.into_iter().enumerate() {
        assert_eq!(task.join().unwrap(), n as u64 + 1);
    }
    let texts = [4, 1 << 17, 5].map(|len| "x".repeat(len));
    let tasks = pool.submit_all(texts, |text| text.len()).unwrap();
    let [first, second, third] = <[_; 3]>::try_from(tasks).unwrap();
    assert!(matches!(second.join(), Err(TaskError::Refused(Refusal::Encode(_)))));
    assert_eq!((first.join().unwrap(), third.join().unwrap()), (4, 5));
    let panics = pool.submit_all((0..9u64).inspect(|n| assert!(*n < 5, "no {n}")), |x| x);
    assert!(matches!(panics, Err(Refusal::InputPanicked { .. })), "{panics:?}");
    assert!(pool.close().unwrap().is_clean());
    assert!(matches!(pool.submit_all([1u8], |x| x), Err(Refusal::Closed)));
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn a_task_can_be_awaited_by_any_executor_and_takes_no_thread_for_it() {
    let (oracle, _watchdog) = begin();
    let mut gate = Gate::new();
    let pool = Pool::new(2).unwrap();
    let threads = || procfs::threads_of(nix::unistd::getpid()).len();
    let before = threads();
    let mut tasks: Vec<_> =
        (0..100u64).map(|n| pool.submit((gate.path(), n), through).unwrap()).collect();
    gate.wait_for(2);
    let count = Arc::new(Count(AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&count));
    for task in &mut tasks {
        let poll = Pin::new(task).poll(&mut Context::from_waker(&waker));
        assert!(poll.is_pending());
    }
    assert_eq!((threads(), count.0.load(Ordering::Relaxed)), (before, 0));
    drop(gate);
    // All of them together, on one thread.
    let mut values = vec![None; 100];
    block_on(poll_fn(|context| {
        for (task, value) in tasks.iter_mut().zip(&mut values) {
            if value.is_none()
                && let Poll::Ready(outcome) = Pin::new(task).poll(context)
            {
                *value = Some(outcome.unwrap());
            }
        }
        if values.contains(&None) { Poll::Pending } else { Poll::Ready(()) }
    }));
    assert_eq!(values, (0..100).map(Some).collect::<Vec<_>>());
    let mut task = tasks.pop().unwrap();
    let again = Pin::new(&mut task).poll(&mut Context::from_waker(&waker));
    assert!(matches!(again, Poll::Ready(Err(TaskError::AlreadyJoined))), "{again:?}");
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn the_last_waker_is_woken_once_and_one_that_let_go_never() {
    let (oracle, _watchdog) = begin();
    let mut gate = Gate::new();
    let pool = Pool::new(2).unwrap();
    let counts = [0; 3].map(|_| Arc::new(Count(AtomicUsize::new(0))));
    let wakers = counts.each_ref().map(|count| Waker::from(Arc::clone(count)));
    let tasks = [0u64, 1].map(|n| pool.submit((gate.path(), n), through).unwrap());
    gate.wait_for(2);
    let [mut kept, mut dropped] = tasks;
    for waker in &wakers[..2] {
        assert!(Pin::new(&mut kept).poll(&mut Context::from_waker(waker)).is_pending());
    }
    assert!(Pin::new(&mut dropped).poll(&mut Context::from_waker(&wakers[2])).is_pending());
    drop(dropped);
    gate.open_once();
    while counts[1].0.load(Ordering::Relaxed) == 0 {
        thread::yield_now();
    }
    assert_eq!(block_on(kept).unwrap(), 0);
    assert_eq!(pool.close().unwrap().done, 2);
    assert_eq!(counts.each_ref().map(|count| count.0.load(Ordering::Relaxed)), [0, 1, 0]);
    drop((pool, gate));
    oracle.nothing_left();
}

#[test]
fn a_task_that_is_awaited_learns_that_its_worker_died_that_it_was_cancelled_and_that_the_pool_went()
{
    let (oracle, _watchdog) = begin();
    let mut gate = Gate::new();
    let pool = Pool::new(1).unwrap();
    let mut lost = pool.submit((gate.path(), 0u64), through).unwrap();
    let pid = gate.wait();
    let mut cancelled = pool.submit((gate.path(), 1u64), through).unwrap();
    let count = Arc::new(Count(AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&count));
    let mut context = Context::from_waker(&waker);
    assert!(Pin::new(&mut lost).poll(&mut context).is_pending());
    assert!(Pin::new(&mut cancelled).poll(&mut context).is_pending());
    assert!(cancelled.cancel());
    assert_eq!(count.0.load(Ordering::Relaxed), 1);
    kill(pid, Signal::SIGKILL).unwrap();
    assert!(matches!(block_on(lost), Err(TaskError::WorkerLost(_))));
    assert!(matches!(block_on(cancelled), Err(TaskError::Cancelled { begun: false })));
    let task = pool.submit(2u64, |x| x).unwrap();
    drop((pool, gate));
    assert_eq!(block_on(task).unwrap(), 2);
    oracle.nothing_left();
}

/// Who waits for a task reads for all. It must not come to wait for itself.
#[test]
fn a_waker_may_wait_for_a_task_on_a_thread_that_waits_for_another() {
    /// Opens the gate of the other one as the last.
    struct Waits(Arc<Pool>, Mutex<Option<Gate>>);
    impl Wake for Waits {
        fn wake(self: Arc<Self>) {
            assert_eq!(self.0.submit(1u64, |x| x).unwrap().join().unwrap(), 1);
            drop(self.1.lock().unwrap().take());
        }
    }
    let (oracle, _watchdog) = begin();
    let pool = Arc::new(Pool::new(2).unwrap());
    for _ in 0..100 {
        let (mut first, mut second) = (Gate::new(), Gate::new());
        let joined = pool.submit((first.path(), 0u64), through).unwrap();
        let mut awaited = pool.submit((second.path(), 1u64), through).unwrap();
        first.wait();
        second.wait();
        let waker = Waker::from(Arc::new(Waits(Arc::clone(&pool), Mutex::new(Some(first)))));
        let polled = Pin::new(&mut awaited).poll(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
        drop(waker);
        let opener = thread::spawn(move || drop(second));
        assert_eq!(joined.join().unwrap(), 0);
        opener.join().unwrap();
        assert_eq!(block_on(awaited).unwrap(), 1);
    }
    assert!(pool.close().unwrap().is_clean());
    drop(pool);
    oracle.nothing_left();
}

/// On whatever thread: on the pool's own, it is not waited for, by which another thread that does would
/// wait for ever.
#[test]
fn a_waker_may_end_the_pool_that_another_thread_closes() {
    struct Ends(Arc<Pool>);
    impl Wake for Ends {
        fn wake(self: Arc<Self>) {
            match self.0.terminate() {
                Ok(_) => assert_ne!(thread::current().name(), Some("epilogue-pool")),
                Err(error) => assert!(matches!(error, CloseError::OnOwnThread), "{error}"),
            }
        }
    }
    let (oracle, _watchdog) = begin();
    for _ in 0..20 {
        let mut gate = Gate::new();
        let pool = Arc::new(Pool::new(2).unwrap());
        let mut task = pool.submit((gate.path(), 1u64), through).unwrap();
        gate.wait();
        let waker = Waker::from(Arc::new(Ends(Arc::clone(&pool))));
        let polled = Pin::new(&mut task).poll(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
        drop(waker);
        let opener = thread::spawn(move || drop(gate));
        assert!(pool.close().unwrap().is_clean());
        opener.join().unwrap();
        assert_eq!(block_on(task).unwrap(), 1);
    }
    oracle.nothing_left();
}

/// Nobody waits for that thread then.
#[test]
fn a_pool_that_is_dropped_by_a_waker_on_its_own_thread_leaves_nothing_behind() {
    struct Drops(Mutex<Option<Pool>>, Sender<bool>);
    impl Wake for Drops {
        fn wake(self: Arc<Self>) {
            drop(self.0.lock().unwrap().take());
            let is_own = thread::current().name() == Some("epilogue-pool");
            self.1.send(is_own).unwrap();
        }
    }
    let (oracle, _watchdog) = begin();
    let mut gate = Gate::new();
    let pool = Pool::builder().workers(2).on_event(|_| ()).start().unwrap();
    let (mut first, second) = (Gate::new(), pool.submit(vec![7u8; 1 << 20], |bytes| bytes.len()));
    let mut task = pool.submit((first.path(), 1u64), through).unwrap();
    let behind = pool.submit((gate.path(), 2u64), through).unwrap();
    first.wait();
    gate.wait();
    let (sender, outcomes) = channel();
    let called = sender.clone();
    behind.on_done(move |outcome| called.send(outcome.is_ok_and(|x| x == 2)).unwrap());
    let waker = Waker::from(Arc::new(Drops(Mutex::new(Some(pool)), sender)));
    assert!(Pin::new(&mut task).poll(&mut Context::from_waker(&waker)).is_pending());
    drop((waker, first));
    assert_eq!(outcomes.recv(), Ok(true), "it is woken by that thread");
    drop(gate);
    assert_eq!(outcomes.recv(), Ok(true), "the pool is closed, not terminated");
    assert_eq!(second.unwrap().join().unwrap(), 1 << 20);
    assert_eq!(block_on(task).unwrap(), 1);
    oracle.nothing_left_soon();
    oracle.nothing_left();
}

/// Each comes back to the pool, where the next one is due.
#[test]
fn however_many_are_woken_at_once_may_use_the_pool() {
    struct Uses(Arc<Pool>, AtomicUsize);
    impl Wake for Uses {
        fn wake(self: Arc<Self>) {
            assert!(self.0.stats().workers.wanted > 0);
            self.1.fetch_add(1, Ordering::Relaxed);
        }
    }
    const TASKS: usize = 20_000;
    let (oracle, _watchdog) = begin();
    let mut gate = Gate::new();
    let pool = Arc::new(Pool::new(1).unwrap());
    let busy = pool.submit((gate.path(), 0u64), through).unwrap();
    gate.wait();
    let uses = Arc::new(Uses(Arc::clone(&pool), AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&uses));
    let mut tasks: Vec<_> = (0..TASKS).map(|_| pool.submit(1u64, |x| x).unwrap()).collect();
    for task in &mut tasks {
        assert!(Pin::new(task).poll(&mut Context::from_waker(&waker)).is_pending());
    }
    assert_eq!(pool.terminate().unwrap().cancelled, TASKS as u64 + 1);
    drop((busy, tasks, waker));
    assert_eq!(uses.1.load(Ordering::Relaxed), TASKS);
    drop((uses, gate, pool));
    oracle.nothing_left();
}

/// More than one thread calls, each within the one before, wait for what the last one does; whoever may call no
/// more of them sleeps, and leaves them to others.
#[test]
fn wakers_may_wait_for_the_one_that_is_due_after_all_of_them() {
    /// Waits for a task that stands at the gate.
    struct Waits(Arc<Pool>, PathBuf);
    impl Wake for Waits {
        fn wake(self: Arc<Self>) {
            self.0.submit((self.1.clone(), 1u64), through).unwrap().join().unwrap();
        }
    }
    /// Opens the gate.
    struct Opens(Mutex<Option<Gate>>);
    impl Wake for Opens {
        fn wake(self: Arc<Self>) {
            drop(self.0.lock().unwrap().take());
        }
    }
    // Whichever thread it is, it calls 64 at once.
    const WAIT: usize = 60;
    let (oracle, _watchdog) = begin();
    let (mut first, gate) = (Gate::new(), Gate::new());
    let pool = Arc::new(Pool::builder().workers(1).chunk_size(1000).start().unwrap());
    // All are answered together, when the first of them may go on.
    let path = first.path();
    let mut tasks = pool.submit_all(vec![(path, 1u64); WAIT + 1], through).unwrap();
    first.wait();
    let waits = Waker::from(Arc::new(Waits(Arc::clone(&pool), gate.path())));
    let opens = Waker::from(Arc::new(Opens(Mutex::new(Some(gate)))));
    for (position, task) in tasks.iter_mut().enumerate() {
        let waker = if position < WAIT { &waits } else { &opens };
        assert!(Pin::new(task).poll(&mut Context::from_waker(waker)).is_pending());
    }
    drop((waits, opens, first));
    for task in tasks {
        assert_eq!(block_on(task).unwrap(), 1);
    }
    assert!(pool.close().unwrap().is_clean());
    drop(pool);
    oracle.nothing_left();
}

/// What one is woken for may wait for another one, or for a callback, whose outcomes have come with its own.
#[test]
fn a_waker_may_wait_for_what_is_done_at_the_same_time() {
    struct Waits(Arc<Pool>, Mutex<Receiver<()>>, Sender<&'static str>);
    impl Wake for Waits {
        fn wake(self: Arc<Self>) {
            let ended = self.0.close().is_ok();
            self.1.lock().unwrap().recv().unwrap();
            self.2.send(if ended { "ended" } else { "on the pool's own thread" }).unwrap();
        }
    }
    struct Tells(Sender<()>);
    impl Wake for Tells {
        fn wake(self: Arc<Self>) {
            self.0.send(()).unwrap();
        }
    }
    let (oracle, _watchdog) = begin();
    let mut gate = Gate::new();
    let pool = Arc::new(Pool::new(1).unwrap());
    let busy = pool.submit((gate.path(), 0u64), through).unwrap();
    gate.wait();
    // What has not begun is taken back from the last on.
    let (called, calls) = channel();
    pool.submit(1u64, |x| x).unwrap().on_done(move |outcome| called.send(outcome).unwrap());
    let [mut second, mut first] = [2u64, 3].map(|x| pool.submit(x, |x| x).unwrap());
    let ((tell, told), (say, said)) = (channel(), channel());
    let waits = Waits(Arc::clone(&pool), Mutex::new(told), say);
    for (task, waker) in [
        (&mut second, Waker::from(Arc::new(Tells(tell)))),
        (&mut first, Waker::from(Arc::new(waits))),
    ] {
        assert!(Pin::new(task).poll(&mut Context::from_waker(&waker)).is_pending());
    }
    let report = pool.terminate().unwrap();
    assert_eq!(report.cancelled, 4, "{report}");
    assert!(["ended", "on the pool's own thread"].contains(&said.recv().unwrap()));
    assert!(calls.recv().unwrap().is_err());
    drop((busy, first, second, gate, pool));
    oracle.nothing_left();
}

/// A waker that panics, or comes back to the pool, is called where it does no harm.
#[test]
fn a_waker_may_panic_or_use_the_pool() {
    struct Submits(Arc<Pool>);
    impl Wake for Submits {
        fn wake(self: Arc<Self>) {
            assert_eq!(self.0.submit(1u64, |x| x).unwrap().join().unwrap(), 1);
            std::panic::panic_any(Bomb);
        }
    }
    /// A payload that panics again.
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("on purpose");
        }
    }
    let (oracle, _watchdog) = begin();
    let mut gate = Gate::new();
    let pool = Arc::new(Pool::new(2).unwrap());
    let mut tasks = [0u64, 1].map(|n| pool.submit((gate.path(), n), through).unwrap());
    gate.wait_for(2);
    let waker = Waker::from(Arc::new(Submits(Arc::clone(&pool))));
    for task in &mut tasks {
        assert!(Pin::new(task).poll(&mut Context::from_waker(&waker)).is_pending());
    }
    gate.open_once();
    assert_eq!(tasks.map(|task| block_on(task).unwrap()), [0, 1]);
    drop(waker);
    assert_eq!(pool.map(0..10u64, |x| x).unwrap().len(), 10);
    assert!(pool.close().unwrap().is_clean());
    drop((pool, gate));
    oracle.nothing_left();
}
