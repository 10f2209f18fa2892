//! However a pool or a process is left, it ends well: what was submitted has its outcome, the
//! finalizers ran once, and nothing is left.

use std::error::Error;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use epilogue::pool::WorkerReport;
use epilogue::{ExitStatus, Pool, Process, Report, Rung, Task, TaskError, embed, scope};
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getpid};
use support::{Gate, Marks, Oracle, Watchdog, hooks, procfs, sys};

const PATIENCE: Duration = Duration::from_secs(180);

/// Long enough for any machine to end a process that can be ended, in the tests in which one
/// cannot be; those have to wait for the whole of it.
const SHORT_GRACE: Duration = Duration::from_millis(600);

/// How many pools in a row must leave no trace. More by `EPILOGUE_TEST_POOLS`.
const POOLS: usize = 500;

const WORKERS: usize = 2;
const TASKS: usize = 6;

/// Starts a pool all of whose workers have registered what must run as they end.
fn pool_with_hooks(marks: &Marks, grace_period: Duration) -> (Pool, Vec<Pid>) {
    let pool = Pool::builder().workers(WORKERS).grace_period(grace_period).start().unwrap();
    let mut gate = Gate::new();
    let tasks: Vec<_> = (0..WORKERS)
        .map(|_| {
            let argument = (marks.path(), gate.path());
            pool.submit(argument, |(marks, gate): (PathBuf, PathBuf)| {
                hooks::register(&marks);
                Gate::pass(&gate);
            })
            .unwrap()
        })
        .collect();
    let pids = gate.wait_for(WORKERS);
    gate.open_once();
    tasks.into_iter().for_each(|task| task.join().unwrap());
    (pool, pids)
}

/// A task that leaves a mark, which takes it a moment.
fn leave_mark(marks: PathBuf) {
    thread::sleep(Duration::from_millis(2));
    Marks::at(&marks).leave("task");
}

/// Submits tasks whose handles nobody keeps.
fn submit_unawaited(pool: &Pool, marks: &Marks) {
    for _ in 0..TASKS {
        drop(pool.submit(marks.path(), leave_mark).unwrap());
    }
}

fn all_workers_left_well(report: &Report, rung: Rung) {
    assert_eq!(report.workers.len(), WORKERS, "{report}");
    for WorkerReport { end, .. } in &report.workers {
        assert_eq!((end.status, end.rung), (ExitStatus::Exited(0), rung), "{report}");
        let names = end.finalizers.iter().flatten().map(|finalizer| {
            assert_eq!(finalizer.failure, None, "{report}");
            finalizer.name.as_str()
        });
        assert_eq!(names.collect::<Vec<_>>(), [hooks::NAME], "{report}");
    }
}

#[test]
fn close_finishes_what_nobody_awaits_and_names_every_finalizer() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let marks = Marks::new();
    let (pool, pids) = pool_with_hooks(&marks, Duration::from_secs(30));
    submit_unawaited(&pool, &marks);
    let report = pool.close().unwrap();
    assert_eq!(marks.count("task"), TASKS);
    assert_eq!(hooks::all_ran_once(&marks), WORKERS);
    all_workers_left_well(&report, Rung::Finish);
    let mut reported: Vec<_> = report.workers.iter().map(|worker| worker.pid as i32).collect();
    let mut pids: Vec<_> = pids.into_iter().map(Pid::as_raw).collect();
    reported.sort();
    pids.sort();
    assert_eq!(reported, pids);
    assert!(report.is_clean(), "{report}");
    let tasks = (WORKERS + TASKS) as u64;
    assert_eq!((report.done, report.lost, report.cancelled), (tasks, 0, 0), "{report}");
    assert_eq!(pool.close().unwrap(), report, "a second close must tell the same");
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn dropping_a_pool_finishes_what_nobody_awaits() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let marks = Marks::new();
    let (pool, _) = pool_with_hooks(&marks, Duration::from_secs(30));
    submit_unawaited(&pool, &marks);
    drop(pool);
    assert_eq!(marks.count("task"), TASKS);
    assert_eq!(hooks::all_ran_once(&marks), WORKERS);
    oracle.nothing_left();
}

#[test]
fn an_early_return_finishes_what_nobody_awaits() {
    fn story(marks: &Marks) -> Result<(), Box<dyn Error>> {
        let (pool, _) = pool_with_hooks(marks, Duration::from_secs(30));
        submit_unawaited(&pool, marks);
        pool.try_map([1], |_: u8| Err::<(), _>("the reason"))?;
        Ok(())
    }
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let marks = Marks::new();
    let error = story(&marks).unwrap_err();
    assert!(error.to_string().contains("the reason"), "{error}");
    assert_eq!(marks.count("task"), TASKS);
    assert_eq!(hooks::all_ran_once(&marks), WORKERS);
    oracle.nothing_left();
}

