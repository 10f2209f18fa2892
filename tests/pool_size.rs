//! A pool has as many workers as it was told to, while it runs, too: as many as there is work for
//! between a least and a most, and none for nothing.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use epilogue::pool::{ResizeError, available_workers};
use epilogue::{BuildError, Pool, Process, Refusal, Report, Task, TaskError, channel};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getpid};
use support::{Gate, begin, children_of, not_tried, procfs, signal_child};

/// Stands at the gate.
fn stand(gate: PathBuf) -> u32 {
    Gate::pass(&gate);
    std::process::id()
}

fn join_all(tasks: Vec<Task<u32>>) {
    tasks.into_iter().for_each(|task| assert!(task.join().is_ok()));
}

/// Waits until this process has so many children.
fn until_workers(count: usize) {
    while procfs::descendants_of(getpid()).len() != count {
        thread::yield_now();
    }
}

/// How often the supervisor has gone to sleep.
fn sleeps() -> String {
    let threads = procfs::threads_of(getpid());
    let supervisor = threads.iter().find(|thread| thread.name == "epilogue-pool").unwrap();
    let status = fs::read_to_string(format!("/proc/self/task/{}/status", supervisor.pid)).unwrap();
    status.lines().find(|line| line.starts_with("voluntary_ctxt_switches")).unwrap().to_owned()
}

/// In a moment of nothing to do, nobody wakes up.
#[track_caller]
fn is_silent() {
    // Until it has gone to sleep after what it has done last.
    let mut before = sleeps();
    loop {
        thread::sleep(Duration::from_millis(100));
        let now = sleeps();
        if now == before {
            break;
        }
        before = now;
    }
    thread::sleep(Duration::from_millis(500));
    assert_eq!(sleeps(), before);
}

