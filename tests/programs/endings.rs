//! A program with a pool, or a process, that it leaves in the way its first argument says.

use std::error::Error;
use std::io::{BufRead, BufReader, Write, stdin, stdout};
use std::iter;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::{self, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Mutex, OnceLock, mpsc};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::Duration;

use epilogue::{EndCause, EndPolicy, Event, Pool, Process, Refusal, Task, TaskError, embed};
use nix::libc;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, Signal, kill, raise};
use nix::unistd::Pid;
use support::{Gate, Marks, held, hooks, park_for_ever, procfs, raw, sys, through};

/// Returns when the program's own end runs what is registered.
fn until_the_program_ends() {
    while !procfs::threads_of(Pid::this()).iter().any(|thread| thread.name == "epilogue-end") {
        thread::yield_now();
    }
}

/// Exits as it is woken.
struct Exits;

impl Wake for Exits {
    fn wake(self: Arc<Self>) {
        process::exit(7);
    }
}

/// Has the program exit as that task is done, which it is not yet.
fn exits_with(mut task: Task<u8>) -> Task<u8> {
    let waker = Waker::from(Arc::new(Exits));
    assert!(Pin::new(&mut task).poll(&mut Context::from_waker(&waker)).is_pending());
    task
}

/// The gate of who started the program.
fn gate() -> Result<PathBuf, &'static str> {
    std::env::var_os("GATE").map(PathBuf::from).ok_or("no gate")
}

const TASKS: usize = 6;
const JOINED: usize = 4;

/// More than a machine that is busy takes.
const LONG: Duration = Duration::from_secs(30);

static POOL: OnceLock<Pool> = OnceLock::new();