/// A task that runs until it is asked to stop, and then returns.
fn until_asked((marks, gate): (PathBuf, PathBuf)) -> &'static str {
    let (asked, stop) = mpsc::channel();
    embed::on_stop(move |_| asked.send(()).unwrap_or_default());
    Marks::at(&marks).leave("begun");
    // All that the test wants to know is that it has begun.
    Gate::pass(&gate);
    stop.recv().unwrap();
    "asked"
}

/// A pool whose workers are busy, with more tasks behind them: some already with the workers.
fn busy_pool(marks: &Marks, grace_period: Duration) -> (Pool, Vec<Task<String>>, Vec<Task<()>>) {
    let (pool, _) = pool_with_hooks(marks, grace_period);
    let mut gate = Gate::new();
    let begun: Vec<_> = (0..WORKERS)
        .map(|_| {
            let argument = (marks.path(), gate.path());
            pool.submit(argument, |argument| until_asked(argument).to_owned()).unwrap()
        })
        .collect();
    gate.wait_for(WORKERS);
    let behind = (0..100).map(|_| pool.submit(marks.path(), leave_mark).unwrap()).collect();
    // A map that is done by nobody: all workers are busy. That it was sent is all it is for.
    drop(gate);
    (pool, begun, behind)
}

fn what_had_begun_returned_and_the_rest_never_began(
    marks: &Marks,
    begun: Vec<Task<String>>,
    behind: Vec<Task<()>>,
) {
    for task in begun {
        assert_eq!(task.join().unwrap(), "asked");
    }
    for task in behind {
        let error = task.join().unwrap_err();
        assert!(matches!(error, TaskError::Cancelled { begun: false }), "{error:?}");
    }
    assert_eq!(marks.count("task"), 0, "what had not begun was done");
    assert_eq!(hooks::all_ran_once(marks), WORKERS);
}

#[test]
fn a_panic_cancels_what_had_not_begun_and_runs_every_finalizer() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let marks = Marks::new();
    let (mut begun, mut behind) = (Vec::new(), Vec::new());
    let story = AssertUnwindSafe(|| {
        let (_pool, first, second) = busy_pool(&marks, Duration::from_secs(30));
        (begun, behind) = (first, second);
        panic!("on purpose");
    });
    let payload = panic::catch_unwind(story).unwrap_err();
    assert_eq!(payload.downcast_ref(), Some(&"on purpose"));
    what_had_begun_returned_and_the_rest_never_began(&marks, begun, behind);
    oracle.nothing_left();
}

#[test]
fn terminate_cancels_what_had_not_begun_and_runs_every_finalizer() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let marks = Marks::new();
    let (pool, begun, behind) = busy_pool(&marks, Duration::from_secs(30));
    let report = pool.terminate().unwrap();
    all_workers_left_well(&report, Rung::Stop);
    assert_eq!((report.lost, report.cancelled), (0, behind.len() as u64), "{report}");
    what_had_begun_returned_and_the_rest_never_began(&marks, begun, behind);
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn terminate_abandons_a_task_that_does_not_stop_and_still_runs_every_finalizer() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let marks = Marks::new();
    let (pool, _) = pool_with_hooks(&marks, SHORT_GRACE * 4);
    let mut gate = Gate::new();
    let tasks: Vec<_> = (0..WORKERS)
        .map(|_| pool.submit(gate.path(), |gate: PathBuf| Gate::pass(&gate)).unwrap())
        .collect();
    gate.wait_for(WORKERS);
    let report = pool.terminate().unwrap();
    // The task has two fifths of the time; on a slow machine half of it is over by the end.
    assert!(report.workers.iter().all(|worker| worker.end.rung < Rung::Kill), "{report}");
    assert!(report.workers.iter().all(|worker| worker.end.finalizers.is_some()), "{report}");
    for task in tasks {
        let error = task.join().unwrap_err();
        assert!(matches!(error, TaskError::Cancelled { begun: true }), "{error:?}");
    }
    assert_eq!(hooks::all_ran_once(&marks), WORKERS);
    drop((pool, gate));
    oracle.nothing_left();
}

