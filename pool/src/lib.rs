//! A pool of worker processes that always ends well.
//!
//! ```
//! use epilogue_pool::Pool;
//!
//! let pool = Pool::new(2)?;
//! let squares: Vec<u64> = pool.map(0..10u64, |x| x * x)?;
//! assert_eq!(squares[9], 81);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Workers are this same executable, started again; nothing has to be called in `main`. What is
//! sent to them is a function that captures nothing, and data.
//!
//! # One outcome a task
//!
//! Every task that is submitted has exactly one outcome: its value, or a [`TaskError`] that says
//! why there is none. It panicked or returned an error, its worker was lost during it, it was
//! cancelled, it took or waited too long, something could not be encoded or decoded, or the pool
//! gave up. A worker that dies takes one task with it, the one that it had begun; those that were
//! waiting for it go to another.
//!
//! # Shutdown
//!
//! [`Pool::close`], dropping, `?`, `std::process::exit` and returning from `main` all finish what
//! was submitted and join the workers. A panic that unwinds, a signal that `epilogue::embed`
//! handles, and its `cleanup` and `exit` cancel what has not begun, and give what runs a part of
//! the grace period. [`Builder::on_end`] sets another policy for each of these but [`Pool::close`],
//! which returns the proof: a [`Report`] of how each worker ended.

#![forbid(unsafe_code)]

mod available;
mod buffers;
mod builder;
mod call;
mod callback;
mod collect;
mod completed;
mod course;
mod deadline;
mod ends;
mod error;
mod event;
mod floor;
mod future;
mod hiring;
mod histogram;
mod imap;
mod intensity;
mod job;
mod limits;
mod local;
mod mailbox;
mod map;
mod maps;
mod member;
mod note;
mod observer;
mod own_thread;
mod pool;
mod progress;
mod reader;
mod recycling;
mod reduce;
mod report;
mod resize;
mod scope;
mod shared;
mod size;
mod stall;
mod stats;
mod submit;
mod supervisor;
mod sync;
pub mod task;
mod terms;
mod trace;
#[cfg(feature = "tracing")]
mod tracing;
mod vigil;
mod wakes;
mod worker;

pub use available::available_workers;
pub use builder::Builder;
pub use completed::{AsCompleted, as_completed};
pub use ends::{EndCause, EndPolicy};
pub use error::{
    BuildError, CloseError, Poisoned, Refusal, ResizeError, SubmitError, TaskError, WorkerLost,
};
pub use event::{Event, Outcome, Tasks, WorkerId};
pub use histogram::Histogram;
pub use imap::{Imap, ImapUnordered};
pub use local::Local;
pub use map::Maps;
pub use note::Note;
pub use pool::Pool;
pub use report::{Report, WorkerReport};
pub use scope::TaskScope;
pub use stall::{OnStall, Reaction, Stall, StallKind};
pub use stats::{Stats, WorkerCounts};
pub use task::{Task, TaskOptions};
