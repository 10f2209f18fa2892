//! A program whose processes are forked by a start server, and which ends as its argument says.

use std::error::Error;
use std::io::{Write, stdin, stdout};
use std::path::PathBuf;
use std::process;
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use epilogue::process::Builder;
use epilogue::{Pool, Process, StartMethod, embed, end_servers};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid, waitpid};
use nix::unistd::getpid;
use support::{Gate, Marks, hooks, procfs, raw, sys};

static POOL: OnceLock<Pool> = OnceLock::new();

fn main() -> Result<(), Box<dyn Error>> {
    match std::env::args().nth(1).ok_or("no story")?.as_str() {
        "changes" => changes()?,
        "busy" => {
            let _busy = busy()?;
            wait();
        }
        "busy-embed" => {
            embed::cleanup_on_sigterm()?;
            let _busy = busy()?;
            wait();
        }
        "server-stopped" => {
            let _busy = busy()?;
            // The child that it has forked ahead is there soon, if not yet.
            for name in ["epilogue-spare", "epilogue-server"] {
                while !stop(name)? {
                    thread::yield_now();
                }
            }
            wait();
        }
        "exit" => {
            let _first = registered()?;
            let _second = registered()?;
            wait();
            process::exit(3);
        }
        "leaked" => {
            std::mem::forget((registered()?, registered()?));
            wait();
            process::exit(3);
        }
        "static-pool" => {
            let pool = Pool::builder().workers(2).start_method(StartMethod::Server).start()?;
            let mut gate = Gate::new();
            let task = |path: PathBuf| {
                register();
                Gate::pass(&path);
            };
            let tasks = [pool.submit(gate.path(), task)?, pool.submit(gate.path(), task)?];
            gate.wait_for(2);
            drop(gate);
            tasks.into_iter().try_for_each(|task| task.join())?;
            drop(POOL.set(pool));
            wait();
            process::exit(3);
        }
        "preloading" => {
            embed::cleanup_on_sigterm()?;
            embed::finalizer("mark", || Marks::from_env().leave("finalizer"));
            let forked = forked().preload(stand_at_the_gate).start_deadline(LONG);
            let _starting = thread::spawn(move || forked.start((), |()| ()).map(drop));
            wait();
        }
        "preloaded-finalizer" => {
            forked().preload(recover_in_a_finalizer).start((), |()| ())?.join()?;
            end_servers();
        }
        "queued" => queued()?,
        "cleanup" => cleanup()?,
        "copy" => copy()?,
        "measured" => measured()?,
        other => Err(format!("no such story: {other}"))?,
    }
    Ok(())
}

/// Longer than any story.
const LONG: Duration = Duration::from_secs(3600);

fn stand_at_the_gate() {
    if let Some(path) = std::env::var_os("GATE") {
        Gate::pass(path.as_ref());
    }
}

fn load_at_the_gate() {
    Marks::from_env().leave("preload");
    stand_at_the_gate();
}

fn recover_in_a_finalizer() {
    raw::guard_page();
    embed::finalizer("recovers", || {
        raw::touch_guarded_page();
        Marks::from_env().leave("recovered");
    });
}

fn is_asleep(thread: &str) -> bool {
    let threads = procfs::threads_of(getpid());
    threads.iter().any(|one| (&*one.name, one.state) == (thread, 'S'))
}

/// It exits while a start waits for a preload that does not end, and another for that start.
fn queued() -> Result<(), Box<dyn Error>> {
    let forked = forked().preload(load_at_the_gate).start_deadline(LONG);
    let first = forked.clone();
    let _starting = thread::spawn(move || first.start((), |()| ()).map(drop));
    wait();
    let waits = move || {
        for _ in 0..3 {
            drop(forked.clone().start((), |()| ()));
        }
    };
    let waits = thread::Builder::new().name("waits".into()).spawn(waits)?;
    while !is_asleep("waits") && !waits.is_finished() {
        thread::yield_now();
    }
    process::exit(3);
}

