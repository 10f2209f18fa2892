//! A pool tells what happens in it, to who listens, as it happens; and nobody who listens can harm it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::Duration;

use epilogue::pool::{Builder, WorkerId};
use epilogue::process::ExitStatus;
use epilogue::{Event, Outcome, Pool, TaskError, TaskOptions};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{Gate, Marks, begin, park_for_ever, through};

/// A pool that is listened to, and what it tells.
fn observed(builder: Builder) -> (Pool, Receiver<Event>) {
    let (told, events) = channel();
    let pool = builder.on_event(move |event| told.send(event.clone()).unwrap());
    (pool.start().unwrap(), events)
}

/// Closes the pool, and drops it: then nothing of it may be left.
fn end(pool: Pool) {
    assert!(pool.close().is_ok());
}

fn die() -> ! {
    setrlimit(Resource::RLIMIT_CORE, 0, 0).unwrap();
    std::process::abort()
}

/// The outcomes of all tasks of each job, in the order of the tasks.
fn outcomes(events: &[Event]) -> BTreeMap<u64, Vec<Outcome>> {
    let mut jobs = BTreeMap::<u64, BTreeMap<usize, Outcome>>::new();
    for event in events {
        if let Event::Ended { tasks, outcome, .. } = event {
            for index in tasks.range() {
                let before = jobs.entry(tasks.job).or_default().insert(index, *outcome);
                assert_eq!(before, None, "a second outcome: {event}");
            }
        }
    }
    jobs.into_iter().map(|(job, outcomes)| (job, outcomes.into_values().collect())).collect()
}

/// The one outcome of each task that was submitted by itself, as they were submitted.
fn single_outcomes(events: &[Event]) -> Vec<Outcome> {
    outcomes(events).into_values().map(|outcomes| outcomes[0]).collect()
}

#[test]
fn every_task_is_told_of_as_it_is_queued_as_it_starts_and_as_it_ends() {
    let (oracle, _watchdog) = begin();
    let (pool, events) = observed(Pool::builder().workers(2));
    // So few that no event can be missed, however late the thread that tells has its turn.
    let squares = pool.map(0..800u64, |x| x * x).unwrap();
    assert_eq!(squares.len(), 800);
    let task = pool.submit("one".to_owned(), |text| text.len()).unwrap();
    let id = task.id();
    assert_eq!(task.join().unwrap(), 3);
    end(pool);
    let events: Vec<_> = events.iter().collect();
    assert!(matches!(events.last(), Some(Event::Closed)), "{:?}", events.last());
    // Of each task: how far it was told to be.
    let mut stages = BTreeMap::new();
    for event in &events {
        let (tasks, from, to) = match event {
            Event::Queued { tasks, .. } => (tasks, 0, 1),
            Event::Started { tasks, .. } => (tasks, 1, 2),
            Event::Ended { tasks, outcome, worker, waited, .. } => {
                assert_eq!(*outcome, Outcome::Done, "{event}");
                assert!(worker.is_some() && waited.is_some(), "{event}");
                (tasks, 2, 3)
            }
            _ => continue,
        };
        for index in tasks.range() {
            let stage = stages.entry((tasks.job, index)).or_insert(0);
            // What was told to start with others, and moved before it began, starts a second time.
            assert!(*stage == from || (to == 2 && *stage == 2), "{stage} at {event}");
            *stage = to;
        }
    }
    assert_eq!(stages.len(), 801);
    assert!(stages.values().all(|&stage| stage == 3));
    assert_eq!(stages.keys().filter(|(job, _)| *job == id).count(), 1);
    oracle.nothing_left();
}

#[test]
fn the_start_of_a_task_is_told_while_it_runs_although_nobody_waits_for_it() {
    let (oracle, _watchdog) = begin();
    let mut gate = Gate::new();
    let (pool, events) = observed(Pool::builder().workers(1));
    let task = pool.submit((gate.path(), 7u32), through).unwrap();
    let pid = gate.wait();
    // Nobody joins, and the task cannot end before this was told.
    let started = events.iter().find_map(|event| match event {
        Event::Started { tasks, worker, .. } => Some((tasks, worker)),
        _ => None,
    });
    let (tasks, worker) = started.unwrap();
    assert_eq!((tasks.job, tasks.count, worker.pid), (task.id(), 1, pid.as_raw() as u32));
    drop(gate);
    let ended = events.iter().find_map(|event| match event {
        Event::Ended { worker, ran, .. } => Some((worker, ran)),
        _ => None,
    });
    // Nor did anybody join it by now.
    let (ended_in, ran) = ended.unwrap();
    assert_eq!(ended_in, Some(worker));
    assert!(ran.is_some(), "a first task is measured");
    drop(task);
    end(pool);
    oracle.nothing_left();
}

