//! Those who own processes, a pool, a handle, a scope, and how long it takes until one has ended.

use std::fs;
use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::time::{Duration, Instant};

use epilogue::process::{Builder, End};
use epilogue::{
    BuildError, JoinError, Pool, Process, ScopedProcess, ServerError, StartError, StopError, Task,
    TaskError, scope,
};
use nix::unistd::getpid;
use support::procfs;

use super::Step::{
    Answering, Decoding, Exiting, Finalizing, First, Idle, Initializing, Recovering, Stopping,
};
use super::worker::{Answer, Argument, HARMED, await_until, work};
use super::{Cell, Fault, GRACE, SPARE, START, STEP, fired, initialize};
use crate::figures::say_worst;

/// When the fault happened, as its mark says.
fn fault_at() -> Instant {
    let mark = fs::metadata(fired()).and_then(|mark| mark.modified());
    Instant::now() - mark.expect("the fault has happened").elapsed().unwrap()
}

/// Asserts that what was due `bound` after `since` took no longer, but for [`SPARE`].
#[track_caller]
fn in_time(cell: Cell, what: &str, since: Instant, bound: Duration) {
    let took = since.elapsed();
    assert!(took <= bound + SPARE, "{cell}: {what} after {took:?}");
    say_worst(what, took);
}

/// Judges a start that failed, and began at `begun`: whoever is stopped before its hello is given up
/// at the start deadline, and whoever ends before is told of.
#[track_caller]
fn refused(cell: Cell, begun: Instant, error: &StartError) {
    assert!(matches!(cell.0, First | Initializing | Decoding), "{cell}: {error}");
    match error {
        StartError::NoHello { .. } => in_time(cell, "start given up", begun, START),
        // The server itself, which is told of as itself.
        StartError::Server(ServerError::Silent { .. }) if cell.0 == First => {
            in_time(cell, "start given up", begun, START)
        }
        StartError::Server(ServerError::Lost(_)) if cell.0 == First && !cell.1.stays() => {
            in_time(cell, "start failed", fault_at(), GRACE)
        }
        StartError::EndedEarly { .. } => in_time(cell, "start failed", fault_at(), GRACE),
        error => panic!("{cell}: {error}"),
    }
}

/// Whether the one that is hit has to be stopped: it would go on for ever.
fn needs_stop(Cell(step, fault, ..): Cell) -> bool {
    let ends_by_itself = matches!(step, First | Initializing | Finalizing | Exiting);
    step == Stopping || (fault == Fault::Stop && !ends_by_itself)
}

/// Waits until the fault has happened, and whoever was stopped by it stands still: the mark is made a
/// moment before.
fn until_hit(cell: Cell) {
    await_until(|| fired().exists());
    if cell.1 == Fault::Stop {
        await_until(|| procfs::descendants_of(getpid()).iter().any(is_stopped));
    }
}

fn is_stopped(process: &procfs::Entry) -> bool {
    let threads = procfs::threads_of(process.pid);
    process.state == 'T' && threads.iter().all(|thread| thread.state == 'T')
}

fn begun(number: u64) -> bool {
    fired().with_extension(format!("begun-{number}")).exists()
}

pub(super) fn pool(cell: Cell) {
    let step = cell.0;
    let pool = start_pool(cell);
    // A fault that came before has been judged.
    let up = Instant::now();
    let submit = |number| pool.submit(Argument(number), work).unwrap();
    let tasks: Vec<_> = (0..6).map(submit).collect();
    if step == Stopping {
        await_until(|| (0..6).filter(|n| begun(*n)).count() == 2);
    } else if matches!(step, Answering | Recovering) || (needs_stop(cell) && step != Idle) {
        // Nobody reads an answer until then.
        until_hit(cell);
    }
    let mut asked = Instant::now();
    if needs_stop(cell) && step != Idle {
        let report = pool.terminate().unwrap();
        assert!(report.workers.len() >= 2, "{report}");
    }
    let lost = outcomes(cell, tasks);
    if step == Idle {
        fs::write(fired().with_extension("answered"), "").unwrap();
        until_hit(cell);
        asked = Instant::now();
        if needs_stop(cell) {
            let _ = pool.terminate().unwrap();
        } else {
            assert_eq!(pool.map(0..4u64, |x| x).unwrap(), [0, 1, 2, 3], "{cell}: afterwards");
        }
    }
    let due_since = || fault_at().max(up).min(asked);
    // Those two come as the pool ends.
    if !matches!(step, Finalizing | Exiting) {
        in_time(cell, "last outcome", due_since(), GRACE);
    }
    let report = pool.close().unwrap();
    in_time(cell, "all ended", due_since(), GRACE);
    assert_eq!(report.lost, lost, "{report}");
}