#[test]
fn a_pool_grows_to_its_most_as_there_is_work_and_no_further() {
    let (oracle, _watchdog) = begin();
    let mut gate = Gate::new();
    let pool = Pool::builder().min_workers(1).workers(3).start().unwrap();
    until_workers(1);
    let tasks: Vec<_> = (0..7).map(|_| pool.submit(gate.path(), stand).unwrap()).collect();
    let mut pids = gate.wait_for(3);
    drop(gate);
    for task in tasks {
        pids.push(Pid::from_raw(task.join().unwrap() as i32));
    }
    pids.sort();
    pids.dedup();
    assert_eq!(pids.len(), 3);
    let report = pool.close().unwrap();
    assert_eq!((report.workers.len(), report.done), (3, 7), "{report}");
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn a_map_in_a_pool_that_can_grow_has_more_workers_too() {
    let (oracle, _watchdog) = begin();
    let mut gate = Gate::new();
    let pool = Pool::builder().min_workers(1).workers(4).start().unwrap();
    let path = gate.path();
    thread::scope(|s| {
        let map = s.spawn(|| pool.map(vec![path; 4], stand).unwrap());
        gate.wait_for(4);
        gate.open_once();
        map.join().unwrap();
    });
    drop((pool, gate));
    oracle.nothing_left();
}

#[test]
fn workers_that_have_nothing_to_do_leave_after_a_while_and_an_idle_pool_then_sleeps() {
    let (oracle, _watchdog) = begin();
    let mut gate = Gate::new();
    let idle = Duration::from_millis(50);
    let pool = Pool::builder().min_workers(1).workers(4).idle_timeout(idle).start().unwrap();
    for _ in 0..2 {
        let tasks: Vec<_> = (0..4).map(|_| pool.submit(gate.path(), stand).unwrap()).collect();
        gate.wait_for(4);
        gate.open_once();
        join_all(tasks);
        until_workers(1);
    }
    is_silent();
    let report = pool.close().unwrap();
    assert!(report.is_clean() && report.workers.len() == 7, "{report}");
    drop((pool, gate));
    oracle.nothing_left();
}

#[test]
fn an_idle_pool_with_spares_sleeps() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::builder().workers(2).max_tasks_per_worker(1).start().unwrap();
    pool.map(0..10, |x: u64| x).unwrap();
    until_workers(4);
    is_silent();
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn a_pool_is_resized_while_it_works_and_no_task_is_lost() {
    let (oracle, _watchdog) = begin();
    let mut gate = Gate::new();
    let pool = Pool::new(3).unwrap();
    let tasks: Vec<_> = (0..3).map(|_| pool.submit(gate.path(), stand).unwrap()).collect();
    gate.wait_for(3);
    let more: Vec<_> = (0..20u64).map(|x| pool.submit(x, |x| x).unwrap()).collect();
    pool.resize(1).unwrap();
    gate.open_once();
    join_all(tasks);
    for (x, task) in (0..).zip(more) {
        assert_eq!(task.join().unwrap(), x);
    }
    until_workers(1);
    pool.resize(4).unwrap();
    let tasks: Vec<_> = (0..4).map(|_| pool.submit(gate.path(), stand).unwrap()).collect();
    gate.wait_for(4);
    gate.open_once();
    join_all(tasks);
    let report = pool.close().unwrap();
    assert!(report.is_clean() && report.workers.len() == 6, "{report}");
    assert!(matches!(pool.resize(2), Err(ResizeError::Refused(Refusal::Closed))));
    drop((pool, gate));
    oracle.nothing_left();
}

/// Closes the pool in another thread, and does something meanwhile.
fn close_while(pool: &Pool, meanwhile: impl FnOnce()) -> Report {
    thread::scope(|scope| {
        let closing = scope.spawn(|| pool.close().unwrap());
        meanwhile();
        closing.join().unwrap()
    })
}

#[test]
fn a_pool_that_closes_grows_for_what_waits_behind_a_task() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::builder().min_workers(1).workers(2).start().unwrap();
    let (sender, receiver) = channel::<u64>().unwrap();
    let received = pool.submit(receiver, |receiver| receiver.recv().unwrap()).unwrap();
    // Its argument moves, so it is never sent to a worker that is busy, and no other task goes on
    // before it has run.
    let sent = pool.submit(sender, |sender| sender.send(7).unwrap()).unwrap();
    let report = pool.close().unwrap();
    assert_eq!(received.join().unwrap(), 7);
    sent.join().unwrap();
    assert!(report.is_clean() && report.done == 2, "{report}");
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn a_pool_that_closes_grows_for_what_lies_ahead_with_a_worker() {
    let (oracle, _watchdog) = begin();
    let mut gate = Gate::new();
    let pool = Pool::builder().min_workers(1).workers(3).start().unwrap();
    let tasks: Vec<_> = (0..6).map(|_| pool.submit(gate.path(), stand).unwrap()).collect();
    let report = close_while(&pool, || {
        for _ in 0..2 {
            gate.wait_for(3);
            gate.open_once();
        }
    });
    join_all(tasks);
    // Nobody more was started than there was work for.
    assert!(report.is_clean() && report.workers.len() == 3, "{report}");
    drop((pool, gate));
    oracle.nothing_left();
}

#[test]
fn a_pool_that_closes_starts_nobody_for_what_runs() {
    let (oracle, _watchdog) = begin();
    let mut gate = Gate::new();
    let pool = Pool::builder().workers(3).start().unwrap();
    let tasks: Vec<_> = (0..2).map(|_| pool.submit(gate.path(), stand).unwrap()).collect();
    gate.wait_for(2);
    let report = close_while(&pool, || {
        until_workers(2);
        is_silent();
        gate.open_once();
    });
    join_all(tasks);
    assert!(report.is_clean() && report.workers.len() == 3, "{report}");
    drop((pool, gate));
    oracle.nothing_left();
}

/// Where the file of that name is gone, stands at the gate on its way up, and fails.
fn need_the_file() {
    let [needed, gate] = ["NEEDED", "GATE"].map(|name| std::env::var_os(name).unwrap());
    if let Err(error) = fs::metadata(needed) {
        Gate::pass(gate.as_ref());
        panic!("{error}");
    }
}

/// A pool of one worker that is up, and that dies for no other one, which is to stand at the gate and fail.
fn pool_that_nobody_can_help(gate: &Gate) -> Pool {
    let needed = tempfile::NamedTempFile::new().unwrap();
    let builder = Pool::builder().min_workers(1).workers(2).env("NEEDED", needed.path());
    let builder = builder.env("GATE", gate.path()).initializer(need_the_file);
    let builder = builder.stall_after(Duration::from_millis(100));
    let builder = builder.restart_intensity(0, Duration::from_secs(3600));
    let pool = builder.grace_period(Duration::from_secs(1)).start().unwrap();
    needed.close().unwrap();
    pool
}

fn until_it_closes(pool: &Pool) {
    while pool.submit_all([0u64; 0], |x| x).is_ok() {
        thread::yield_now();
    }
}

#[test]
fn a_worker_that_cannot_come_to_help_a_pool_that_closes_breaks_nothing() {
    let (oracle, _watchdog) = begin();
    let (mut gate, mut way_up) = (Gate::new(), Gate::new());
    let pool = pool_that_nobody_can_help(&way_up);
    let first = pool.submit(gate.path(), stand).unwrap();
    gate.wait();
    let second = pool.submit(1u64, |x| x).unwrap();
    let report = close_while(&pool, || {
        // Whoever is on the way up by now does not arrive before.
        until_it_closes(&pool);
        way_up.wait();
        way_up.open_once();
        // The next one has still to arrive when nothing is left to do, and nobody serves.
        way_up.wait();
        gate.open_once();
        first.join().unwrap();
        assert_eq!(second.join().unwrap(), 1);
        while pool.stats().workers.ended < 2 {
            thread::yield_now();
        }
        way_up.open_once();
    });
    assert_eq!((report.done, &report.broken), (2, &None), "{report}");
    drop((pool, gate, way_up));
    oracle.nothing_left();
}

#[test]
fn a_pool_that_closes_gives_up_where_a_task_waits_for_what_nobody_comes_to_begin() {
    let (oracle, _watchdog) = begin();
    let (mut gate, way_up) = (Gate::new(), Gate::new());
    let pool = pool_that_nobody_can_help(&way_up);
    // As one does that waits for the second.
    let first = pool.submit(gate.path(), stand).unwrap();
    gate.wait();
    let second = pool.submit(1u64, |x| x).unwrap();
    let report = close_while(&pool, || {
        until_it_closes(&pool);
        drop(way_up);
    });
    assert!(report.broken.is_some(), "{report}");
    assert!(matches!(second.join(), Err(TaskError::Refused(Refusal::Broken { .. }))));
    let first = first.join();
    assert!(matches!(first, Err(TaskError::Cancelled { begun: true })), "{first:?}");
    drop((pool, gate));
    oracle.nothing_left();
}

#[test]
fn a_size_that_cannot_be_is_a_typed_error_and_changes_nothing() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(1).unwrap();
    assert!(matches!(pool.resize(0), Err(ResizeError::NoWorkers)));
    assert!(matches!(pool.resize(usize::MAX), Err(ResizeError::TooManyWorkers { .. })));
    assert_eq!(pool.submit(1u64, |x| x + 1).unwrap().join().unwrap(), 2);
    let start = |min, max| Pool::builder().min_workers(min).workers(max).start();
    assert!(matches!(start(0, 2), Err(BuildError::NoWorkers)));
    assert!(matches!(start(0, 0), Err(BuildError::NoWorkers)));
    assert!(matches!(start(3, 2), Err(BuildError::NoSize { min: 3, max: 2 })));
    drop(pool);
    oracle.nothing_left();
}

