//! A state of a worker is built once there, whatever comes and goes, and dropped as the worker ends,
//! in the order of its finalizers.

use std::path::PathBuf;
use std::time::Duration;
use std::{process, thread};

use epilogue::pool::Builder;
use epilogue::{Pool, TaskError, embed};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{Gate, Marks, begin, park_for_ever};

/// What no codec could send: a thread that waits, and a mark as it goes.
struct Model {
    tasks: usize,
    thread: Option<thread::JoinHandle<()>>,
}

impl Model {
    fn load() -> Self {
        Marks::from_env().leave("built");
        Self { tasks: 0, thread: Some(thread::spawn(thread::park)) }
    }

    fn load_at_the_second_try() -> Self {
        let marks = Marks::from_env();
        marks.leave("tried");
        assert!(marks.count("tried") > 1, "no model today");
        Self::load()
    }

    fn count(&mut self, _: usize) -> (usize, u32) {
        self.tasks += 1;
        (self.tasks, process::id())
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        let thread = self.thread.take().unwrap();
        thread.thread().unpark();
        thread.join().unwrap();
        Marks::from_env().leave("dropped");
    }
}

fn builder(workers: usize, marks: &Marks) -> Builder {
    let (name, directory) = marks.variable();
    Pool::builder().workers(workers).env(name, directory)
}

/// Each that was built was dropped, once.
#[track_caller]
fn all_dropped(marks: &Marks) -> usize {
    assert_eq!(marks.pids("dropped"), marks.pids("built"));
    marks.count("built")
}

