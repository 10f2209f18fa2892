//! A program at a terminal, or under a clock that is set again and again: what its first argument
//! says.

use std::env;
use std::error::Error;
use std::io::{Write, stdout};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, SystemTime};

use epilogue::{Pool, Process, TaskError, TaskOptions, embed};
use nix::sys::signal::{SigSet, Signal};
use support::{Gate, park_for_ever, sys};

fn main() -> Result<(), Box<dyn Error>> {
    sys::reset(Signal::SIGINT);
    match env::args().nth(1).ok_or("no story")?.as_str() {
        "terminal" => terminal(),
        "clock" => clock(),
        other => Err(format!("no such story: {other}"))?,
    }
}

fn say(line: &str) {
    println!("{line}");
    stdout().flush().unwrap();
}

/// Handles Ctrl-C itself. Its workers are busy, and each has started a program that never heard of
/// us.
fn terminal() -> Result<(), Box<dyn Error>> {
    const WORKERS: usize = 2;
    let interrupt = SigSet::from(Signal::SIGINT);
    // Before the first thread, so that all have it blocked and it waits for `wait`.
    interrupt.thread_block()?;
    let pool = Pool::new(WORKERS)?;
    let mut gate = Gate::new();
    let tasks: Vec<_> = (0..WORKERS)
        .map(|_| {
            pool.submit(gate.path(), |gate: PathBuf| {
                let mut sleep = Command::new("sleep").arg("1000").spawn().unwrap();
                Gate::pass(&gate);
                sleep.wait().unwrap().signal()
            })
        })
        .collect::<Result<_, _>>()?;
    gate.wait_for(WORKERS);
    say("ready");
    assert_eq!(interrupt.wait()?, Signal::SIGINT);
    say("interrupted");
    drop(gate);
    for task in tasks {
        say(&format!("sleep ended by {:?}", task.join()?));
    }
    let report = pool.close()?;
    assert!(report.is_clean() && report.workers.len() == WORKERS, "{report}");
    say("done");
    Ok(())
}

const HOUR: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(50);

/// Whether the clock on the wall is set between two looks.
fn jumps((): ()) -> bool {
    let (first, second) = (SystemTime::now(), SystemTime::now());
    second.duration_since(first).unwrap_or_else(|back| back.duration()) > HOUR
}

/// Limits that are far off, and limits that are reached.
fn clock() -> Result<(), Box<dyn Error>> {
    let builder = Pool::builder().workers(2).start_deadline(HOUR);
    let pool = builder.task_timeout(HOUR).soft_timeout(HOUR / 2).queue_timeout(HOUR).start()?;
    let mut task = pool.submit((), jumps)?;
    say(&format!("jumps {} {:?}", jumps(()), task.join_timeout(HOUR)?));
    let brief = |n: u32| {
        thread::sleep(Duration::from_millis(1));
        assert!(!embed::stop_requested());
        n
    };
    say(&format!("sum {}", pool.map(0..200, brief)?.into_iter().sum::<u32>()));
    let limited = TaskOptions::new().timeout(SHORT);
    let endless = pool.submit_with(&limited, (), |()| -> u8 { park_for_ever() })?;
    say(&format!("is timed out {}", matches!(endless.join(), Err(TaskError::TimedOut))));
    drop(pool.close_timeout(HOUR)?);
    let mut process = Process::builder().grace_period(HOUR).start((), |()| {
        embed::on_stop(|_| embed::exit(0));
        embed::finalizer("last", || thread::sleep(SHORT));
        park_for_ever()
    })?;
    let in_vain: Option<u8> = process.join_timeout(SHORT)?;
    let end = process.terminate()?;
    say(&format!("{in_vain:?} {:?} {:?}", end.rung, end.finalizers.map(|all| all.len())));
    Ok(())
}
