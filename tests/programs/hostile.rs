//! A program that makes it hard for its processes to end well, in the way its first argument says.

use std::env;
use std::error::Error;
use std::io::{Write, stdout};
use std::path::PathBuf;
use std::process;
use std::sync::mpsc;
use std::time::Duration;

use epilogue::{Pool, Process, embed};
use nix::errno::Errno;
use nix::poll::ppoll;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal, raise};
use support::{Gate, Marks, hooks, raw, sys};

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

fn allow_descriptors(count: u64) {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, count, most).unwrap();
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