#[test]
fn a_state_is_built_once_a_worker_and_lives_as_long_as_the_worker() {
    let (oracle, _watchdog) = begin();
    let marks = Marks::new();
    let pool = builder(2, &marks).start().unwrap();
    let model = pool.local(Model::load);
    let mut counts = model.map_local(0..100, Model::count).unwrap();
    counts.extend(pool.local(Model::load).chunk_size(10).map_local(0..100, Model::count).unwrap());
    counts.push(model.submit_local(0, Model::count).unwrap().join().unwrap());
    let fails = model.try_map_local([1usize, 2], |model, x| match x {
        1 => Ok(model.count(x)),
        _ => Err("two"),
    });
    assert!(matches!(fails, Err(TaskError::Failed(_))), "{fails:?}");
    counts.sort_by_key(|&(count, pid)| (pid, count));
    // In each worker they were counted from one on, but for the last two, of which one failed.
    let mut pids: Vec<_> = counts.iter().map(|&(_, pid)| pid).collect();
    pids.dedup();
    for pid in &pids {
        let of_one: Vec<_> = counts.iter().filter(|(_, other)| other == pid).collect();
        assert!(of_one.iter().enumerate().all(|(n, (count, _))| *count == n + 1), "{of_one:?}");
    }
    assert_eq!(marks.count("built"), pids.len());
    assert_eq!(marks.count("dropped"), 0);
    let report = pool.close().unwrap();
    assert!(report.is_clean(), "{report}");
    assert_eq!(all_dropped(&marks), pids.len());
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn a_state_is_dropped_in_the_order_of_the_finalizers() {
    let (oracle, _watchdog) = begin();
    let marks = Marks::new();
    let early = || {
        embed::finalizer("early", || {});
    };
    let pool = builder(1, &marks).initializer(early).start().unwrap();
    let late = |model: &mut Model, x| {
        embed::finalizer("late", || {});
        model.count(x).0
    };
    assert_eq!(pool.local(Model::load).map_local([0], late).unwrap(), [1]);
    let report = pool.close().unwrap();
    let ran = report.workers[0].end.finalizers.as_deref().unwrap();
    let names: Vec<_> = ran.iter().map(|finalizer| finalizer.name.as_str()).collect();
    assert_eq!(names, ["late", "state worker_state::Model", "early"], "{report}");
    assert_eq!(all_dropped(&marks), 1);
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn a_state_that_cannot_be_built_is_the_outcome_of_its_task_and_the_next_tries_again() {
    let (oracle, _watchdog) = begin();
    let marks = Marks::new();
    let pool = builder(1, &marks).start().unwrap();
    let model = pool.local(Model::load_at_the_second_try);
    let outcomes = model.map_local_outcomes(0..5, Model::count).unwrap();
    let error = outcomes[0].as_ref().unwrap_err();
    assert!(matches!(error, TaskError::Panicked(_)), "{error:?}");
    assert!(error.to_string().contains("no model today"), "{error}");
    let counts = outcomes[1..].iter().map(|outcome| outcome.as_ref().unwrap().0);
    assert_eq!(counts.collect::<Vec<_>>(), [1, 2, 3, 4]);
    drop(pool);
    assert_eq!((marks.count("tried"), all_dropped(&marks)), (2, 1));
    oracle.nothing_left();
}

#[test]
fn a_state_that_a_task_panicked_with_is_dropped_and_built_anew() {
    let (oracle, _watchdog) = begin();
    let marks = Marks::new();
    let pool = builder(1, &marks).start().unwrap();
    let count = |model: &mut Model, x| {
        let count = model.count(x).0;
        assert!(x != 2, "half changed");
        count
    };
    let outcomes = pool.local(Model::load).map_local_outcomes(0..5, count).unwrap();
    let counts: Vec<_> = outcomes.into_iter().map(Result::ok).collect();
    assert_eq!(counts, [Some(1), Some(2), None, Some(1), Some(2)]);
    let report = pool.close().unwrap();
    let ran = report.workers[0].end.finalizers.as_deref().unwrap();
    assert!(ran.len() == 1 && ran[0].failure.is_none(), "{report}");
    drop(pool);
    assert_eq!(all_dropped(&marks), 2);
    oracle.nothing_left();
}

#[test]
fn a_state_that_a_task_does_not_give_back_in_time_stays_and_the_report_says_so() {
    let (oracle, _watchdog) = begin();
    let marks = Marks::new();
    let pool = builder(1, &marks).grace_period(Duration::from_secs(4)).start().unwrap();
    let mut gate = Gate::new();
    let task = pool.local(Model::load).submit_local(gate.path(), |_, gate: PathBuf| -> u8 {
        Gate::pass(&gate);
        park_for_ever()
    });
    gate.wait();
    gate.open_once();
    let report = pool.terminate().unwrap();
    task.unwrap().join().unwrap_err();
    assert!(report.to_string().contains("a task still had it"), "{report}");
    assert_eq!((marks.count("built"), marks.count("dropped")), (1, 0));
    drop((pool, gate));
    oracle.nothing_left();
}

#[test]
fn tasks_that_borrow_a_state_go_by_the_limits_that_were_set_before() {
    let (oracle, _watchdog) = begin();
    let marks = Marks::new();
    let pool = builder(1, &marks).start().unwrap();
    let limited = pool.task_timeout(Duration::from_secs(2)).local(Model::load).chunk_size(8);
    let stuck =
        |model: &mut Model, x: usize| if x == 1 { park_for_ever() } else { model.count(x).0 };
    let outcomes = limited.map_local_outcomes(0..3, stuck).unwrap();
    assert!(matches!(outcomes[..], [Ok(1), Err(TaskError::TimedOut), Ok(1)]), "{outcomes:?}");
    let task = limited.submit_local(1, stuck).unwrap();
    assert!(matches!(task.join(), Err(TaskError::TimedOut)));
    let again = pool.retries(1).local(Model::load);
    let dies = |_: &mut Model, marks: PathBuf| {
        let marks = Marks::at(&marks);
        marks.leave("begun");
        if marks.count("begun") == 1 {
            process::abort();
        }
        marks.count("begun")
    };
    assert_eq!(again.map_local([marks.path()], dies).unwrap(), [2]);
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn a_state_is_dropped_however_its_worker_comes_to_end() {
    let (oracle, _watchdog) = begin();
    let marks = Marks::new();
    // By a signal from anybody, by being replaced, and by a pool that is dropped.
    let pool = builder(1, &marks).start().unwrap();
    let (_, pid) = pool.local(Model::load).map_local([0], Model::count).unwrap()[0];
    kill(Pid::from_raw(pid as i32), Signal::SIGTERM).unwrap();
    let another = |outcome: Vec<(usize, u32)>| outcome.iter().any(|&(_, other)| other != pid);
    while !pool.local(Model::load).map_local([0], Model::count).is_ok_and(another) {}
    drop(pool);
    assert_eq!(all_dropped(&marks), 2);
    let pool = builder(2, &marks).max_tasks_per_worker(3).start().unwrap();
    let counts = pool.local(Model::load).map_local(0..30, Model::count).unwrap();
    assert!(counts.iter().all(|(count, _)| *count <= 3));
    drop(pool);
    assert!(all_dropped(&marks) >= 12);
    oracle.nothing_left();
}

#[test]
fn what_a_state_takes_of_memory_is_no_growth_of_its_worker() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::builder().workers(1).max_memory_growth(32 << 20).start().unwrap();
    let load = || vec![1u8; 64 << 20];
    let ids = pool.local(load).chunk_size(1).map_local(0..200, |bytes: &mut Vec<u8>, x: usize| {
        thread::sleep(Duration::from_micros(200));
        (bytes[x], process::id())
    });
    let ids = ids.unwrap();
    assert!(ids.iter().all(|id| *id == (1, ids[0].1)), "{ids:?}");
    assert_eq!(pool.close().unwrap().workers.len(), 1);
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn a_default_state_needs_no_function_to_build_it() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(1).unwrap();
    let append = |all: &mut String, x: u64| {
        all.push_str(&x.to_string());
        all.clone()
    };
    assert_eq!(pool.map_local(1..4, append).unwrap(), ["1", "12", "123"]);
    // Another type is another state.
    let numbers = pool.map_local(1..4, |all: &mut Vec<u64>, x: u64| {
        all.push(x);
        all.len()
    });
    assert_eq!(numbers.unwrap(), [1, 2, 3]);
    drop(pool);
    oracle.nothing_left();
}
