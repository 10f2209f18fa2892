//! However a worker dies, every task has exactly one outcome, only the guilty task is lost, and
//! the pool goes on.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, IoSlice};
use std::os::fd::AsFd;
use std::panic::Location;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use epilogue::{ExitStatus, JoinError, Pool, Process, Task, TaskError, WorkerLost};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{MsgFlags, Shutdown, sendmsg, shutdown};
use nix::unistd::{Pid, getpid};
use serde::{Deserialize, Serialize};
use support::{
    Gate, Marks, Oracle, Random, Watchdog, hooks, kill_a_child, park_for_ever, procfs, raw, sys,
};

const PATIENCE: Duration = Duration::from_secs(300);

/// How many workers the storm kills. More by `EPILOGUE_TEST_DEATHS`.
const DEATHS: u64 = 1000;

/// The worker's end of its wire.
const WIRE: i32 = 3;

/// Short, since one test waits for the whole of it, and long enough to die by SIGTERM in a half.
const SHORT_GRACE: Duration = Duration::from_millis(1500);

const TASKS: usize = 60;
/// Which task kills its worker: others are done, and others wait in the same worker.
const GUILTY: usize = 17;

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum Death {
    ExitWell,
    ExitBadly,
    ExitAtOnce,
    Abort,
    Fault,
    BusError,
    IllegalInstruction,
    StackOverflow,
    Kill,
    CloseWire,
    CloseWireAndLive,
    Garbage,
    HalfFrame,
    PanicInAThreadAndExit,
}

impl Death {
    fn happen(self) {
        // What dies by a fault would leave a core file in the working directory.
        setrlimit(Resource::RLIMIT_CORE, 0, 0).unwrap();
        match self {
            Self::ExitWell => std::process::exit(0),
            Self::ExitBadly => std::process::exit(3),
            Self::ExitAtOnce => sys::exit_now(0),
            Self::Abort => std::process::abort(),
            Self::Fault => raw::fault(),
            Self::BusError => raw::bus_error(),
            Self::IllegalInstruction => raw::illegal_instruction(),
            Self::StackOverflow => drop(endless(1)),
            Self::Kill => kill(getpid(), Signal::SIGKILL).unwrap(),
            Self::CloseWire => shutdown(WIRE, Shutdown::Both).unwrap(),
            Self::CloseWireAndLive => {
                shutdown(WIRE, Shutdown::Write).unwrap();
                loop {
                    thread::park();
                }
            }
            Self::Garbage => write_to_wire(&[0x5A; 100]),
            Self::HalfFrame => {
                // The longest prefix of a reply that is not one: nobody must take it for one.
                write_to_wire(&[0x1E, 0xE9, 130, 0, 0, 0, 0, 0]);
                kill(getpid(), Signal::SIGKILL).unwrap();
            }
            Self::PanicInAThreadAndExit => {
                let panics = thread::spawn(|| panic!("on purpose"));
                std::process::exit(if panics.join().is_err() { 9 } else { 0 })
            }
        }
        // The end comes from somebody else.
        loop {
            thread::park();
        }
    }

    /// Whether finalizers run before it: not where memory may be spoilt, or where nobody is asked.
    fn is_an_ending(self) -> bool {
        match self {
            Self::ExitWell | Self::ExitBadly | Self::PanicInAThreadAndExit => true,
            Self::CloseWire | Self::CloseWireAndLive => true,
            Self::Abort | Self::Fault | Self::BusError | Self::IllegalInstruction => false,
            Self::StackOverflow | Self::ExitAtOnce => false,
            Self::Kill | Self::HalfFrame | Self::Garbage => false,
        }
    }