#[test]
fn what_came_of_a_task_is_told_in_a_word() {
    let (oracle, _watchdog) = begin();
    let (pool, events) = observed(Pool::builder().workers(1));
    let errors = pool.try_map([1u32], |_| Err::<(), _>("no")).unwrap_err();
    assert!(matches!(errors, TaskError::Failed(_)));
    let panicked = pool
        .submit(true, |yes| {
            if yes {
                panic!("on purpose")
            }
        })
        .unwrap();
    panicked.join().unwrap_err();
    pool.submit((), |()| {
        if std::process::id() > 0 {
            die()
        }
    })
    .unwrap()
    .join()
    .unwrap_err();
    let idempotent = TaskOptions::new().retries(1);
    let poison = |()| {
        if std::process::id() > 0 {
            die()
        }
    };
    pool.submit_with(&idempotent, (), poison).unwrap().join().unwrap_err();
    let brief = TaskOptions::new().timeout(Duration::from_millis(20));
    let endless = |()| {
        if std::process::id() > 0 {
            park_for_ever()
        }
    };
    pool.submit_with(&brief, (), endless).unwrap().join().unwrap_err();
    let mut gate = Gate::new();
    let holder = pool.submit((gate.path(), 7u32), through).unwrap();
    gate.wait();
    let impatient = TaskOptions::new().queue_timeout(Duration::from_millis(20));
    pool.submit_with(&impatient, (), |()| ()).unwrap().join().unwrap_err();
    let cancelled = pool.submit((), |()| ()).unwrap();
    assert!(cancelled.cancel());
    drop(gate);
    holder.join().unwrap();
    let large = pool.submit((), |()| vec![0u8; 1 << 20]).unwrap();
    large.join().unwrap();
    end(pool);
    let events: Vec<_> = events.iter().collect();
    let expected = [
        Outcome::Failed,
        Outcome::Panicked,
        Outcome::Lost,
        Outcome::Poisoned,
        Outcome::TimedOut,
        Outcome::Done,
        Outcome::Expired,
        Outcome::Cancelled,
        Outcome::Done,
    ];
    assert_eq!(single_outcomes(&events), expected);
    let retried = events.iter().filter(|event| matches!(event, Event::Retried { .. })).count();
    assert_eq!(retried, 1);
    // What never began has no worker, and did not wait until it began.
    for event in &events {
        if let Event::Ended { outcome, worker, waited, .. } = event {
            let began = !matches!(outcome, Outcome::Expired | Outcome::Cancelled);
            assert_eq!((worker.is_some(), waited.is_some()), (began, began), "{event}");
        }
    }
    oracle.nothing_left();
}

#[test]
fn workers_are_told_of_as_they_come_up_and_as_they_end_and_why() {
    let (oracle, _watchdog) = begin();
    let (pool, events) = observed(Pool::builder().workers(1).name("seen"));
    let pid = pool.submit((), |()| std::process::id()).unwrap().join().unwrap();
    pool.submit((), |()| {
        if std::process::id() > 0 {
            die()
        }
    })
    .unwrap()
    .join()
    .unwrap_err();
    pool.submit((), |()| ()).unwrap().join().unwrap();
    end(pool);
    let events: Vec<_> = events.iter().collect();
    let ups: Vec<&WorkerId> = events
        .iter()
        .filter_map(|event| match event {
            Event::WorkerUp { worker, .. } => Some(worker),
            _ => None,
        })
        .collect();
    assert_eq!((&*ups[0].name, ups[0].pid), ("seen-1", pid));
    assert_eq!((&*ups[1].name, ups.len()), ("seen-2", 2));
    let downs: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::WorkerDown { report, .. } => Some((report.pid, report.end.status, report.lost)),
            _ => None,
        })
        .collect();
    let expected = [
        (ups[0].pid, ExitStatus::Signaled { signal: 6, core_dumped: false }, 1),
        (ups[1].pid, ExitStatus::Exited(0), 0),
    ];
    assert_eq!(downs, expected);
    oracle.nothing_left();
}

