//! Everything that can go wrong with one process, by the operation that fails.

use std::ffi::OsString;
use std::io;
use std::time::Duration;

use crate::boot::Refusal;
use crate::codec::{DecodeError, EncodeError};
use crate::end::End;
use crate::entry::ForeignFunction;
use crate::fault::{Failure, Fault, Panic};
use crate::server::ServerError;
use crate::status::ExitStatus;

/// Why a process was not started. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The start hook did not run here, so it would not run in a child, and the child would run
    /// this program's `main` again.
    #[error(
        "epilogue's start hook did not run in this program: call epilogue::init() first in main"
    )]
    NoHook,
    /// A constructor that runs before `main` was to start a process, in one that this program had
    /// started. It would run in the new process as well, which would start the next, and so on.
    #[error(
        "a constructor that runs before main starts no process in a process that was started: it \
         would run in that one, too, and so on without end; start it in main, or when it is first \
         needed"
    )]
    InConstructor,
    /// This process has more rights than its caller (`AT_SECURE`: setuid, file capabilities).
    #[error("a program with raised privileges (AT_SECURE) must not start copies of itself")]
    Privileged,
    /// The function cannot be named for another process.
    #[error(transparent)]
    ForeignFunction(#[from] ForeignFunction),
    /// The argument cannot be encoded.
    #[error("the argument cannot be sent: {0}")]
    Encode(#[from] EncodeError),
    /// A variable that was set for the child is none that an environment can hold.
    #[error(
        "the variable {name:?} cannot be set: a name is not empty and holds no '=', and neither \
         name nor value holds a zero byte"
    )]
    BadVariable {
        /// Its name.
        name: OsString,
    },
    /// The operating system refused a step.
    #[error("{step} failed: {source}; nothing was started")]
    System {
        /// What was being done.
        step: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// The child broke the protocol before it was up: its memory is corrupt, or it is hostile. It was
    /// killed.
    #[error("the child broke the protocol before it was up, and was killed: {0}")]
    Protocol(String),
    /// The child did not say hello in time. It was killed.
    #[error(
        "the child did not start within {deadline:?} and was killed: its initializer, or a \
         constructor that runs before main, may hang, or the machine is overloaded; the \
         builder's start_deadline sets the time"
    )]
    NoHello {
        /// The time that it had.
        deadline: Duration,
    },
    /// The child was up, but was stopped, or did not read for another reason, before it had its
    /// argument. It was killed.
    #[error(
        "the child took nothing of its argument for {deadline:?} and was killed: it may have been \
         stopped; the builder's start_deadline sets the time"
    )]
    ArgumentNotRead {
        /// For how long nothing of it had left.
        deadline: Duration,
    },
    /// The child ended before it said hello.
    #[error("the child ended before it was up: {status}")]
    EndedEarly {
        /// How it ended.
        status: ExitStatus,
    },
    /// The start server could not start it.
    #[error("the start server cannot start it: {0}")]
    Server(#[from] ServerError),
    /// The child could not prepare itself. It has ended.
    #[error("the child could not start: {0}")]
    Refused(Refusal),
}

/// Why joining a process gave no value. But for [`NotParent`](JoinError::NotParent) and
/// [`Start`](JoinError::Start), it has ended and been reaped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The function panicked.
    #[error("the process {0}")]
    Panicked(Panic),
    /// The process exited without an answer, code 0 included.
    #[error("the process exited with code {0} before its function returned")]
    Exited(i32),
    /// A signal ended the process before its function returned.
    #[error("the process was lost: {}", ExitStatus::Signaled { signal: *.signal, core_dumped: *.core_dumped })]
    Signaled {
        /// The number of the signal.
        signal: i32,
        /// Whether the kernel wrote a core file.
        core_dumped: bool,
    },
    /// The process ended without an answer, and other code of this program took its status.
    #[error("the process ended without an answer, and other code took its exit status")]
    Unknown,
    /// The function returned, but its result could not be encoded.
    #[error("the result cannot be sent: {0}")]
    Encode(EncodeError),
    /// The argument, or the result, could not be decoded where it arrived.
    #[error("{side} cannot be read: {error}")]
    Decode {
        /// Which of the two it was.
        side: Side,
        /// What was wrong with it.
        error: DecodeError,
    },
    /// The function returned an error, which was turned into its message. No
    /// [`Process`](crate::Process) does that: a `Result` that its function returns is its value.
    #[error(transparent)]
    Failed(Failure),
    /// The child broke the protocol and was killed.
    #[error("the process broke the protocol and was killed: {0}")]
    Protocol(String),
    /// The kernel had no memory left and ended the process, as the count of such endings in its
    /// cgroup says.
    #[error("the process was killed by the kernel, which had no memory left for its cgroup")]
    OutOfMemory,
    /// Its value was given before.
    #[error("the process was joined before, and its value was given then")]
    AlreadyJoined,
    /// Another process started it (this one was forked from that); only a parent can wait.
    #[error("this process is a fork of the one that started the child, which alone can wait")]
    NotParent,
    /// It was not started at all; for `?` in a scope.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// Which way something travelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// From the parent to the child.
    Argument,
    /// From the child to the parent.
    Result,
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Argument => "the argument",
            Self::Result => "the result",
        })
    }
}

impl From<Fault> for JoinError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Panicked(panic) => Self::Panicked(panic),
            Fault::Failed(failure) => Self::Failed(failure),
            Fault::Argument(error) => Self::Decode { side: Side::Argument, error },
            Fault::Result(error) => Self::Encode(error),
            Fault::Reply(error) => Self::Decode { side: Side::Result, error },
            Fault::NoSuchEntry => Self::Protocol(fault.to_string()),
        }
    }
}

impl JoinError {
    /// Why there is no answer from a process that ended like this.
    pub(crate) fn of_end(end: &End) -> Self {
        match end.status {
            _ if end.out_of_memory => Self::OutOfMemory,
            ExitStatus::Exited(code) => Self::Exited(code),
            ExitStatus::Signaled { signal, core_dumped } => Self::Signaled { signal, core_dumped },
            ExitStatus::Unknown => Self::Unknown,
        }
    }
}

/// Why a process could not be stopped by its handle.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StopError {
    /// Another process started it (this one was forked from that); only a parent can stop it.
    #[error("this process is a fork of the one that started the child, which alone can stop it")]
    NotParent,
}