fn main() -> Result<(), Box<dyn Error>> {
    [Signal::SIGINT, Signal::SIGTERM].into_iter().for_each(sys::reset);
    let mut arguments = std::env::args().skip(1);
    let story = arguments.next().ok_or("no story")?;
    let number = arguments.next().map_or(Ok(2), |number| number.parse())?;
    match story.as_str() {
        "exit" => {
            let _pool = working_pool();
            process::exit(7);
        }
        "exit-elsewhere" => {
            let pool = Arc::new(working_pool());
            let mut gate = Gate::new();
            let (path, held) = (gate.path(), Arc::clone(&pool));
            let map = thread::spawn(move || held.map([path], |path: PathBuf| Gate::pass(&path)));
            gate.wait();
            thread::spawn(move || {
                // The map goes on while the program exits, and is finished by that.
                gate.open_once();
                process::exit(7)
            });
            drop(map.join());
            loop {
                thread::park();
            }
        }
        "exit-in-callback" => {
            let pool = working_pool();
            pool.submit((), |()| ())?.on_done(|_| process::exit(7));
            loop {
                thread::park();
            }
        }
        "exit-in-callback-as-main-returns" => {
            let pool = working_pool();
            let (begun, begins) = mpsc::channel();
            pool.submit((), |()| ())?.on_done(move |_| {
                begun.send(()).expect("main waits");
                until_the_program_ends();
                process::exit(7)
            });
            begins.recv()?;
            std::mem::forget(pool);
        }
        "exit-in-waker" | "exit-in-waker-as-main-returns" => {
            let pool = working_pool();
            let task = exits_with(pool.submit((gate()?, 0u8), through)?);
            if story == "exit-in-waker" {
                say("ready");
                loop {
                    thread::park();
                }
            }
            thread::spawn(move || {
                until_the_program_ends();
                say("ready");
            });
            std::mem::forget((pool, task));
        }
        "exit-in-waker-that-is-cancelled-as-main-returns" => {
            let builder = Pool::builder().workers(1).on_end(EndCause::Exit, EndPolicy::Stop);
            let pool = builder.start()?;
            let busy = pool.submit((gate()?, 0u8), through)?;
            let task = exits_with(pool.submit(1u8, |x| x)?);
            std::mem::forget((pool, busy, task));
        }
        "exit-in-listener-that-a-callback-waits-for"
        | "exit-in-listener-that-a-callback-of-another-pool-waits-for" => {
            let builder = Pool::builder().workers(1).on_event(|event| {
                // As the last, when who closes the pool waits for nobody else.
                if let Event::Closed = event {
                    process::exit(7);
                }
            });
            let closed = Arc::new(builder.start()?);
            let pool = match story == "exit-in-listener-that-a-callback-waits-for" {
                true => Arc::clone(&closed),
                false => Arc::new(Pool::new(1)?),
            };
            pool.submit((), |()| ())?.on_done(move |_| drop(closed.close()));
            loop {
                thread::park();
            }
        }
        "embed-exit" => {
            let _pool = working_pool();
            embed::exit(7);
        }
        "static" => drop(POOL.set(working_pool())),
        "leaked" => std::mem::forget(working_pool()),
        "held" => held_by_a_thread(),
        "dropped" => drop(working_pool()),
        "question" => {
            let _pool = working_pool();
            Err("the reason")?;
        }
        "panic" => {
            let _pool = pool();
            panic!("on purpose");
        }
        "process-leaked" => std::mem::forget(working_process()?),
        "process-exit" => {
            let _process = working_process()?;
            process::exit(7);
        }
        "wait-for-each-other" => wait_for_each_other()?,
        "process-large" => {
            // It cannot end before somebody has read its answer.
            std::mem::forget(Process::start(8 << 20, |length: usize| vec![7u8; length])?);
        }
        "process-joined-elsewhere" => joined_elsewhere(),
        "tree-leaked" => {
            let builder = Process::builder().end_tree().limit_core(0);
            let crashes = |()| -> u8 {
                deaf();
                process::abort()
            };
            let builder = builder.grace_period(Duration::from_secs(1));
            std::mem::forget(builder.start((), crashes)?);
        }
        "tree-signalled" => {
            embed::cleanup_on_sigterm()?;
            let mut gate = Gate::new();
            let builder = Process::builder().end_tree().grace_period(Duration::from_secs(10));
            let _process = builder.start(gate.path(), |gate: PathBuf| -> u8 {
                deaf();
                Gate::pass(&gate);
                park_for_ever()
            })?;
            gate.wait();
            drop(gate);
            wait();
        }
        "pool-tree-signalled" => {
            embed::cleanup_on_sigterm()?;
            // After the pool has ended.
            embed::finalizer("last", || Marks::from_env().leave("last"));
            let pool = Pool::builder().workers(1).end_tree().start()?;
            // It never comes to its own tree.
            let task = pool.submit((), |()| {
                deaf();
                embed::finalizer("stubborn", || park_for_ever());
            });
            task?.join()?;
            wait();
        }
        "by-policy" => {
            embed::cleanup_on_sigterm()?;
            embed::cleanup_on_signal(libc::SIGINT)?;
            let _pool = pool_with_policies();
            wait();
        }
        "exit-by-policy" => {
            let _pool = pool_with_policies();
            process::exit(7);
        }
        "cleanup-by-policy" => {
            let _pool = pool_with_policies();
            embed::exit(7);
        }
        "sigterm" => {
            embed::cleanup_on_sigterm()?;
            let _pool = busy_pool();
            wait();
        }
        "unprepared" => {
            let _pool = busy_pool();
            wait();
        }
        "idle" => {
            let _pool = pool();
            wait();
        }
        "faults" => unprepared(raw::fault),
        "aborts" => unprepared(|| process::abort()),
        "leaves-at-once" => unprepared(|| sys::exit_now(7)),
        "execs" => unprepared(|| {
            let script = "echo replaced; read line; exit 7";
            panic!("{}", Command::new("sh").args(["-c", script]).exec());
        }),
        "daemonizes" => unprepared(daemonize),
        "exit-among-maps" => exit_among_maps(),
        "hangs-up" => hangs_up()?,
        "paused" => paused(number)?,
        "logs" => logs(),
        "handles" => handles()?,
        "interrupted" => interrupted()?,
        "interrupt-cleans-up" => {
            embed::cleanup_on_signal(libc::SIGINT)?;
            let _pool = busy_pool();
            wait();
        }
        "nested" => nested(number),
        "starting" => starting(number),
        "stubborn-callback" => stubborn(|()| {
            hooks::register(Marks::from_env().variable().1);
            embed::on_stop(|_| park_for_ever());
        }),
        "stubborn-finalizer" => stubborn(|()| {
            embed::finalizer("stubborn", || park_for_ever());
        }),
        "stubborn-hook" => stubborn(|()| {
            extern "C" fn never_returns() {
                park_for_ever()
            }
            sys::at_exit(never_returns);
        }),
        "exiting-worker" => exiting_worker(),
        "stubborn-spin" => stubborn(|()| {
            embed::finalizer("stubborn", || {
                SigSet::all().thread_block().unwrap();
                loop {
                    std::hint::spin_loop();
                }
            });
        }),
        other => Err(format!("no such story: {other}"))?,
    }
    Ok(())
}