/// The pids of a pool in a pool in a pool.
fn nested(depth: u32) -> Vec<i32> {
    let mut pids = vec![getpid().as_raw()];
    if depth > 0 {
        let pool = Pool::new(2).unwrap();
        let below = pool.map(std::iter::repeat_n(depth - 1, 2), nested).unwrap();
        pids.extend(below.into_iter().flatten());
    }
    pids
}

#[test]
fn a_task_can_have_a_pool_whose_tasks_have_pools() {
    let (oracle, _watchdog) = begin();
    assert_eq!(nested(3).len(), 15);
    oracle.nothing_left();
}

/// Has a pool of its own, and so on, and stands at the gate in the last of them.
fn stand_below((gate, depth): (PathBuf, u32)) {
    if depth == 0 {
        return Gate::pass(&gate);
    }
    let pool = Pool::new(1).unwrap();
    let _ = pool.map([(gate, depth - 1)], stand_below);
}

#[test]
fn nested_pools_end_with_the_task_that_has_them() {
    let (oracle, _watchdog) = begin();
    let mut gate = Gate::new();
    let pool = Pool::new(1).unwrap();
    let task = pool.submit((gate.path(), 3), stand_below).unwrap();
    gate.wait();
    let report = pool.terminate().unwrap();
    // Whether it returned in the time that it had, as its own pool was ended, or was ended with it.
    let _ = task.join();
    assert!(report.workers.iter().all(|worker| worker.end.finalizers.is_some()), "{report}");
    drop((pool, gate));
    oracle.nothing_left();
}

