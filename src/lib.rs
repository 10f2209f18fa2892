//! Programs made of several processes, with one promise: **every process you start ends, and
//! ends well.** Its finalizers run, its coverage data is written, its task has an answer, and
//! nothing of it is left: no orphan, no zombie, no lost task, no hang.
//!
//! ```
//! use epilogue::{Pool, Process};
//!
//! let pool = Pool::new(4)?;
//! let squares: Vec<u64> = pool.map(0..1000u64, |x| x * x)?;
//! let report = pool.close()?;
//! assert_eq!((squares[9], report.done), (81, 1000));
//!
//! let child = Process::start(String::from("bob"), |name| format!("hello {name}"))?;
//! assert_eq!(child.join()?, "hello bob");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Nothing has to be called in `main`. Dropping a pool or a process, leaving by `?`, panicking and
//! exiting are all the same ending: finish or stop, run the finalizers, join. So is a signal for
//! which [`embed::cleanup_on_signal`] was called. One that nobody handles, as Ctrl-C by default,
//! ends this program at once; then its processes abandon what they do, run their finalizers and
//! end.
//!
//! | crate | what it is for |
//! |---|---|
//! | [`pool`] | many workers, one queue of tasks |
//! | [`process`] | one function in a process of its own |
//! | [`embed`] | how this process ends: finalizers, signals, coverage data |

pub use epilogue_embed as embed;
pub use epilogue_pool as pool;
pub use epilogue_pool::task;
pub use epilogue_process as process;

pub use epilogue_pool::{
    AsCompleted, BuildError, CloseError, EndCause, EndPolicy, Event, Histogram, Imap,
    ImapUnordered, Local, Maps, OnStall, Outcome, Poisoned, Pool, Reaction, Refusal, Report,
    ResizeError, Stall, StallKind, Stats, SubmitError, Task, TaskError, TaskOptions, TaskScope,
    WorkerLost, WorkerReport, as_completed, available_workers,
};
pub use epilogue_process::{
    DecodeError, EncodeError, End, Enforcement, ExitStatus, Failure, JoinError, Limits, Mechanism,
    Output, Panic, Portable, Process, Rung, Sandbox, SandboxLevel, Scope, ScopedProcess,
    ServerError, Side, StartError, StartMethod, Stdio, StopError, TreeEnd, Usage, Waitable,
    end_servers, init, join_all, scope, wait_all, wait_any,
};
pub use epilogue_process::{
    Receiver, RecvError, RecvTimeoutError, SendError, SendTimeoutError, Sender, SharedBuf,
    SharedSlice, TryRecvError, TrySendError, channel, channel_with,
};
