//! A program that makes it hard for its processes to end well, in the way its first argument says.

use std::env;
use std::error::Error;
use std::io::{Write, stdout};
use std::path::PathBuf;
use std::process;
use std::sync::mpsc;
use std::time::Duration;

use epilogue::{Event, Pool, Process, Refusal, TaskError, embed};
use nix::errno::Errno;
use nix::poll::ppoll;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal, raise};
use support::{Gate, Marks, Oracle, hooks, raw, sys};

/// More than the buffer of a socket takes.
const LARGE: usize = 8 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    sys::reset(Signal::SIGTERM);
    let story = env::args().nth(1).ok_or("no story")?;
    match story.as_str() {
        "few-descriptors" => {
            let pool = Pool::new(8)?;
            // Less than the pool waits for: two for each of its workers, and one of its own.
            allow_descriptors(8);
            assert_eq!(pool.map(0..1000u64, |x| x * x)?.len(), 1000);
            let report = pool.close()?;
            assert!(report.is_clean(), "{report}");
        }
        "no-descriptors" => {
            let process = Process::start(LARGE, |length: usize| vec![7u8; length])?;
            allow_descriptors(0);
            assert_eq!(process.join()?.len(), LARGE);
        }
        "no-descriptors-leaked" => {
            std::mem::forget(Process::start(LARGE, |length: usize| vec![7u8; length])?);
            allow_descriptors(0);
        }
        "no-descriptors-in-a-worker" => {
            let pool = Pool::new(1)?;
            let worker = pool.submit((), |()| {
                allow_descriptors(0);
                process::id()
            })?;
            let worker = worker.join()?;
            // More than is sent at once, so the worker has to wait for some of it.
            let pids = pool.map(0..1000u32, |_| process::id())?;
            assert!(pids.iter().all(|&pid| pid == worker), "another worker took its place");
            assert!(pool.close()?.is_clean());
        }
        "descriptors-for-no-replacement" => (3..=40).for_each(replaced_later),
        "descriptors-for-no-last-worker" => broken_for_want_of_descriptors(),
        "interrupted-exit" => {
            prepare_for_signals()?;
            std::mem::forget(busy_process()?);
            std::mem::forget(busy_pool()?);
            std::mem::forget(busy_pool()?);
            embed::finalizer("last", || say("exiting"));
        }
        "interrupted-exit-of-a-process" => {
            prepare_for_signals()?;
            std::mem::forget(busy_process()?);
            embed::finalizer("last", || say("exiting"));
        }
        other => Err(format!("no such story: {other}"))?,
    }
    Ok(())
}

/// Has the program end well by `SIGTERM`, after what the second argument says.
fn prepare_for_signals() -> Result<(), Box<dyn Error>> {
    let deadline = match env::args().nth(2).as_deref() {
        Some("without-deadline") => Duration::MAX,
        _ => Duration::from_secs(20),
    };
    embed::set_deadline(deadline);
    if env::args().nth(2).as_deref() == Some("survivor") {
        survive()?;
    }
    embed::finalizer("first", || say("finalized"));
    embed::cleanup_on_sigterm()?;
    Ok(())
}

/// Gets a signal that cleans up here, and that has a handler of the program's, so that it goes on.
fn survive() -> Result<(), Box<dyn Error>> {
    raw::handle(Signal::SIGHUP as i32, 0);
    embed::cleanup_on_signal(Signal::SIGHUP as i32)?;
    // Let in by the wait alone: it cannot come between the look and the wait.
    let hangup: SigSet = [Signal::SIGHUP].into_iter().collect();
    raise(Signal::SIGHUP)?;
    hangup.thread_block()?;
    while raw::handled() == 0 {
        assert_eq!(ppoll(&mut [], None, Some(SigSet::empty())), Err(Errno::EINTR));
    }
    Ok(hangup.thread_unblock()?)
}

fn say(line: &str) {
    println!("{line}");
    stdout().flush().unwrap();
}

/// Allows so many: how many were allowed before.
fn allow_descriptors(count: u64) -> u64 {
    let (before, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, count, most).unwrap();
    before
}

/// What a pool told of its workers.
enum Told {
    Up,
    Failed(String),
}

/// A pool that tells of each worker that is up, or could not be started.
fn pool_that_tells(workers: usize) -> (Pool, mpsc::Receiver<Told>) {
    let (teller, told) = mpsc::channel();
    let pool = Pool::builder().workers(workers).on_event(move |event| {
        let news = match event {
            Event::WorkerUp { .. } => Told::Up,
            Event::StartFailed { cause, .. } => Told::Failed(cause.clone()),
            _ => return,
        };
        // Who has heard enough has gone.
        let _ = teller.send(news);
    });
    let pool = pool.start().unwrap();
    for _ in 0..workers {
        assert!(matches!(told.recv().unwrap(), Told::Up));
    }
    (pool, told)
}