fn say(line: &str) {
    println!("{line}");
    stdout().flush().unwrap();
}

fn wait() {
    say("ready");
    drop(stdin().read_line(&mut String::new()));
}

/// A pool with so many workers, which do one task each if `ONE_TASK_EACH` is set.
fn pool_of(workers: usize) -> Pool {
    let builder = Pool::builder().workers(workers).grace_period(Duration::from_secs(20));
    let one_each = std::env::var_os("ONE_TASK_EACH").is_some();
    let builder = if one_each { builder.max_tasks_per_worker(1) } else { builder };
    builder.start().unwrap()
}

/// A pool of two workers that have both registered what must run as they end.
fn pool() -> Pool {
    let pool = pool_of(2);
    let mut gate = Gate::new();
    let task = |path: PathBuf| {
        hooks::register(Marks::from_env().variable().1);
        Gate::pass(&path);
    };
    let tasks: Vec<_> = (0..2).map(|_| pool.submit(gate.path(), task).unwrap()).collect();
    gate.wait_for(2);
    gate.open_once();
    tasks.into_iter().for_each(|task| task.join().unwrap());
    pool
}

/// The same, with tasks that nobody awaits.
fn working_pool() -> Pool {
    let pool = pool();
    for _ in 0..TASKS {
        drop(pool.submit((), leave_mark).unwrap());
    }
    pool
}

fn leave_mark((): ()) {
    thread::sleep(Duration::from_millis(2));
    Marks::from_env().leave("task");
}

/// The same, with two tasks that return when they are asked to stop, and many behind them.
fn busy_pool() -> Pool {
    let pool = pool();
    let mut gate = Gate::new();
    for _ in 0..2 {
        let task = pool.submit(gate.path(), |path: PathBuf| {
            hooks::register(Marks::from_env().variable().1);
            let (asked, stop) = std::sync::mpsc::channel::<()>();
            embed::on_stop(move |_| drop(asked));
            Gate::pass(&path);
            let _ = stop.recv();
        });
        drop(task.unwrap());
    }
    gate.wait_for(2);
    for _ in 0..100 {
        drop(pool.submit((), leave_mark).unwrap());
    }
    pool
}

/// Ends without any preparation, when it is told to, with workers that are busy.
fn unprepared(end: fn()) {
    setrlimit(Resource::RLIMIT_CORE, 0, 0).unwrap();
    let _pool = busy_pool();
    wait();
    end();
}

/// Becomes a copy of itself, which has all of its descriptors, and lives on until it is told to end.
fn daemonize() {
    if raw::fork().is_some() {
        sys::exit_now(0);
    }
    say("copied");
    drop(stdin().read_line(&mut String::new()));
    sys::exit_now(0);
}