/// What a stopped worker needs is in [`Rung::Signal`]: nothing less wakes it.
fn a_stopped_worker_ends_well(end: fn(&Pool) -> Report) {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let marks = Marks::new();
    // Half of it is over when the worker is woken; the rest is enough on a slow machine, too.
    let (pool, pids) = pool_with_hooks(&marks, SHORT_GRACE * 4);
    signal(pids[0], Signal::SIGSTOP);
    while procfs::threads_of(pids[0]).iter().any(|thread| thread.state != 'T') {
        thread::yield_now();
    }
    let report = end(&pool);
    let stopped = report.workers.iter().find(|worker| worker.pid as i32 == pids[0].as_raw());
    assert_eq!(stopped.unwrap().end.rung, Rung::Signal, "{report}");
    assert!(report.workers.iter().all(|worker| worker.end.finalizers.is_some()), "{report}");
    assert_eq!(hooks::all_ran_once(&marks), WORKERS);
    drop(pool);
    oracle.nothing_left();
}

/// Signals a worker that is certainly alive: nobody but the test ends it.
fn signal(pid: Pid, signal: Signal) {
    nix::sys::signal::kill(pid, signal).unwrap();
}

#[test]
fn a_stopped_worker_is_woken_to_be_closed() {
    a_stopped_worker_ends_well(|pool| pool.close().unwrap());
}

#[test]
fn a_stopped_worker_is_woken_to_be_terminated() {
    a_stopped_worker_ends_well(|pool| pool.terminate().unwrap());
}

#[test]
fn a_worker_that_is_stopped_when_it_has_heard_of_the_end_is_woken_in_time_for_its_finalizers() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let marks = Marks::new();
    let (pool, _) = pool_with_hooks(&marks, SHORT_GRACE * 4);
    let mut gate = Gate::new();
    let argument = (marks.path(), gate.path());
    let task = pool.submit(argument, |argument| {
        until_asked(argument);
        // The main thread is the one that would leave now: it goes no further than this.
        signal(getpid(), Signal::SIGSTOP);
    });
    gate.wait();
    gate.open_once();
    let report = pool.terminate().unwrap();
    assert!(report.workers.iter().any(|worker| worker.end.rung == Rung::Signal), "{report}");
    assert_eq!(hooks::all_ran_once(&marks), WORKERS, "{report}");
    drop((pool, gate, task));
    oracle.nothing_left();
}

#[test]
fn a_finalizer_that_never_returns_is_ended_and_reported() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let pool = Pool::builder().workers(1).grace_period(SHORT_GRACE).start().unwrap();
    let stuck = pool.submit((), |()| {
        embed::finalizer("stuck", || {
            loop {
                thread::park();
            }
        });
    });
    stuck.unwrap().join().unwrap();
    let report = pool.close().unwrap();
    assert!(!report.is_clean(), "{report}");
    assert_eq!(report.workers[0].end.status.signal(), Some(9), "{report}");
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn close_in_one_thread_lets_a_map_in_another_end_with_one_outcome_an_item() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let pool = Pool::new(WORKERS).unwrap();
    let mut gate = Gate::new();
    let path = gate.path();
    thread::scope(|threads| {
        let map = threads.spawn(|| {
            pool.map_outcomes((0..2000u64).map(|item| (item, path.clone())), |(item, gate)| {
                if item < WORKERS as u64 {
                    Gate::pass(&gate);
                }
                item
            })
        });
        gate.wait_for(WORKERS);
        let close = threads.spawn(|| pool.close().unwrap());
        gate.open_once();
        let outcomes = map.join().unwrap().unwrap();
        let report = close.join().unwrap();
        assert_eq!(outcomes.len(), 2000);
        let mut done = 0;
        for (item, outcome) in outcomes.into_iter().enumerate() {
            match outcome {
                Ok(value) => {
                    assert_eq!(value, item as u64);
                    done += 1;
                }
                Err(TaskError::Refused(epilogue::Refusal::Closed)) => {}
                Err(error) => panic!("item {item}: {error:?}"),
            }
        }
        assert_eq!(report.done, done, "{report}");
        assert!(report.is_clean(), "{report}");
    });
    drop((pool, gate));
    oracle.nothing_left();
}

// One process.

fn register_and_return((marks, value): (PathBuf, u64)) -> u64 {
    hooks::register(&marks);
    value + 1
}

fn register_and_park((marks, gate): (PathBuf, PathBuf)) {
    hooks::register(&marks);
    Gate::pass(&gate);
}