#[test]
fn what_moves_to_another_worker_is_told_to_have_moved() {
    let (oracle, _watchdog) = begin();
    let mut gate = Gate::new();
    let (pool, events) = observed(Pool::builder().workers(1));
    let held = pool.submit((gate.path(), 7u32), through).unwrap();
    let pid = gate.wait();
    let behind = pool.submit((), |()| ()).unwrap();
    let id = behind.id();
    kill(pid, Signal::SIGKILL).unwrap();
    held.join().unwrap_err();
    behind.join().unwrap();
    end(pool);
    let moved = events.iter().find_map(|event| match event {
        Event::Moved { tasks, from, to, .. } => Some((tasks.job, from.pid, to.pid)),
        _ => None,
    });
    let (job, from, to) = moved.unwrap();
    assert_eq!((job, from), (id, pid.as_raw() as u32));
    assert_ne!(to, from);
    drop(gate);
    oracle.nothing_left();
}

#[test]
fn a_task_that_is_asked_to_return_is_told_to_be() {
    let (oracle, _watchdog) = begin();
    let (pool, events) = observed(Pool::builder().workers(1));
    let obedient = |()| while !epilogue::task::should_stop() {};
    let options = TaskOptions::new().soft_timeout(Duration::from_millis(10));
    let task = pool.submit_with(&options, (), obedient).unwrap();
    let id = task.id();
    task.join().unwrap();
    end(pool);
    let asked =
        |event: &Event| matches!(event, Event::AskedToStop { tasks, .. } if tasks.job == id);
    assert_eq!(events.iter().filter(asked).count(), 1);
    oracle.nothing_left();
}

/// Nobody has looked whether it has begun.
#[test]
fn a_task_that_is_asked_to_return_is_told_to_have_started_before_that() {
    let (oracle, _watchdog) = begin();
    let (mut gate, (pool, events)) = (Gate::new(), observed(Pool::builder().workers(1)));
    let task = pool.submit((gate.path(), 7), through).unwrap();
    gate.wait();
    assert!(!task.cancel(), "it runs");
    gate.open_once();
    assert_eq!(task.join().unwrap(), 7);
    end(pool);
    let steps = events.iter().filter_map(|event| match event {
        Event::Started { .. } => Some("started"),
        Event::AskedToStop { .. } => Some("asked"),
        Event::Ended { .. } => Some("ended"),
        _ => None,
    });
    assert_eq!(steps.collect::<Vec<_>>(), ["started", "asked", "ended"]);
    drop(gate);
    oracle.nothing_left();
}

#[test]
fn a_listener_may_panic() {
    let (oracle, _watchdog) = begin();
    let (told, events) = channel();
    let pool = Pool::builder().workers(1).on_event(move |event| {
        told.send(event.clone()).unwrap();
        panic!("a listener panics on purpose");
    });
    let pool = pool.start().unwrap();
    assert_eq!(pool.map([1u64, 2], |x| x).unwrap(), [1, 2]);
    assert!(pool.close().unwrap().is_clean());
    drop(pool);
    assert!(matches!(events.iter().last(), Some(Event::Closed)));
    oracle.nothing_left();
}