/// Exits while many threads are in the middle of maps.
fn exit_among_maps() {
    const THREADS: usize = 8;
    let pool = Arc::new(pool());
    let (mut gate, barrier) = (Gate::new(), Arc::new(Barrier::new(THREADS + 1)));
    for _ in 0..THREADS {
        let (pool, path, barrier) = (Arc::clone(&pool), gate.path(), Arc::clone(&barrier));
        thread::spawn(move || {
            barrier.wait();
            let items = (0..500u64).map(|item| (item, path.clone()));
            let sum = pool.map(items, |(item, gate)| {
                if item == 0 {
                    Gate::pass(&gate);
                }
                item
            });
            // It may be told that the pool is closed, but only if it is.
            assert!(matches!(sum, Ok(_) | Err(TaskError::Refused(Refusal::Closed))), "{sum:?}");
        });
    }
    barrier.wait();
    gate.wait_for(2);
    drop(gate);
    process::exit(7);
}

/// Loses its terminal, to which one of its finalizers writes.
fn hangs_up() -> Result<(), Box<dyn Error>> {
    sys::reset(Signal::SIGHUP);
    embed::finalizer("mark", || Marks::from_env().leave("program"));
    embed::finalizer("prints", || println!("so long"));
    embed::cleanup_on_signal(libc::SIGHUP)?;
    let _pool = busy_pool();
    Gate::pass(&gate()?);
    park_for_ever()
}

/// Is stopped and continued, its workers as well, in the middle of a map whose tasks have a limit.
fn paused(seconds: usize) -> Result<(), Box<dyn Error>> {
    let pool = pool();
    let limit = Duration::from_secs(seconds as u64);
    let mut gate = Gate::new();
    let path = gate.path();
    thread::scope(|threads| -> Result<(), Box<dyn Error>> {
        let items = (0..TASKS as u64).map(|item| (path.clone(), item));
        let map = threads.spawn(|| pool.task_timeout(limit).map(items, through));
        gate.wait_for(2);
        wait();
        drop(gate);
        assert!(map.join().unwrap()?.into_iter().eq(0..TASKS as u64));
        Ok(())
    })?;
    let report = pool.close()?;
    assert!(report.is_clean() && report.workers.len() == 2, "{report}");
    Ok(())
}

/// Has a handler of its own, which the signals to its workers do not concern.
fn handles() -> Result<(), Box<dyn Error>> {
    raw::handle(libc::SIGTERM, libc::SA_RESTART);
    for builder in [Pool::builder(), Pool::builder().max_tasks_per_worker(1)] {
        let pool = builder.workers(1).start()?;
        let mut gate = Gate::new();
        let task = pool.submit((gate.path(), ()), through)?;
        let worker = gate.wait();
        kill(worker, Signal::SIGTERM)?;
        // It dies of that, as by default, and not in the handler that its parent has.
        let outcome = task.join();
        let signal = match &outcome {
            Err(TaskError::WorkerLost(lost)) => lost.status.signal(),
            _ => None,
        };
        assert_eq!(signal, Some(libc::SIGTERM), "{outcome:?}");
        drop(gate);
    }
    say(&format!("handled {}", raw::handled()));
    raise(Signal::SIGTERM)?;
    say(&format!("handled {}", raw::handled()));
    Ok(())
}

/// Starts processes and workers while many threads hold the allocator's lock, that of the output
/// and one of ours, as do those processes themselves.
fn logs() {
    static LOCK: Mutex<Vec<String>> = Mutex::new(Vec::new());
    fn log(n: usize) -> usize {
        let mut lines = LOCK.lock().unwrap();
        lines.push("x".repeat(1 + n % 4000));
        lines.truncate(100);
        eprint!(".");
        n
    }
    let over = AtomicBool::new(false);
    thread::scope(|threads| {
        for _ in 0..8 {
            threads.spawn(|| {
                let mut n = 0;
                while !over.load(Ordering::Relaxed) {
                    n = log(n) + 1;
                }
            });
        }
        for n in 0..500 {
            assert_eq!(Process::start(n, log).unwrap().join().unwrap(), n);
        }
        // Each of these ends its worker, which is replaced.
        let pool = Pool::new(2).unwrap();
        let lost = pool.map_outcomes(0..500usize, |n| process::exit(log(n) as i32 % 2)).unwrap();
        assert!(lost.iter().all(|outcome: &Result<(), _>| outcome.is_err()));
        assert!(pool.map(0..100, log).unwrap().into_iter().eq(0..100));
        over.store(true, Ordering::Relaxed);
    });
}