    /// What its pool must say of it.
    fn is_told(self, lost: &WorkerLost) -> bool {
        let status = lost.status;
        let signal = |wanted: Signal| status.signal() == Some(wanted as i32);
        match self {
            Self::ExitWell | Self::ExitAtOnce => status == ExitStatus::Exited(0),
            Self::CloseWire => status == ExitStatus::Exited(0),
            Self::ExitBadly => status == ExitStatus::Exited(3),
            Self::PanicInAThreadAndExit => status == ExitStatus::Exited(9),
            Self::Abort => signal(Signal::SIGABRT),
            Self::Fault => signal(Signal::SIGSEGV),
            Self::BusError => signal(Signal::SIGBUS),
            Self::IllegalInstruction => signal(Signal::SIGILL),
            Self::StackOverflow => signal(Signal::SIGABRT) || signal(Signal::SIGSEGV),
            Self::Kill | Self::HalfFrame => signal(Signal::SIGKILL),
            Self::CloseWireAndLive => signal(Signal::SIGTERM),
            Self::Garbage => signal(Signal::SIGKILL) && lost.detail.is_some(),
        }
    }
}

fn write_to_wire(bytes: &[u8]) {
    let vectors = [IoSlice::new(bytes)];
    sendmsg::<()>(WIRE, &vectors, &[], MsgFlags::empty(), None).unwrap();
}

fn endless(depth: u64) -> u64 {
    let room = std::hint::black_box([depth; 100]);
    if depth == 0 { 0 } else { endless(depth + 1) + room[50] }
}

/// Begins a task, once and for all to see, and dies in it if it is the guilty one.
fn begin((marks, task, death): (PathBuf, usize, Option<Death>)) -> usize {
    Marks::at(&marks).leave(&format!("task-{task}"));
    if let Some(death) = death {
        hooks::register(&marks);
        death.happen();
    }
    task * 3
}

/// One guilty task among many: `workers` of 1 has them all wait in the worker that dies.
#[track_caller]
fn only_the_guilty_task_is_lost(death: Death, workers: usize) {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let marks = Marks::new();
    let pool = Pool::builder().workers(workers).grace_period(SHORT_GRACE).start().unwrap();
    let guilt = |task| (task == GUILTY).then_some(death);
    let tasks = (0..TASKS).map(|task| (marks.path(), task, guilt(task)));
    let outcomes = pool.map_outcomes(tasks, begin).unwrap();
    assert_eq!(outcomes.len(), TASKS);
    for (task, outcome) in outcomes.into_iter().enumerate() {
        match (task == GUILTY, outcome) {
            (false, Ok(value)) => assert_eq!(value, task * 3),
            (true, Err(TaskError::WorkerLost(lost))) => {
                assert!(lost.begun && death.is_told(&lost), "{death:?}: {lost:?}");
            }
            (_, outcome) => panic!("{death:?}, task {task}: {outcome:?}"),
        }
        assert_eq!(marks.count(&format!("task-{task}")), 1, "{death:?}, task {task}");
    }
    let again = pool.map(0..100u64, |x| x + 1).unwrap();
    assert_eq!(again, (1..=100).collect::<Vec<_>>(), "{death:?}: the pool afterwards");
    let report = pool.close().unwrap();
    assert_eq!((report.done, report.lost), (TASKS as u64 - 1 + 100, 1), "{report}");
    assert_eq!(report.workers.len(), workers + 1, "{report}");
    let finalized = (marks.count("registered"), marks.count("finalizer"));
    assert_eq!(finalized, (1, usize::from(death.is_an_ending())), "{death:?}");
    drop(pool);
    oracle.nothing_left();
}

macro_rules! deaths {
    ($($name:ident: $death:ident,)*) => {$(
        #[test]
        fn $name() {
            only_the_guilty_task_is_lost(Death::$death, 1);
            only_the_guilty_task_is_lost(Death::$death, 2);
        }
    )*};
}

