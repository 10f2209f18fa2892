//! The mill with epilogue: the same work, the same endings, and nothing is lost.

use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use epilogue::{Pool, Process, embed};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use textmill::work;

type Outcome = Result<(), Box<dyn Error>>;

const PROGRAM: &str = env!("CARGO_BIN_EXE_textmill");
const TEXTS: [&str; 3] = ["one two  three", "Is it? It is. Done!", "nothing"];

fn texts() -> [String; 3] {
    TEXTS.map(String::from)
}

#[test]
fn a_pool_is_closed() -> Outcome {
    let pool = Pool::new(2)?;
    assert_eq!(pool.map(texts(), work::words)?, [3, 5, 1]);
    assert!(pool.close()?.is_clean());
    Ok(())
}

#[test]
fn a_pool_is_dropped() -> Outcome {
    let pool = Pool::new(2)?;
    assert_eq!(pool.map(texts(), work::sentences)?, [0, 3, 0]);
    Ok(())
}

#[test]
fn a_pool_is_terminated() -> Outcome {
    let directory = tempfile::tempdir()?;
    let fifo = directory.path().join("done");
    mkfifo(&fifo, Mode::S_IRWXU)?;
    let pool = Pool::builder().workers(3).grace_period(Duration::from_secs(2)).start()?;
    let tasks = texts().map(|text| (text, None));
    assert_eq!(pool.map(tasks, work::longest)?, [5, 5, 7]);
    let busy = pool.submit(("never ending".to_owned(), Some(fifo.clone())), work::longest)?;
    assert_eq!(fs::read_to_string(&fifo)?, "done");
    let report = pool.terminate()?;
    assert_eq!((report.done, report.cancelled), (3, 1), "{report}");
    assert!(busy.join().is_err());
    Ok(())
}

#[test]
fn a_process_is_joined() -> Outcome {
    let process = Process::start("education".to_owned(), work::vowels)?;
    assert_eq!(process.join()?, 5);
    Ok(())
}

#[test]
fn a_process_is_terminated() -> Outcome {
    let directory = tempfile::tempdir()?;
    let fifo = directory.path().join("done");
    mkfifo(&fifo, Mode::S_IRWXU)?;
    let process = Process::start(fifo.clone(), work::watch)?;
    assert_eq!(fs::read_to_string(&fifo)?, "done");
    process.terminate()?;
    Ok(())
}

/// What aborts is not to be trusted with finalizers, so this is asked for where it is wanted.
fn careful_number(text: String) -> u64 {
    if embed::cleanup_on_crash().is_err() {
        return 0;
    }
    work::number(text)
}

#[test]
fn a_worker_aborts() -> Outcome {
    let pool = Pool::new(1)?;
    assert_eq!(pool.submit("42".to_owned(), careful_number)?.join()?, 42);
    assert!(pool.submit("nonsense".to_owned(), careful_number)?.join().is_err());
    assert_eq!(pool.close()?.lost, 1);
    Ok(())
}

#[test]
fn a_service_is_reloaded() -> Outcome {
    let mut command = Command::new(PROGRAM);
    command.args(["service", "0"]).env("TEXTMILL_WITH", "epilogue").stdout(Stdio::piped());
    let mut service = command.spawn()?;
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
    let mut command = Command::new(PROGRAM);
    let output = command.arg("largest").env("TEXTMILL_WITH", "epilogue").output()?;
    assert_eq!(String::from_utf8(output.stdout)?, "41\n");
    Ok(())
}

/// A grandchild for each line, dropped when it has answered.
fn indent_elsewhere(line: String) -> usize {
    let child = Process::start(line, work::indent);
    child.map_or(0, |child| child.join().unwrap_or_default())
}

#[test]
fn a_child_has_children() -> Outcome {
    let outline = "a\n  b\n    c\nd".to_owned();
    let child = Process::start(outline, |text| work::depth(text, indent_elsewhere))?;
    assert_eq!(child.join()?, 2);
    Ok(())
}