/// The same, where each cause of its end has a policy that is not the default one. Those that run are
/// let go on when this program is asked to stop, or a task behind them was cancelled, and does them
/// no harm.
fn pool_with_policies() -> Pool {
    let builder = Pool::builder()
        .on_end(EndCause::Interrupt, EndPolicy::Finish)
        .on_end(EndCause::Signal, EndPolicy::FinishBegun)
        .on_end(EndCause::Cleanup, EndPolicy::FinishBegun)
        .on_end(EndCause::Exit, EndPolicy::Stop);
    let pool = builder.workers(2).grace_period(Duration::from_secs(20)).start().unwrap();
    let marks = Marks::from_env().variable().1.to_owned();
    let mut gate = Gate::new();
    for _ in 0..2 {
        drop(pool.submit((marks.clone(), gate.path()), held).unwrap());
    }
    gate.wait_for(2);
    let tasks = (0..TASKS).map(|_| pool.submit(marks.clone(), support::leave_mark).unwrap());
    let behind: Vec<_> = tasks.collect();
    let (open, opened) = std::sync::mpsc::channel();
    let cancelled = open.clone();
    thread::spawn(move || {
        if behind.into_iter().all(|task| task.join().is_err()) {
            cancelled.send(()).unwrap();
        }
    });
    embed::on_stop(move |reason| {
        if reason == embed::ending::StopReason::Signal(libc::SIGINT) {
            open.send(()).unwrap();
        }
    });
    thread::spawn(move || {
        opened.recv().unwrap();
        drop(gate);
    });
    pool
}

fn held_by_a_thread() {
    let pool = Arc::new(pool());
    let mut gate = Gate::new();
    let held = Arc::clone(&pool);
    let path = gate.path();
    let (send, all_sent) = mpsc::channel();
    thread::spawn(move || {
        // A pool that is closed takes no more: the last item has to be with it before main returns.
        let last = iter::from_fn(|| {
            send.send(()).ok();
            None
        });
        let items = (0..TASKS).map(|_| path.clone()).chain(last);
        held.map(items, |path: PathBuf| {
            Gate::pass(&path);
            leave_mark(());
        })
    });
    gate.wait_for(2);
    all_sent.recv().ok();
    // Both are in the middle of it, and main returns.
}

fn working_process() -> Result<Process<()>, Box<dyn Error>> {
    Ok(Process::start((), |()| {
        hooks::register(Marks::from_env().variable().1);
        leave_mark(());
    })?)
}

/// Its children's finalizers wait for whoever has the gate, who waits for all of them.
fn wait_for_each_other() -> Result<(), Box<dyn Error>> {
    fn join_in((): ()) {
        embed::set_deadline(LONG);
        embed::finalizer("wait for the others", || {
            Gate::pass(&PathBuf::from(std::env::var_os("GATE").unwrap()));
            leave_mark(());
        });
    }
    embed::cleanup_on_sigterm()?;
    embed::set_deadline(LONG);
    embed::finalizer("the program's own", || Marks::from_env().leave("own"));
    for _ in 0..2 {
        let pool = Pool::builder().workers(1).grace_period(LONG).start()?;
        pool.submit((), join_in)?.join()?;
        std::mem::forget(pool);
        let mut begun = Gate::new();
        let process = Process::start(begun.path(), |begun: PathBuf| -> u8 {
            join_in(());
            Gate::pass(&begun);
            park_for_ever()
        })?;
        std::mem::forget(process);
        // It goes on, and stays.
        begun.wait();
    }
    say("ready");
    wait();
    Ok(())
}