deaths! {
    a_worker_that_exits_with_0_loses_its_task_only: ExitWell,
    a_worker_that_exits_with_3_loses_its_task_only: ExitBadly,
    a_worker_that_leaves_without_cleanup_loses_its_task_only: ExitAtOnce,
    a_worker_that_aborts_loses_its_task_only: Abort,
    a_worker_that_faults_loses_its_task_only: Fault,
    a_worker_that_reads_behind_the_end_of_a_file_loses_its_task_only: BusError,
    a_worker_that_executes_no_instruction_loses_its_task_only: IllegalInstruction,
    a_worker_that_overflows_its_stack_loses_its_task_only: StackOverflow,
    a_worker_that_is_killed_loses_its_task_only: Kill,
    a_worker_that_closes_its_wire_loses_its_task_only: CloseWire,
    a_worker_that_closes_its_wire_and_lives_on_is_ended_and_loses_its_task_only: CloseWireAndLive,
    a_worker_that_writes_garbage_is_ended_and_loses_its_task_only: Garbage,
    a_worker_that_dies_in_the_middle_of_a_frame_loses_its_task_only: HalfFrame,
    a_worker_that_exits_while_a_thread_of_it_panics_loses_its_task_only: PanicInAThreadAndExit,
}

#[test]
fn a_panic_arrives_with_its_message_and_its_place_and_the_worker_lives_on() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let pool = Pool::new(1).unwrap();
    let before = pool.submit((), |()| std::process::id()).unwrap().join().unwrap();
    let line = Location::caller().line() + 1;
    let panics = pool.submit(7u64, |x| -> u64 { panic!("no {x} here") }).unwrap();
    let TaskError::Panicked(panic) = panics.join().unwrap_err() else { panic!("not a panic") };
    assert_eq!(panic.message, "no 7 here");
    let place = panic.location.unwrap();
    assert!(place.contains(&format!("workers_die.rs:{line}:")), "{place}, not line {line}");
    let after = pool.submit((), |()| std::process::id()).unwrap().join().unwrap();
    assert_eq!(before, after, "a panic must not cost a worker");
    assert!(pool.close().unwrap().is_clean());
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn the_hooks_of_a_worker_that_exits_run_and_those_of_the_others_too() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let marks = Marks::new();
    let pool = Pool::new(2).unwrap();
    let outcomes = pool.map_outcomes((0..20).map(|task| (marks.path(), task)), |(marks, task)| {
        hooks::register(&marks);
        if task == 5 {
            std::process::exit(3);
        }
    });
    assert_eq!(outcomes.unwrap().iter().filter(|outcome| outcome.is_err()).count(), 1);
    // The one that exited is replaced, unless the pool was closed before that.
    let workers = pool.close().unwrap().workers.len();
    assert!((2..=3).contains(&workers), "{workers}");
    let registered = hooks::all_ran_once(&marks);
    assert!((1..=3).contains(&registered), "{registered}");
    drop(pool);
    oracle.nothing_left();
}

/// The workers of a pool, each idle.
fn idle_workers(pool: &Pool, workers: usize) -> Vec<Pid> {
    let mut gate = Gate::new();
    let wait = |_| pool.submit(gate.path(), |gate: PathBuf| Gate::pass(&gate)).unwrap();
    let tasks: Vec<_> = (0..workers).map(wait).collect();
    let pids = gate.wait_for(workers);
    gate.open_once();
    tasks.into_iter().for_each(|task| task.join().unwrap());
    pids
}

/// Kills workers that nobody else ends, and waits until they are dead.
fn kill_all(pids: &[Pid]) {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    for &pid in pids {
        let pidfd = sys::pidfd_open(pid).unwrap();
        sys::pidfd_signal(pidfd.as_fd(), Signal::SIGKILL).unwrap();
        poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE).unwrap();
    }
}