#[test]
fn a_process_that_is_joined_or_dropped_has_done_its_work_and_run_its_finalizers() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let marks = Marks::new();
    let joined = Process::start((marks.path(), 41), register_and_return).unwrap();
    let dropped = Process::start(marks.path(), |marks| {
        hooks::register(&marks);
        leave_mark(marks);
    });
    assert_eq!(joined.join().unwrap(), 42);
    drop(dropped.unwrap());
    assert_eq!(marks.count("task"), 1);
    assert_eq!(hooks::all_ran_once(&marks), 2);
    oracle.nothing_left();
}

#[test]
fn an_early_return_joins_a_process() {
    fn story(marks: &Marks) -> Result<(), Box<dyn Error>> {
        let _process = Process::start((marks.path(), 1), register_and_return)?;
        Err("the reason")?
    }
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let marks = Marks::new();
    assert_eq!(story(&marks).unwrap_err().to_string(), "the reason");
    assert_eq!(hooks::all_ran_once(&marks), 1);
    oracle.nothing_left();
}

#[test]
fn a_panic_stops_a_process_and_runs_its_finalizers() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let marks = Marks::new();
    let mut gate = Gate::new();
    let story = AssertUnwindSafe(|| {
        let argument = (marks.path(), gate.path());
        let _process = Process::start(argument, register_and_park).unwrap();
        gate.wait();
        panic!("on purpose");
    });
    assert!(panic::catch_unwind(story).is_err());
    assert_eq!(hooks::all_ran_once(&marks), 1);
    drop(gate);
    oracle.nothing_left();
}

#[test]
fn terminate_abandons_the_function_of_a_process_and_reports_its_finalizers() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let marks = Marks::new();
    let mut gate = Gate::new();
    let process = Process::start((marks.path(), gate.path()), register_and_park).unwrap();
    gate.wait();
    let end = process.terminate().unwrap();
    assert_eq!((end.rung, end.status), (Rung::Stop, ExitStatus::Exited(0)));
    assert_eq!(end.finalizers.unwrap()[0].name, hooks::NAME);
    assert_eq!(hooks::all_ran_once(&marks), 1);
    drop(gate);
    oracle.nothing_left();
}

#[test]
fn a_scope_joins_even_those_whose_handles_were_leaked() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let marks = Marks::new();
    scope(|scope| {
        let argument = || (marks.path(), 1);
        std::mem::forget(scope.start(argument(), register_and_return).unwrap());
        drop(scope.start(argument(), register_and_return).unwrap());
        assert_eq!(scope.start(argument(), register_and_return).unwrap().join().unwrap(), 2);
    });
    assert_eq!(hooks::all_ran_once(&marks), 3);
    oracle.nothing_left();
}

#[test]
fn a_scope_that_panics_stops_even_those_whose_handles_were_leaked() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let marks = Marks::new();
    let mut gate = Gate::new();
    let story = AssertUnwindSafe(|| {
        scope(|scope| {
            for _ in 0..2 {
                let argument = (marks.path(), gate.path());
                std::mem::forget(scope.start(argument, register_and_park).unwrap());
            }
            gate.wait_for(2);
            panic!("on purpose");
        })
    });
    assert!(panic::catch_unwind(story).is_err());
    assert_eq!(hooks::all_ran_once(&marks), 2);
    drop(gate);
    oracle.nothing_left();
}

#[test]
fn a_process_whose_reply_nobody_reads_yet_is_joined_by_being_dropped() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    // More than the connection holds: it cannot end before somebody reads.
    drop(Process::start(8 << 20, |length: usize| vec![7u8; length]).unwrap());
    oracle.nothing_left();
}

#[test]
fn a_process_answers_also_if_its_argument_just_fills_the_connection() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    // Around two fillings of the connection's buffer the argument fits and what follows does not:
    // the answer can be there before the parent has written its last frame.
    for length in (415..440).map(|length| length * 1024) {
        let process = Process::start(vec![1u8; length], |bytes| bytes.len()).unwrap();
        assert_eq!(process.join().unwrap(), length);
    }
    oracle.nothing_left();
}

// What remains, and what an idle pool costs.

#[test]
fn pools_in_a_row_leave_descriptors_threads_and_children_as_they_were() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE * 3);
    let rounds = std::env::var("EPILOGUE_TEST_POOLS");
    let rounds = rounds.map_or(POOLS, |rounds| rounds.parse().unwrap());
    for round in 0..rounds {
        one_of_many(round);
        if round % 50 == 0 {
            oracle.nothing_left();
        }
    }
    oracle.nothing_left();
}