#[test]
fn a_listener_may_submit_and_close_and_drop_the_pool() {
    let (oracle, _watchdog) = begin();
    let place = Arc::new(OnceLock::<Mutex<Option<Arc<Pool>>>>::new());
    let seen = Arc::clone(&place);
    let (told, events) = channel();
    let pool = Pool::builder().workers(2).on_event(move |event| {
        let Event::Ended { tasks, .. } = event else { return };
        let Some(place) = seen.get() else { return };
        let pool = place.lock().unwrap().take();
        let Some(pool) = pool else { return };
        let task = pool.submit(20u64, |x| x + 1).unwrap();
        let from_another = pool.map([3u64], |x| x).unwrap();
        assert_eq!((task.join().unwrap(), from_another), (21, vec![3]));
        let report = pool.close().unwrap();
        drop(pool);
        told.send((tasks.job, report.done)).unwrap();
    });
    let pool = Arc::new(pool.start().unwrap());
    place.set(Mutex::new(Some(Arc::clone(&pool)))).unwrap();
    let task = pool.submit(1u64, |x| x).unwrap();
    let (job, done) = events.recv().unwrap();
    assert_eq!((job, done), (task.id(), 3));
    task.join().unwrap();
    assert!(pool.submit(1u64, |x| x).is_err());
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn a_listener_that_has_the_only_handle_of_the_pool_may_drop_it() {
    let (oracle, _watchdog) = begin();
    let place = Arc::new(Mutex::new(None::<Pool>));
    let seen = Arc::clone(&place);
    let (told, events) = channel::<()>();
    let mut gate = Gate::new();
    let pool = Pool::builder().workers(1).on_event(move |event| {
        // Dropped with this closure, as the thread that calls it ends.
        let _told = &told;
        if let Event::Ended { .. } = event {
            drop(seen.lock().unwrap().take());
        }
    });
    let pool = pool.start().unwrap();
    let task = pool.submit((gate.path(), 7u32), through).unwrap();
    gate.wait();
    *place.lock().unwrap() = Some(pool);
    drop(gate);
    assert!(events.recv().is_err());
    assert_eq!(task.join().unwrap(), 7);
    while support::procfs::threads_of(Pid::this()).iter().any(|one| one.name == "epilogue-events") {
        thread::yield_now();
    }
    oracle.nothing_left();
}

#[test]
fn a_listener_that_takes_long_holds_up_no_task_and_what_it_missed_is_counted() {
    let (oracle, _watchdog) = begin();
    let (release, held) = channel::<()>();
    let (held, told) = (Mutex::new(held), Arc::new(Mutex::new((0u64, 0u64))));
    let count = Arc::clone(&told);
    let pool = Pool::builder().workers(1).on_event(move |event| {
        // Until it is let go, which is when the other end is dropped.
        let _ = held.lock().unwrap().recv();
        let mut told = count.lock().unwrap();
        match event {
            Event::Missed { count, .. } => told.1 += count,
            _ => told.0 += 1,
        }
    });
    let pool = pool.start().unwrap();
    let tasks = 10_000u64;
    assert_eq!(pool.chunk_size(1).map(0..tasks, |x| x).unwrap().len(), tasks as usize);
    let missed = pool.stats().missed_events;
    assert!(missed > tasks, "{missed}");
    drop(release);
    let report = pool.close().unwrap();
    assert_eq!(report.done, tasks);
    let told = *told.lock().unwrap();
    // Each was queued, started and ended; and there are the worker's up and down, and the end.
    assert_eq!(told.0 + told.1, tasks * 3 + 3);
    assert_eq!(told.1, pool.stats().missed_events);
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn a_pool_that_does_not_start_says_why_and_leaves_no_listener_behind() {
    let (oracle, _watchdog) = begin();
    let (told, events) = channel();
    let pool = Pool::builder().workers(1).initializer(|| panic!("no model"));
    let pool = pool.on_event(move |event| told.send(event.to_string()).unwrap());
    assert!(pool.start().is_err());
    let events: Vec<_> = events.iter().collect();
    assert!(events.iter().any(|event| event.contains("no model")), "{events:#?}");
    assert_eq!(events.last().unwrap(), "the pool has ended");
    oracle.nothing_left();
}

fn die_once(marks: PathBuf) -> usize {
    let marks = Marks::at(&marks);
    marks.leave("begun");
    if marks.count("begun") == 1 {
        die();
    }
    marks.count("begun")
}

#[test]
fn a_task_that_is_begun_again_waits_and_starts_again() {
    let (oracle, _watchdog) = begin();
    let marks = Marks::new();
    let (pool, events) = observed(Pool::builder().workers(1));
    let options = TaskOptions::new().retries(1);
    let begun = pool.submit_with(&options, marks.path(), die_once).unwrap().join().unwrap();
    assert_eq!(begun, 2);
    end(pool);
    let story: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::Queued { .. } => Some("queued"),
            Event::Started { .. } => Some("started"),
            Event::Retried { .. } => Some("retried"),
            Event::Ended { .. } => Some("ended"),
            _ => None,
        })
        .collect();
    assert_eq!(story, ["queued", "started", "retried", "started", "ended"]);
    oracle.nothing_left();
}

#[test]
fn the_start_of_a_task_that_is_begun_again_is_told_while_it_runs() {
    let (oracle, _watchdog) = begin();
    let mut gate = Gate::new();
    let (pool, events) = observed(Pool::builder().workers(1));
    let options = TaskOptions::new().retries(1);
    let task = pool.submit_with(&options, (gate.path(), 7u32), through).unwrap();
    let mut starts = events.iter().filter_map(|event| match event {
        Event::Started { worker, .. } => Some(worker.pid),
        _ => None,
    });
    let [first, second] = std::array::from_fn(|each| {
        let pid = gate.wait();
        // Nobody joins, and the task cannot end before this was told.
        assert_eq!(starts.next(), Some(pid.as_raw() as u32));
        if each == 0 {
            kill(pid, Signal::SIGKILL).unwrap();
        }
        pid
    });
    assert_ne!(first, second);
    drop(gate);
    assert_eq!(task.join().unwrap(), 7);
    end(pool);
    oracle.nothing_left();
}