#[test]
fn idle_workers_that_are_killed_are_replaced_and_no_task_is_lost() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let pool = Pool::new(3).unwrap();
    for round in 0..12 {
        let victims = if round % 2 == 0 { 1 } else { 3 };
        kill_all(&idle_workers(&pool, 3)[..victims]);
        assert_eq!(pool.map(0..20u64, |x| x * x).unwrap()[19], 361);
    }
    let report = pool.close().unwrap();
    assert_eq!(report.lost, 0, "{report}");
    assert_eq!(report.workers.len(), 3 + 6 + 18, "{report}");
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn a_busy_worker_that_is_killed_loses_its_task_only_and_is_named() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let pool = Pool::new(2).unwrap();
    let mut gate = Gate::new();
    let tasks: Vec<_> = (0..2)
        .map(|_| {
            pool.submit(gate.path(), |gate: PathBuf| {
                Gate::pass(&gate);
                std::process::id()
            })
            .unwrap()
        })
        .collect();
    let pids = gate.wait_for(2);
    // Some of these are with the one that dies.
    let behind: Vec<_> = (0..30u64).map(|x| pool.submit(x, |x| x + 1).unwrap()).collect();
    kill_all(&pids[..1]);
    gate.open_once();
    let mut lost = 0;
    for task in tasks {
        match task.join() {
            Ok(pid) => assert_eq!(pid, pids[1].as_raw() as u32),
            Err(TaskError::WorkerLost(worker)) => {
                assert_eq!(worker.pid, pids[0].as_raw() as u32);
                assert_eq!(worker.status.signal(), Some(9));
                assert!(worker.begun);
                lost += 1;
            }
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!(lost, 1);
    for (x, task) in behind.into_iter().enumerate() {
        assert_eq!(task.join().unwrap(), x as u64 + 1);
    }
    drop(pool);
    drop(gate);
    oracle.nothing_left();
}

/// Closes the worker's end of its wire, and goes on in peace.
fn fall_silent(gate: PathBuf) {
    shutdown(WIRE, Shutdown::Write).unwrap();
    Gate::pass(&gate);
}

#[test]
fn a_worker_that_closes_its_wire_keeps_no_task_from_the_others_however_long_it_lives() {
    for workers in [1, 2] {
        let oracle = Oracle::begin();
        let _watchdog = Watchdog::start(PATIENCE);
        // What waits for the end of the silent worker would wait for this.
        let pool = Pool::builder().workers(workers).grace_period(PATIENCE * 10).start().unwrap();
        let mut gate = Gate::new();
        let silent = pool.submit(gate.path(), fall_silent).unwrap();
        let behind: Vec<_> = (0..60u64).map(|x| pool.submit(x, |x| x + 1).unwrap()).collect();
        gate.wait();
        for (x, task) in behind.into_iter().enumerate() {
            assert_eq!(task.join().unwrap(), x as u64 + 1);
        }
        assert_eq!(pool.map(0..100u64, |x| x * 2).unwrap()[99], 198);
        gate.open_once();
        // Its answer is in the shared memory, which has not been closed.
        silent.join().unwrap();
        let report = pool.close().unwrap();
        assert_eq!((report.done, report.lost), (161, 0), "{report}");
        drop((pool, gate));
        oracle.nothing_left();
    }
}

/// A task that answers with much, in a worker that dies at about that time.
fn answer_and_die((microseconds, length): (u64, usize)) -> Vec<u8> {
    thread::spawn(move || {
        thread::sleep(Duration::from_micros(microseconds));
        kill(getpid(), Signal::SIGKILL)
    });
    vec![microseconds as u8; length]
}

#[test]
fn a_worker_that_is_killed_while_it_answers_gives_the_whole_value_or_none() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let pool = Pool::new(2).unwrap();
    let length = 4 << 20;
    // Other tasks in between, so that workers which were killed after their answer are not a
    // row of deaths for nothing.
    for round in 0..40u64 {
        let microseconds = round * 500;
        let task = pool.submit((microseconds, length), answer_and_die).unwrap();
        match task.join() {
            Ok(value) => {
                let is_whole = value.len() == length;
                assert!(is_whole && value.iter().all(|&byte| byte == microseconds as u8));
            }
            Err(TaskError::WorkerLost(lost)) => assert_eq!(lost.status.signal(), Some(9)),
            Err(error) => panic!("{error:?}"),
        }
        assert_eq!(pool.map(0..4u64, |x| x + 1).map_or(4, |values| values.len()), 4);
    }
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn a_process_that_is_killed_in_the_middle_of_its_answer_has_none() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    // More than the connection holds, and nobody reads before `join`: half of it is written.
    let process = Process::start(16 << 20, |length: usize| vec![7u8; length]).unwrap();
    let pid = Pid::from_raw(process.id() as i32);
    // Where the kernel hides what a thread waits for, that it sleeps must do.
    let place = || std::fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default();
    let is_asleep = || procfs::threads_of(pid).iter().any(|it| it.pid == pid && it.state == 'S');
    while !(is_asleep() && (place() == "0" || place().contains("sock") || place().is_empty())) {
        thread::yield_now();
    }
    kill_all(&[pid]);
    let error = process.join().unwrap_err();
    assert!(matches!(error, JoinError::Signaled { signal: 9, .. }), "{error:?}");
    oracle.nothing_left();
}

