//! A program that makes it hard for its processes to end well, in the way its first argument says.

use std::env;
use std::error::Error;
use std::process;

use epilogue::{Pool, Process};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// More than the buffer of a socket takes.
const LARGE: usize = 8 << 20;

fn main() -> Result<(), Box<dyn Error>> {
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
        other => Err(format!("no such story: {other}"))?,
    }
    Ok(())
}

fn allow_descriptors(count: u64) {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, count, most).unwrap();
}