#[test]
fn as_many_workers_are_available_as_the_affinity_and_the_quota_of_the_cgroup_allow() {
    let (oracle, _watchdog) = begin();
    let bound = |()| {
        let all = sched_getaffinity(Pid::from_raw(0)).unwrap();
        let first = (0..CpuSet::count()).find(|&cpu| all.is_set(cpu).unwrap()).unwrap();
        let mut one = CpuSet::new();
        one.set(first).unwrap();
        sched_setaffinity(Pid::from_raw(0), &one).unwrap();
        available_workers()
    };
    assert_eq!(Process::start((), bound).unwrap().join().unwrap(), 1);
    assert!(available_workers() >= 1);
    match Quota::of_half_a_cpu() {
        Some(quota) => {
            let inside = |tasks: PathBuf| {
                fs::write(tasks, std::process::id().to_string()).unwrap();
                available_workers()
            };
            let process = Process::start(quota.0.join("cgroup.procs"), inside).unwrap();
            assert_eq!(process.join().unwrap(), 1, "half a CPU is at least one worker");
        }
        None => not_tried("this machine lets us make no cgroup with a CPU quota"),
    }
    oracle.nothing_left();
}

/// A cgroup of version 1 or 2 that is removed on drop.
struct Quota(PathBuf);

impl Quota {
    fn of_half_a_cpu() -> Option<Self> {
        let name = format!("epilogue-test-{}", std::process::id());
        let [v1, v2] = ["cpu", ""].map(|at| PathBuf::from("/sys/fs/cgroup").join(at).join(&name));
        let set = |directory: PathBuf, file: &str, quota: &str| {
            fs::create_dir(&directory).ok()?;
            let quota_is_set = fs::write(directory.join(file), quota).is_ok();
            let made = Self(directory);
            quota_is_set.then_some(made)
        };
        set(v1, "cpu.cfs_quota_us", "50000").or_else(|| set(v2, "cpu.max", "50000 100000"))
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// Starts what does not end when it is asked to.
fn start_deaf() {
    let mut deaf = Command::new("sh");
    deaf.args(["-c", "trap '' TERM; echo; exec sleep 1000"]).stdin(Stdio::null());
    let stdout = deaf.stdout(Stdio::piped()).spawn().unwrap().stdout.unwrap();
    BufReader::new(stdout).read_line(&mut String::new()).unwrap();
}

/// It died young, and was replaced before it was known that nothing of it is left.
#[test]
fn a_pool_with_nothing_to_do_wakes_nobody_after_a_death() {
    let (oracle, _watchdog) = begin();
    let builder = Pool::builder().workers(1).end_tree().grace_period(Duration::from_millis(400));
    let pool = builder.initializer(start_deaf).start().unwrap();
    let first = pool.stats().workers;
    assert_eq!((first.up, first.ended), (1, 0));
    assert!(children_of(getpid()).into_iter().all(|child| signal_child(
        getpid(),
        child,
        Signal::SIGKILL
    )));
    while pool.stats().workers.up == 0 || pool.stats().workers.ended == 0 {
        thread::yield_now();
    }
    is_silent();
    drop(pool);
    oracle.nothing_left_within(Duration::from_secs(20));
}