#[test]
fn a_process_that_dies_says_how() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let die = |death| {
        let builder = Process::builder().grace_period(SHORT_GRACE);
        builder.start(death, Death::happen).unwrap().join().unwrap_err()
    };
    let exited = |death| match die(death) {
        JoinError::Exited(code) => code,
        error => panic!("{death:?}: {error:?}"),
    };
    assert_eq!(exited(Death::ExitWell), 0);
    assert_eq!(exited(Death::ExitAtOnce), 0);
    assert_eq!(exited(Death::ExitBadly), 3);
    assert_eq!(exited(Death::CloseWire), 0);
    let signaled = |death| match die(death) {
        JoinError::Signaled { signal, .. } => Signal::try_from(signal).unwrap(),
        error => panic!("{death:?}: {error:?}"),
    };
    assert_eq!(signaled(Death::Abort), Signal::SIGABRT);
    assert_eq!(signaled(Death::Fault), Signal::SIGSEGV);
    assert_eq!(signaled(Death::Kill), Signal::SIGKILL);
    assert_eq!(signaled(Death::HalfFrame), Signal::SIGKILL);
    assert_eq!(signaled(Death::CloseWireAndLive), Signal::SIGTERM);
    assert!(matches!(die(Death::Garbage), JoinError::Protocol(_)));
    oracle.nothing_left();
}

/// How many tasks a round of the storm has: many more than are on their way at a time.
const STORM: usize = 1500;

struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// How often each task of a round began.
fn beginnings(marks: &Marks) -> HashMap<usize, usize> {
    let mut count = HashMap::new();
    for file in std::fs::read_dir(marks.variable().1).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        let task = name.split(['-', '.']).nth(1).unwrap().parse().unwrap();
        *count.entry(task).or_default() += 1;
    }
    count
}

#[test]
fn in_a_storm_of_deaths_no_task_is_lost_but_the_guilty_and_none_is_done_twice() {
    const WORKERS: usize = 4;
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let deaths = std::env::var("EPILOGUE_TEST_DEATHS");
    let deaths = deaths.map_or(DEATHS, |deaths| deaths.parse().unwrap());
    let pool = Pool::new(WORKERS).unwrap();
    let (mut done, mut lost, mut rounds) = (0, 0, 0);
    let (progress, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|threads| {
        let killer = threads.spawn(|| {
            let mut random = Random::new(0x5EED_0002);
            let (mut killed, mut seen) = (0, 0);
            while killed < deaths && !over.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_micros(random.below(4000)));
                // On a slow machine workers die faster than they start, and a pool rightly gives
                // up if none of them ever does anything: one death for each few tasks.
                if progress.load(Ordering::Relaxed) >= seen + 4 {
                    seen = progress.load(Ordering::Relaxed);
                    killed += u64::from(kill_a_child(&mut random).is_some());
                }
            }
        });
        // A failure must not wait for deaths that nobody is left to die.
        let _over = OnDrop(|| over.store(true, Ordering::Relaxed));
        while !killer.is_finished() {
            let marks = Marks::new();
            let tasks = (0..STORM).map(|task| {
                // A map takes an item when another has its outcome.
                progress.fetch_add(1, Ordering::Relaxed);
                (marks.path(), task, None)
            });
            let outcomes = pool.map_outcomes(tasks, begin).unwrap();
            assert_eq!(outcomes.len(), STORM);
            let beginnings = beginnings(&marks);
            for (task, outcome) in outcomes.into_iter().enumerate() {
                let begun = beginnings.get(&task).copied().unwrap_or(0);
                match outcome {
                    Ok(value) => {
                        assert_eq!((value, begun), (task * 3, 1), "round {rounds}, task {task}");
                        done += 1;
                    }
                    Err(TaskError::WorkerLost(worker)) => {
                        assert_eq!(worker.status.signal(), Some(9), "{worker:?}");
                        assert!(begun <= 1, "round {rounds}, task {task}: begun {begun} times");
                        lost += 1;
                    }
                    Err(error) => panic!("round {rounds}, task {task}: {error:?}"),
                }
            }
            rounds += 1;
        }
        killer.join().unwrap();
    });
    assert_eq!(pool.map(0..100u64, |x| x + 1).unwrap()[99], 100);
    let report = pool.close().unwrap();
    let ended = report.workers.len() as u64 + report.omitted;
    assert_eq!(report.failed, deaths, "{ended} ended");
    assert!(ended <= deaths + WORKERS as u64, "{ended} ended of {deaths} killed");
    assert!(lost <= deaths, "{lost} lost by {deaths} deaths");
    assert_eq!((report.done, report.lost), (done + 100, lost), "{rounds} rounds");
    println!("{deaths} deaths, {rounds} rounds, {done} done, {lost} lost");
    drop(pool);
    oracle.nothing_left();
}