/// Ends the worker that this is sent to.
fn lose_a_worker(pool: &Pool) {
    let lost = pool.submit((), |()| raise(Signal::SIGKILL).unwrap()).unwrap().join();
    assert!(matches!(lost, Err(TaskError::WorkerLost(_))), "{lost:?}");
}

fn is_want_of_descriptors(cause: &str) -> bool {
    cause.contains(Errno::EMFILE.desc())
}

/// A worker dies where its replacement may have this many descriptors. The other one does what there is
/// to do, and both do once there are descriptors again.
fn replaced_later(most: u64) {
    let oracle = Oracle::begin();
    let (pool, told) = pool_that_tells(2);
    let allowed = allow_descriptors(most);
    lose_a_worker(&pool);
    let mut news = told.recv().unwrap();
    // 0, 1 and 2 are open, so no other may be.
    assert!(most > 3 || matches!(news, Told::Failed(_)), "a worker without descriptors");
    assert_eq!(pool.map(0..100u64, |x| x + 1).unwrap(), (1..=100).collect::<Vec<_>>());
    allow_descriptors(allowed);
    while let Told::Failed(cause) = news {
        assert!(is_want_of_descriptors(&cause), "with {most} descriptors: {cause}");
        news = told.recv().unwrap();
    }
    let mut gate = Gate::new();
    let pass = |path: PathBuf| Gate::pass(&path);
    let both = [pool.submit(gate.path(), pass).unwrap(), pool.submit(gate.path(), pass).unwrap()];
    gate.wait_for(2);
    gate.open_once();
    both.into_iter().try_for_each(|task| task.join()).unwrap();
    let report = pool.close().unwrap();
    assert_eq!((report.lost, report.workers.len()), (1, 3), "{report}");
    drop((pool, gate, told));
    oracle.nothing_left();
}

/// The last worker dies, and there are no descriptors for another one: what waits is refused with the
/// reason, and so is what comes.
fn broken_for_want_of_descriptors() {
    let oracle = Oracle::begin();
    let (pool, told) = pool_that_tells(1);
    let allowed = allow_descriptors(3);
    lose_a_worker(&pool);
    let refused = pool.map(0..100u64, |x| x).unwrap_err();
    let TaskError::Refused(Refusal::Broken { cause }) = refused else { panic!("{refused:?}") };
    assert!(is_want_of_descriptors(&cause), "{cause}");
    let report = pool.close().unwrap();
    assert!(report.broken.as_deref().is_some_and(is_want_of_descriptors), "{report}");
    allow_descriptors(allowed);
    drop((pool, told));
    assert_eq!(Pool::new(1).unwrap().map(0..100u64, |x| x).unwrap().len(), 100);
    oracle.nothing_left();
}

fn marks() -> PathBuf {
    Marks::from_env().variable().1.to_owned()
}

/// A pool of which one worker has nothing to do and one does what it does until it is asked to
/// stop. The one with nothing to do says so when it is told to end: it stands at the gate `CLOSING`.
fn busy_pool() -> Result<Pool, Box<dyn Error>> {
    let pool = Pool::builder().workers(2).grace_period(Duration::from_secs(60)).start()?;
    let mut gate = Gate::new();
    let busy = pool.submit((marks(), gate.path()), |(marks, gate): (PathBuf, PathBuf)| {
        hooks::register(&marks);
        let (asked, stop) = mpsc::channel::<()>();
        embed::on_stop(move |_| drop(asked));
        Gate::pass(&gate);
        let _ = stop.recv();
    })?;
    drop(busy);
    gate.wait();
    let closing = PathBuf::from(env::var_os("CLOSING").ok_or("no gate")?);
    let idle = pool.submit(closing, |closing: PathBuf| {
        embed::finalizer("closing", move || Gate::pass(&closing));
    })?;
    idle.join()?;
    gate.open_once();
    Ok(pool)
}

/// A process that does what it does for ever.
fn busy_process() -> Result<Process<()>, Box<dyn Error>> {
    let mut gate = Gate::new();
    let process = Process::start((marks(), gate.path()), |(marks, gate): (PathBuf, PathBuf)| {
        hooks::register(&marks);
        Gate::pass(&gate);
        loop {
            std::thread::park();
        }
    })?;
    gate.wait();
    Ok(process)
}
