//! The mill with processes as std and the kernel offer them. All of it works; only the coverage
//! data of what did not end by itself is lost.

use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use textmill::raw::Worker;

type Outcome = Result<(), Box<dyn Error>>;

const PROGRAM: &str = env!("CARGO_BIN_EXE_textmill");
const TEXTS: [&str; 3] = ["one two  three", "Is it? It is. Done!", "nothing"];

fn pool(work: &str) -> std::io::Result<Vec<Worker>> {
    (0..2).map(|_| Worker::start(Path::new(PROGRAM), work)).collect()
}

fn map(pool: &mut [Worker]) -> std::io::Result<Vec<Option<usize>>> {
    let workers = pool.len();
    TEXTS.iter().enumerate().map(|(n, text)| pool[n % workers].call(text)).collect()
}

#[test]
fn a_pool_is_closed() -> Outcome {
    let mut pool = pool("words")?;
    assert_eq!(map(&mut pool)?, [Some(3), Some(5), Some(1)]);
    for worker in pool {
        assert!(worker.join()?.success());
    }
    Ok(())
}

#[test]
fn a_pool_is_dropped() -> Outcome {
    let mut pool = pool("sentences")?;
    assert_eq!(map(&mut pool)?, [Some(0), Some(3), Some(0)]);
    Ok(())
}

#[test]
fn a_pool_is_terminated() -> Outcome {
    let directory = tempfile::tempdir()?;
    let fifo = directory.path().join("done");
    mkfifo(&fifo, Mode::S_IRWXU)?;
    let mut pool = pool("longest")?;
    assert_eq!(map(&mut pool)?, [Some(5), Some(5), Some(7)]);
    let mut busy = Worker::start(Path::new(PROGRAM), "longest-to")?;
    busy.send(&fifo.to_string_lossy())?;
    assert_eq!(fs::read_to_string(&fifo)?, "done");
    pool.push(busy);
    for worker in pool {
        assert!(!worker.terminate()?.success());
    }
    Ok(())
}

#[test]
fn a_process_is_joined() -> Outcome {
    let mut process = Worker::start(Path::new(PROGRAM), "vowels")?;
    assert_eq!(process.call("education")?, Some(5));
    assert!(process.join()?.success());
    Ok(())
}

#[test]
fn a_process_is_terminated() -> Outcome {
    let directory = tempfile::tempdir()?;
    let fifo = directory.path().join("done");
    mkfifo(&fifo, Mode::S_IRWXU)?;
    let mut process = Worker::start(Path::new(PROGRAM), "watch")?;
    process.send(&fifo.to_string_lossy())?;
    assert_eq!(fs::read_to_string(&fifo)?, "done");
    assert!(!process.terminate()?.success());
    Ok(())
}

#[test]
fn a_worker_aborts() -> Outcome {
    let mut worker = Worker::start(Path::new(PROGRAM), "number")?;
    assert_eq!(worker.call("42")?, Some(42));
    assert_eq!(worker.call("nonsense")?, None);
    assert!(!worker.join()?.success());
    Ok(())
}

#[test]
fn a_service_is_reloaded() -> Outcome {
    let mut command = Command::new(PROGRAM);
    let mut service = command.args(["service", "0"]).stdout(Stdio::piped()).spawn()?;
    let pid = Pid::from_raw(service.id() as i32);
    let mut lines = BufReader::new(service.stdout.take().ok_or("no output")?).lines();
    for rules in [10, 11, 12] {
        let said = lines.next().ok_or("it ended")??;
        assert!(said.ends_with(&format!(" {rules} rules")), "{said}");
        kill(pid, if rules == 12 { Signal::SIGTERM } else { Signal::SIGHUP })?;
    }
    assert!(!service.wait()?.success());
    Ok(())
}

#[test]
fn a_process_copies_itself() -> Outcome {
    let output = Command::new(PROGRAM).arg("largest").output()?;
    assert_eq!(String::from_utf8(output.stdout)?, "41\n");
    Ok(())
}

#[test]
fn a_child_has_children() -> Outcome {
    let mut child = Worker::start(Path::new(PROGRAM), "depth")?;
    assert_eq!(child.call("a\n  b\n    c\nd")?, Some(2));
    drop(child);
    Ok(())
}
