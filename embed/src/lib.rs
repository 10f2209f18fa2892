//! How a process ends, made certain: its finalizers run and its coverage data is written.
#![deny(missing_docs)]

mod coverage;
mod deadline;
pub mod ending;
mod error;
mod exit;
mod finalizer;
mod gate;
mod name;
mod registry;
mod report;
mod served;
pub mod signal;
mod signals;
mod state;
mod stop;
mod sys;

pub use coverage::{flush, is_instrumented};
pub use deadline::set_deadline;
pub use error::{FlushError, SignalError};
pub use exit::{cleanup, exec, exit, exit_now};
pub use finalizer::{Finalizer, finalizer};
pub use report::{Cleanup, FinalizerEnd, Outcome};
pub use signals::{cleanup_on_crash, cleanup_on_signal, cleanup_on_sigterm};
pub use stop::{StopReason, on_stop, stop_requested};