/// Many of them are claimed, and answered, in one block.
#[test]
fn of_many_small_numbers_only_the_one_that_goes_wrong_has_another_outcome() {
    const PANICS: u64 = 1 << 40;
    const FORKS: u64 = 2 << 40;
    const ABORTS: u64 = 3 << 40;
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let pool = Pool::new(2).unwrap();
    for chunk in [7, 1000, 20_000] {
        let item = |index| match index {
            3_333 => PANICS,
            8_888 => FORKS,
            17_777 => ABORTS,
            index => index,
        };
        let maps = pool.chunk_size(chunk);
        let outcomes = maps.map_outcomes((0..20_000).map(item), |x: u64| match x {
            PANICS => panic!("on purpose"),
            FORKS => match raw::fork() {
                // It ends although nobody told it to.
                Some(copy) => nix::sys::wait::waitpid(copy, None).unwrap().pid().map_or(0, |_| 1),
                None => 2,
            },
            ABORTS => std::process::abort(),
            x => x * 2,
        });
        for (outcome, index) in outcomes.unwrap().into_iter().zip(0u64..) {
            match (index, outcome) {
                (3_333, Err(TaskError::Panicked(_))) | (17_777, Err(TaskError::WorkerLost(_))) => {}
                (8_888, Ok(1)) => {}
                (_, Ok(twice)) => assert_eq!(twice, index * 2),
                (_, Err(error)) => panic!("{index}: {error}"),
            }
        }
    }
    let report = pool.close().unwrap();
    assert_eq!((report.done, report.lost), (3 * 19_999, 3), "{report}");
    drop(pool);
    oracle.nothing_left();
}

/// Starts what says in the fifo that it was asked to end, and does not.
fn deaf(asked: &Path) {
    let script = "trap 'echo asked > \"$ASKED\"' TERM; echo; while :; do sleep 0.1; done";
    let mut command = Command::new("sh");
    command.args(["-c", script]).env("ASKED", asked);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let stdout = command.spawn().unwrap().stdout.unwrap();
    BufReader::new(stdout).read_line(&mut String::new()).unwrap();
}

