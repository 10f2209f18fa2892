//! Which errors say what there was too little of: their variants, and what the system said.

use epilogue::process::Refusal;
use epilogue::{BuildError, JoinError, ServerError, StartError, TaskError};
use nix::errno::Errno;
use nix::sys::signal::Signal;

use super::Little;
use crate::scenarios::workload::Refused;

/// Whether this error is of a type that says that this was refused.
pub(super) fn is_about(error: &Refused, little: Little) -> bool {
    match little {
        Little::Descriptors(_) => {
            let is_counted = matches!(error, Refused::Build(BuildError::TooManyWorkers { .. }));
            is_counted || system(error) == Some(Errno::EMFILE)
        }
        Little::Processes(_) => system(error) == Some(Errno::EAGAIN),
        Little::Memory(..) => is_of_the_killed(error),
        Little::Disk | Little::Shm => system(error) == Some(Errno::ENOSPC),
    }
}

/// What the system said, here, in a child or in a start server.
fn system(error: &Refused) -> Option<Errno> {
    match error {
        Refused::Io(source) | Refused::Build(BuildError::System { source, .. }) => {
            source.raw_os_error().map(Errno::from_raw)
        }
        Refused::Start(error) | Refused::Build(BuildError::Worker(error)) => start(error),
        _ => None,
    }
}

fn start(error: &StartError) -> Option<Errno> {
    match error {
        StartError::System { source, .. } => source.raw_os_error().map(Errno::from_raw),
        StartError::Refused(Refusal::Step { error, .. })
        | StartError::Server(ServerError::Step { error, .. }) => {
            let number = error.rsplit_once("(os error ")?.1.strip_suffix(')')?;
            Some(Errno::from_raw(number.parse().ok()?))
        }
        _ => None,
    }
}

/// Whether a process that was killed is told as one for which there was no memory, not as one that anybody
/// may have killed.
pub(super) fn says_that_memory_ran_out(error: &Refused) -> bool {
    match error {
        Refused::Join(error) => matches!(error, JoinError::OutOfMemory),
        Refused::Task(TaskError::WorkerLost(lost)) => {
            lost.detail.as_ref().is_some_and(|detail| detail.contains("no memory left"))
        }
        _ => false,
    }
}

/// Whether a process that the kernel has killed for its memory is told as that, at its start, as it is
/// joined, or by its task.
fn is_of_the_killed(error: &Refused) -> bool {
    let killed = Some(Signal::SIGKILL as i32);
    match error {
        Refused::Build(BuildError::Worker(StartError::EndedEarly { status })) => {
            status.signal() == killed
        }
        Refused::Join(JoinError::OutOfMemory) => true,
        Refused::Join(JoinError::Signaled { signal, .. }) => Some(*signal) == killed,
        Refused::Task(TaskError::WorkerLost(lost)) => {
            let memory = lost.detail.as_ref().is_some_and(|detail| detail.contains("memory"));
            lost.status.signal() == killed && memory
        }
        _ => false,
    }
}