/// Returns from main while other threads are in joins, and what they join has long answers to give.
fn joined_elsewhere() {
    let mut gate = Gate::new();
    for _ in 0..JOINED {
        let answer = |gate: PathBuf| {
            hooks::register(Marks::from_env().variable().1);
            Gate::pass(&gate);
            "x".repeat(60_000)
        };
        let process = Process::start(gate.path(), answer).unwrap();
        thread::spawn(move || assert_eq!(process.join().unwrap().len(), 60_000));
    }
    gate.wait_for(JOINED);
    gate.open_once();
}

/// Starts what ignores `SIGTERM`.
fn deaf() {
    let script = "trap '' TERM; echo; exec sleep 1000";
    let mut command = Command::new("sh");
    command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let stdout = command.spawn().unwrap().stdout.unwrap();
    BufReader::new(stdout).read_line(&mut String::new()).unwrap();
}

/// Handles SIGINT itself: what runs is finished, and nobody but this program decides so.
fn interrupted() -> Result<(), Box<dyn Error>> {
    let interrupt = SigSet::from(Signal::SIGINT);
    // Before the first thread, so that all have it blocked and it waits for `sigwait`.
    interrupt.thread_block()?;
    let pool = pool();
    let mut gate = Gate::new();
    let path = gate.path();
    thread::scope(|threads| -> Result<(), Box<dyn Error>> {
        let items = (0..TASKS as u64).map(|item| (item, path.clone()));
        let map = threads.spawn(|| {
            pool.map(items, |(item, path): (u64, PathBuf)| {
                Gate::pass(&path);
                leave_mark(());
                item * 2
            })
        });
        gate.wait_for(2);
        say("ready");
        assert_eq!(interrupt.wait()?, Signal::SIGINT);
        say("interrupted");
        drop(gate);
        let values = map.join().unwrap()?;
        assert_eq!(values, [0, 2, 4, 6, 8, 10]);
        Ok(())
    })?;
    assert!(pool.close()?.is_clean());
    Ok(())
}

/// A worker that does what it can not to end, and has little time for it.
fn stubborn(resist: fn(())) {
    let pool = Pool::builder().workers(1).grace_period(Duration::from_millis(400)).start().unwrap();
    pool.submit((), resist).unwrap().join().unwrap();
    wait();
}

/// A worker that has been told to end, and finishes the queue of a pool of its own as it exits.
fn exiting_worker() {
    let gate = std::env::var_os("GATE").map(PathBuf::from).unwrap();
    let pool = Pool::builder().workers(1).grace_period(Duration::from_millis(400)).start().unwrap();
    let task = pool.submit(gate, |gate: PathBuf| {
        let inner = Pool::new(1).unwrap();
        let task = inner.submit(gate.clone(), |gate: PathBuf| Gate::pass(&gate)).unwrap();
        std::mem::forget((inner, task));
        embed::finalizer("leaving", move || Gate::pass(&gate));
    });
    task.unwrap().join().unwrap();
    assert!(pool.close().is_ok());
}

/// Pools in the workers of pools, `depth` deep, all busy.
fn nested(depth: usize) {
    let gate = std::env::var_os("GATE").map(PathBuf::from).unwrap();
    descend((depth, gate));
}

fn descend((depth, gate): (usize, PathBuf)) {
    if depth == 0 {
        return Gate::pass(&gate);
    }
    let pool = pool_of(2);
    let task = |argument: (usize, PathBuf)| {
        hooks::register(Marks::from_env().variable().1);
        descend(argument);
    };
    pool.map((0..2).map(|_| (depth - 1, gate.clone())), task).unwrap();
}

/// Starts pools and processes, uses them, and ends them, for ever.
fn starting(workers: usize) {
    say("ready");
    let register = |_: usize| hooks::register(Marks::from_env().variable().1);
    loop {
        let pool = pool_of(workers);
        pool.map(0..workers * 4, register).unwrap();
        say("registered");
        let process = Process::start(0, register).unwrap();
        drop(pool);
        process.join().unwrap();
    }
}
