//! One function in a process of its own, which always ends well.
//!
//! ```
//! use epilogue_process::Process;
//!
//! let process = Process::start(20u64, |n| (1..=n).product::<u64>())?;
//! assert_eq!(process.join()?, 2_432_902_008_176_640_000);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A process is this same executable, started again; nothing has to be called in `main`. It runs
//! one function, `fn(T) -> R`, and ends: its finalizers run, its coverage data is written, and
//! whoever holds its handle gets what it returned or the reason why there is nothing.
//!
//! # What ends a process
//!
//! | what happens | what the process does |
//! |---|---|
//! | its function returns | runs its finalizers, exits with 0 |
//! | [`Process::terminate`], a panic in the parent | stops, runs its finalizers, exits |
//! | `SIGTERM` from anybody | runs its finalizers, dies by it |
//! | `SIGINT`, `SIGQUIT`, `SIGHUP`, as by Ctrl-C | nothing: what they mean is up to the parent |
//! | the parent ends, however | abandons its function, runs its finalizers, exits |
//! | `SIGKILL`, an abort, a fault | ends at once; the parent learns how |
//!
//! # Limitations
//!
//! Linux 5.4 or newer. Code that runs in a child runs before `main`, in a constructor: it has
//! threads, panics, files and the environment, but not the arguments of the command line. A
//! program that was linked statically, stripped or replaced on disk starts children all the same;
//! one that runs with raised privileges (setuid) does not start any.
//!
//! The modules below the API are public for `epilogue-pool` and for other owners of many
//! children; they are documented, but may change between minor versions.

mod answering;
mod awaiting;
pub mod bell;
mod boot;
mod builder;
pub mod channel;
pub mod child;
pub mod codec;
mod end;
pub mod entry;
mod environment;
mod error;
mod fault;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod growth;
mod held;
mod invocation;
mod launch;
pub mod link;
mod local;
mod locals;
mod memory;
mod message;
pub mod note;
mod output;
mod panics;
pub mod parcel;
mod port;
mod portable;
mod process;
pub mod ring;
mod running;
mod sandbox;
mod scope;
pub mod segment;
mod server;
mod setters;
mod setup;
pub mod shared;
mod spec;
mod status;
mod stdio;
pub mod stop;
mod stream;
mod sys;
pub mod task;
mod tree;
mod usage;
mod wait;
mod waiting;
mod watcher;
pub mod wire;

pub use boot::{Refusal, init};
pub use builder::Builder;
pub use channel::{
    Receiver, RecvError, RecvTimeoutError, SendError, SendTimeoutError, Sender, TryRecvError,
    TrySendError, channel, channel_with,
};
pub use codec::{DecodeError, EncodeError, Limits};
pub use end::{End, Finalizer};
pub use error::{JoinError, Side, StartError, StopError};
pub use fault::{Failure, Fault, Panic};
pub use local::LocalWire;
pub use output::Output;
pub use portable::Portable;
pub use process::Process;
pub use sandbox::{Enforcement, Sandbox, SandboxLevel};
pub use scope::{Scope, ScopedProcess, scope};
pub use server::{ServerError, StartMethod, end_servers};
pub use shared::{SharedBuf, SharedSlice};
pub use status::ExitStatus;
pub use stdio::Stdio;
pub use stop::Rung;
pub use stream::StreamWire;
pub use tree::{Mechanism, TreeEnd};
pub use usage::Usage;
pub use wait::{Joinable, Waitable, join_all, wait_all, wait_any};
