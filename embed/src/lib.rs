//! How a process ends, made certain: its finalizers run and its coverage data is written.
#![deny(missing_docs)]

mod deadline;
pub mod ending;
mod exit;
mod finalizer;
mod gate;
mod registry;
mod report;
mod state;
mod stop;
mod sys;

pub use deadline::set_deadline;
pub use exit::{cleanup, exec, exit, exit_now};
pub use finalizer::{Finalizer, finalizer};
pub use report::{Cleanup, FinalizerEnd, Outcome};
pub use stop::{StopReason, on_stop, stop_requested};