#[test]
fn a_pool_goes_on_while_what_a_worker_left_behind_is_asked_to_end() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let directory = tempfile::tempdir().unwrap();
    let fifo = support::fifo(directory.path(), "asked");
    // Both ends, so that nobody waits for the other.
    let mut asked = BufReader::new(File::options().read(true).write(true).open(&fifo).unwrap());
    let mut gate = Gate::new();
    // Long: by far not all of it goes by.
    let builder = Pool::builder().workers(2).end_tree().grace_period(Duration::from_secs(30));
    let pool = builder.task_timeout(Duration::from_secs(4)).start().unwrap();
    let behind = pool.submit((fifo, gate.path()), |(fifo, gate): (PathBuf, PathBuf)| {
        setrlimit(Resource::RLIMIT_CORE, 0, 0).unwrap();
        deaf(&fifo);
        Gate::pass(&gate);
        std::process::abort()
    });
    let behind: Task<()> = behind.unwrap();
    let worker = gate.wait();
    let family = procfs::descendants_of(worker);
    let deaf = family.iter().find(|one| one.parent == worker).unwrap().pid;
    let deaf = sys::pidfd_open(deaf).unwrap();
    gate.open_once();
    asked.read_line(&mut String::new()).unwrap();
    let slow = pool.submit((), |()| -> u8 { park_for_ever() }).unwrap().join();
    assert!(matches!(slow, Err(TaskError::TimedOut)), "{slow:?}");
    assert!(pool.map(0..20u64, |n| n + 1).unwrap().into_iter().eq(1..21));
    let mut fds = [PollFd::new(deaf.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut fds, PollTimeout::ZERO), Ok(0), "the pool has waited for it");
    sys::pidfd_signal(deaf.as_fd(), Signal::SIGKILL).unwrap();
    // By now its time would have been over, too.
    let TaskError::WorkerLost(lost) = behind.join().unwrap_err() else { panic!("it was killed") };
    assert_eq!(lost.status.signal(), Some(Signal::SIGABRT as i32));
    let report = pool.close().unwrap();
    let crashed = report.workers.iter().find(|one| one.end.status.signal() == Some(6)).unwrap();
    // What the shell had started may have been there, too.
    assert!(crashed.end.tree.unwrap().left >= 1, "{crashed:?}");
    drop((pool, deaf, asked, gate, directory));
    oracle.nothing_left_within(Duration::from_secs(20));
}

/// The first time it crashes, and what it leaves behind needs longer to end than it may take.
#[test]
fn a_task_that_is_begun_again_after_a_tree_is_ended_has_its_limit_of_time() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let directory = tempfile::tempdir().unwrap();
    let builder = Pool::builder().workers(1).end_tree().grace_period(Duration::from_secs(3));
    let pool = builder.task_timeout(Duration::from_secs(2)).retries(1).start().unwrap();
    let task = pool.submit(directory.path().to_owned(), |directory: PathBuf| -> u8 {
        match File::create_new(directory.join("tried")) {
            Ok(_) => crash_leaving_deaf(&directory.join("asked")),
            Err(_) => park_for_ever(),
        }
    });
    let outcome = task.unwrap().join();
    assert!(matches!(outcome, Err(TaskError::TimedOut)), "{outcome:?}");
    assert_eq!(pool.close().unwrap().retried, 1);
    drop(pool);
    oracle.nothing_left_within(Duration::from_secs(20));
}

#[test]
fn workers_whose_trees_have_not_ended_are_replaced_once_each_and_count_as_a_storm() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let directory = tempfile::tempdir().unwrap();
    let builder = Pool::builder().workers(1).end_tree().grace_period(Duration::from_secs(1));
    let pool = builder.restart_intensity(2, Duration::from_secs(600)).start().unwrap();
    let crashes = |asked: PathBuf| -> u8 { crash_leaving_deaf(&asked) };
    let tasks: Vec<_> =
        (0..20).map_while(|_| pool.submit(directory.path().join("asked"), crashes).ok()).collect();
    assert!(tasks.into_iter().all(|task| task.join().is_err()));
    let report = pool.close().unwrap();
    assert!(report.broken.is_some(), "{report}");
    // Three are too many, and two more may have taken their places before that was known.
    assert!(report.workers.len() <= 5, "{report}");
    drop(pool);
    oracle.nothing_left_within(Duration::from_secs(20));
}

fn crash_leaving_deaf(asked: &Path) -> ! {
    setrlimit(Resource::RLIMIT_CORE, 0, 0).unwrap();
    deaf(asked);
    std::process::abort()
}