/// A pool that is up: another one, where a fault before that was an error.
fn start_pool(cell: Cell) -> Pool {
    let builder = Pool::builder().workers(2).grace_period(GRACE).start_method(cell.3);
    let builder = builder.initializer(initialize);
    if !matches!(cell.0, First | Initializing) {
        return builder.start().unwrap();
    }
    let begun = Instant::now();
    match builder.clone().start_deadline(START).start() {
        // Its other worker was up before the harmed one was given up.
        Ok(pool) => {
            in_time(cell, "pool up", begun, START);
            pool
        }
        Err(BuildError::Worker(error)) => {
            refused(cell, begun, &error);
            builder.start().unwrap()
        }
        Err(error) => panic!("{cell}: {error}"),
    }
}

/// Waits for all outcomes, and judges them: how many were lost.
fn outcomes(cell: Cell, tasks: Vec<Task<Answer>>) -> u64 {
    let (mut lost, mut cancelled) = (0, 0);
    for (number, task) in tasks.into_iter().enumerate() {
        match task.join() {
            Ok(answer) => is_whole(cell, &answer, number as u64),
            Err(TaskError::WorkerLost(_)) => lost += 1,
            Err(TaskError::Cancelled { .. }) => cancelled += 1,
            Err(error) => panic!("{cell}, task {number}: {error}"),
        }
    }
    assert!(cancelled == 0 || needs_stop(cell), "{cell}: {cancelled} cancelled");
    let guilty = u64::from(cell.0 == Recovering) + 1;
    assert!(lost <= guilty, "{cell}: {lost} lost");
    lost
}

#[track_caller]
fn is_whole(cell: Cell, Answer(value, bytes): &Answer, number: u64) {
    assert!(*value == number && bytes.iter().all(|&byte| byte == 7), "{cell}: {value}");
}

fn builder() -> Builder {
    Process::builder().grace_period(GRACE).start_deadline(START)
}

/// Of the one that is to be hit.
fn harmed(cell: Cell) -> Builder {
    builder().initializer(initialize).start_method(cell.3)
}

/// Of those beside it.
fn unharmed() -> Builder {
    builder().env(STEP, "none")
}

pub(super) fn process(cell: Cell) {
    let begun = Instant::now();
    match harmed(cell).start(Argument(HARMED), work) {
        Ok(process) => by_handle(cell, process, Process::join, Process::terminate),
        Err(error) => refused(cell, begun, &error),
    }
}

/// A scoped one, ended by its handle, with others in its scope: one that is joined, and one whose
/// handle is dropped.
pub(super) fn scoped(cell: Cell) {
    scope(|processes| {
        let others = [1, 2].map(|n| processes.start_with(unharmed(), n, |n: u64| n).unwrap());
        let begun = Instant::now();
        match processes.start_with(harmed(cell), Argument(HARMED), work) {
            Ok(process) => by_handle(cell, process, ScopedProcess::join, ScopedProcess::terminate),
            Err(error) => refused(cell, begun, &error),
        }
        let [first, _second] = others;
        assert_eq!(first.join().unwrap(), 1);
    });
}

/// A scoped one that nobody has a handle of: the scope ends it, by a panic where it has to be
/// stopped.
pub(super) fn left_to_its_scope(cell: Cell) {
    let mut asked = None;
    let left = panic::catch_unwind(AssertUnwindSafe(|| {
        scope(|processes| {
            let other = processes.start_with(unharmed(), 1, |n: u64| n).unwrap();
            let begun = Instant::now();
            match processes.start_with(harmed(cell), Argument(HARMED), work) {
                Ok(process) => mem::forget(process),
                Err(error) => return refused(cell, begun, &error),
            }
            until_ripe(cell);
            asked = Some(Instant::now());
            if needs_stop(cell) {
                // Nobody asks it by a handle: that is leaked.
                panic::resume_unwind(Box::new(cell));
            }
            assert_eq!(other.join().unwrap(), 1);
        });
    }));
    match left {
        Err(payload) if !payload.is::<Cell>() => panic::resume_unwind(payload),
        left => assert_eq!(left.is_err(), asked.is_some() && needs_stop(cell), "{cell}"),
    }
    if let Some(asked) = asked {
        in_time(cell, "all ended", fault_at().min(asked), GRACE);
    }
}

/// Waits until the harmed one may be waited for, or asked to end.
fn until_ripe(cell: Cell) {
    if cell.0 == Stopping {
        await_until(|| begun(HARMED));
    } else if cell.0 == Answering || needs_stop(cell) {
        // Nobody reads an answer until then.
        until_hit(cell);
    }
}

fn by_handle<P>(
    cell: Cell,
    process: P,
    join: fn(P) -> Result<Answer, JoinError>,
    terminate: fn(P) -> Result<End, StopError>,
) {
    until_ripe(cell);
    let asked = Instant::now();
    if needs_stop(cell) {
        let _ = terminate(process).unwrap();
    } else {
        match join(process) {
            Ok(answer) => is_whole(cell, &answer, HARMED),
            Err(JoinError::Signaled { .. } | JoinError::Exited(_)) if !cell.1.stays() => {}
            Err(error) => assert!(cell.1.stays(), "{cell}: {error}"),
        }
    }
    in_time(cell, "all ended", fault_at().min(asked), GRACE);
}