#[test]
fn pools_that_many_threads_start_and_end_do_not_hold_each_other_up() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    // A child that inherited the wire of another pool's would keep that one from its end of file.
    thread::scope(|threads| {
        let start = |thread: usize| {
            threads.spawn(move || (0..12).for_each(|round| one_of_many(thread + round)))
        };
        let all: Vec<_> = (0..6).map(start).collect();
        // The scope waits for what they do, and only this for their ends.
        all.into_iter().for_each(|thread| thread.join().unwrap());
    });
    oracle.nothing_left();
}

fn one_of_many(round: usize) {
    let pool = Pool::new(1 + round % 2).unwrap();
    match round % 4 {
        0 => drop(pool),
        1 => drop(pool.close().unwrap()),
        2 => drop(pool.terminate().unwrap()),
        // An outcome that nobody takes.
        _ => drop(pool.submit(1u64, |x| x).unwrap()),
    }
}

/// How often each thread of `pid` has gone to sleep or been preempted: a thread that was never
/// woken has done neither.
fn switches(pid: Pid, is_wanted: impl Fn(&str) -> bool) -> Vec<(String, String)> {
    let mut threads = procfs::threads_of(pid);
    threads.retain(|thread| is_wanted(&thread.name));
    let read = |thread: &procfs::Entry| {
        let path = format!("/proc/{pid}/task/{}/status", thread.pid);
        let status = std::fs::read_to_string(Path::new(&path)).unwrap();
        let lines = status.lines().filter(|line| line.contains("ctxt_switches"));
        lines.collect::<Vec<_>>().join(", ")
    };
    threads.iter().map(|thread| (format!("{pid} {}", thread.name), read(thread))).collect()
}

#[test]
fn an_idle_pool_wakes_nobody() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let marks = Marks::new();
    let (pool, pids) = pool_with_hooks(&marks, Duration::from_secs(30));
    let look = || {
        let own = switches(getpid(), |name| name == "epilogue-pool");
        let workers = pids.iter().flat_map(|&pid| switches(pid, |_| true));
        own.into_iter().chain(workers).collect::<Vec<_>>()
    };
    let sleeping = || {
        let own = procfs::threads_of(getpid());
        let own = own.into_iter().filter(|thread| thread.name == "epilogue-pool");
        let all = own.chain(pids.iter().flat_map(|&pid| procfs::threads_of(pid)));
        all.into_iter().all(|thread| thread.state == 'S')
    };
    // They have answered, but may not have gone back to sleep yet.
    while !sleeping() {
        thread::yield_now();
    }
    // Between going to sleep and having been counted there is a moment, too: look until two
    // looks with work in between agree. A pool that polls never gets there.
    let mut before = look();
    work();
    let mut after = look();
    for _ in 0..3 {
        if before == after {
            break;
        }
        before = after;
        work();
        after = look();
    }
    assert_eq!(before, after, "somebody woke in an idle pool");
    // The supervisor, and three threads or more in the workers.
    assert!(before.len() > WORKERS + 1, "{before:?}");
    assert!(pool.close().unwrap().is_clean());
    drop(pool);
    oracle.nothing_left();
}

/// Another process works while the pool is idle, for longer than anybody would poll.
fn work() {
    let process = Process::start(40_000_000u64, |rounds| {
        (0..rounds).fold(1u64, |sum, round| std::hint::black_box(sum.rotate_left(3) ^ round))
    });
    assert_ne!(process.unwrap().join().unwrap(), 0);
}

#[test]
fn a_worker_dies_by_a_sigterm_from_anybody_with_its_finalizers_run() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let marks = Marks::new();
    let (pool, pids) = pool_with_hooks(&marks, Duration::from_secs(30));
    let pidfd = sys::pidfd_open(pids[0]).unwrap();
    signal(pids[0], Signal::SIGTERM);
    wait_for_end(&pidfd);
    assert_eq!(pool.map(0..100u64, |x| x + 1).unwrap(), (1..=100).collect::<Vec<_>>());
    let report = pool.close().unwrap();
    let ended = report.workers.iter().find(|worker| worker.pid as i32 == pids[0].as_raw());
    assert_eq!(ended.unwrap().end.status.signal(), Some(15), "{report}");
    assert_eq!(hooks::all_ran_once(&marks), WORKERS);
    drop((pool, pidfd));
    oracle.nothing_left();
}

fn wait_for_end(pidfd: &std::os::fd::OwnedFd) {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;
    poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE).unwrap();
}