/// It cleans up while a start waits for a server that does not answer, and goes on.
fn cleanup() -> Result<(), Box<dyn Error>> {
    embed::set_deadline(Duration::from_secs(15));
    let patient = || forked().start_deadline(LONG);
    let answers = move || patient().start(20, |n: u32| n + 1).unwrap().join().unwrap();
    assert_eq!(answers(), 21);
    for name in ["epilogue-spare", "epilogue-server"] {
        while !stop(name)? {
            thread::yield_now();
        }
    }
    // So that it has to be asked for the next one.
    let family = procfs::descendants_of(getpid());
    let spare = family.iter().find(|entry| entry.name == "epilogue-spare").ok_or("no spare")?;
    kill(spare.pid, Signal::SIGKILL)?;
    waitid(Id::Pid(spare.pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)?;
    let starts = thread::Builder::new().name("starts".into()).spawn(answers)?;
    while !is_asleep("starts") && !starts.is_finished() {
        thread::yield_now();
    }
    assert!(!starts.is_finished(), "it was not stopped");
    assert!(embed::cleanup().is_complete());
    assert_eq!(starts.join().map_err(|_| "the start failed")?, 21);
    assert_eq!(answers(), 21);
    Ok(())
}

fn forked() -> Builder {
    Process::builder().start_method(StartMethod::Server)
}

fn wait() {
    println!("ready");
    drop(stdout().flush());
    drop(stdin().read_line(&mut String::new()));
}

/// Stops the process of this name; false if there is none.
fn stop(name: &str) -> Result<bool, Box<dyn Error>> {
    let family = procfs::descendants_of(getpid());
    let Some(found) = family.iter().find(|entry| entry.name == name) else { return Ok(false) };
    kill(found.pid, Signal::SIGSTOP)?;
    Ok(true)
}

fn register() {
    hooks::register(Marks::from_env().variable().1);
}

fn registered() -> Result<Process<()>, Box<dyn Error>> {
    Ok(forked().start((), |()| register())?)
}

/// Two processes that have registered what must run as they end, and go on for ever.
fn busy() -> Result<[Process<()>; 2], Box<dyn Error>> {
    let mut gate = Gate::new();
    let endless = |path: PathBuf| {
        register();
        Gate::pass(&path);
        loop {
            thread::park();
        }
    };
    let both = [forked().start(gate.path(), endless)?, forked().start(gate.path(), endless)?];
    gate.wait_for(2);
    Ok(both)
}

/// The environment, the directory and the standard output are those of the moment.
fn changes() -> Result<(), Box<dyn Error>> {
    let look = |()| {
        let output = std::fs::read_link("/proc/self/fd/1").map(|path| path.display().to_string());
        let directory = std::env::current_dir().map(|path| path.display().to_string());
        (std::env::var("STORY").ok(), directory.ok(), output.ok())
    };
    let first = forked().start((), look)?.join()?;
    assert_eq!(first.0, None);
    sys::set_variable("STORY", "second");
    std::env::set_current_dir("/")?;
    wait();
    let null = std::fs::File::options().write(true).open("/dev/null")?;
    nix::unistd::dup2_stdout(&null)?;
    let second = forked().start((), look)?.join()?;
    let expected = (Some("second"), Some("/"), Some("/dev/null"));
    assert_eq!((second.0.as_deref(), second.1.as_deref(), second.2.as_deref()), expected);
    Ok(())
}

#[inline(never)]
fn measured_in_a_server() {
    std::hint::black_box(());
}

#[inline(never)]
fn measured_in_a_child() {
    std::hint::black_box(());
}

#[inline(never)]
fn measured_finalizer_in_a_child() {
    std::hint::black_box(());
}

/// Children that end in every way that loses no finalizer.
fn measured() -> Result<(), Box<dyn Error>> {
    let builder = || Process::builder().preload(measured_in_a_server);
    let run = |code: Option<i32>| {
        embed::finalizer("measured", measured_finalizer_in_a_child as fn());
        measured_in_a_child();
        if let Some(code) = code {
            process::exit(code);
        }
    };
    for _ in 0..3 {
        builder().start(None, run)?.join()?;
    }
    drop(builder().start(Some(0), run)?.join());
    let mut gate = Gate::new();
    let endless = |path: PathBuf| -> u8 {
        embed::finalizer("measured", measured_finalizer_in_a_child as fn());
        measured_in_a_child();
        Gate::pass(&path);
        loop {
            thread::park();
        }
    };
    let stopped = builder().start(gate.path(), endless)?;
    gate.wait();
    stopped.terminate()?;
    let signalled = builder().start(gate.path(), endless)?;
    kill(gate.wait(), Signal::SIGTERM)?;
    drop(signalled.join());
    let pool = Pool::builder().workers(2).preload(measured_in_a_server).start()?;
    pool.map(0..4u8, |_| measured_in_a_child())?;
    assert!(pool.close()?.is_clean());
    Ok(())
}

/// A copy that was forked starts its own; the original's goes on.
fn copy() -> Result<(), Box<dyn Error>> {
    assert_eq!(forked().start(20, |n: u32| n + 1)?.join()?, 21);
    match raw::fork() {
        None => {
            println!("copy {}", forked().start(41, |n: u32| n + 1)?.join()?);
        }
        Some(copy) => {
            waitpid(copy, None)?;
            println!("original {}", forked().start(41, |n: u32| n + 1)?.join()?);
        }
    }
    Ok(())
}
