//! A program with a pool, or a process, that it leaves in the way its first argument says.

use std::error::Error;
use std::io::{Write, stdin, stdout};
use std::path::PathBuf;
use std::process;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use epilogue::{Pool, Process, embed};
use nix::libc;
use nix::sys::signal::{SigSet, Signal};
use support::{Gate, Marks, hooks, park_for_ever, sys};

const TASKS: usize = 6;

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
        "process-large" => {
            // It cannot end before somebody has read its answer.
            std::mem::forget(Process::start(8 << 20, |length: usize| vec![7u8; length])?);
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

/// A pool of two workers that have both registered what must run as they end.
fn pool() -> Pool {
    let pool = Pool::builder().workers(2).grace_period(Duration::from_secs(20)).start().unwrap();
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

fn held_by_a_thread() {
    let pool = Arc::new(pool());
    let mut gate = Gate::new();
    let held = Arc::clone(&pool);
    let path = gate.path();
    thread::spawn(move || {
        let items = (0..TASKS).map(|_| path.clone());
        held.map(items, |path: PathBuf| {
            Gate::pass(&path);
            leave_mark(());
        })
    });
    gate.wait_for(2);
    // Both are in the middle of it, and main returns.
}

fn working_process() -> Result<Process<()>, Box<dyn Error>> {
    Ok(Process::start((), |()| {
        hooks::register(Marks::from_env().variable().1);
        leave_mark(());
    })?)
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

/// Pools in the workers of pools, `depth` deep, all busy.
fn nested(depth: usize) {
    let gate = std::env::var_os("GATE").map(PathBuf::from).unwrap();
    descend((depth, gate));
}

fn descend((depth, gate): (usize, PathBuf)) {
    if depth == 0 {
        return Gate::pass(&gate);
    }
    let pool = Pool::new(2).unwrap();
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
        let pool = Pool::new(workers).unwrap();
        pool.map(0..workers * 4, register).unwrap();
        let process = Process::start(0, register).unwrap();
        drop(pool);
        process.join().unwrap();
    }
}
