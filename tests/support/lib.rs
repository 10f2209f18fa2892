//! What the black-box tests stand on: an oracle that sees what was left behind, a watchdog that
//! turns a hang into a failure, and fixture programs that are started, watched and built.
//!
//! A test that starts processes opens like this. The oracle comes first: it waits for the test's
//! turn, and the watchdog should not count that time.
//!
//! ```no_run
//! use std::time::Duration;
//! use support::{Oracle, Watchdog};
//!
//! let oracle = Oracle::begin();
//! let _watchdog = Watchdog::start(Duration::from_secs(60));
//! // ... the story ...
//! oracle.nothing_left();
//! ```

mod build;
mod gate;
pub mod hooks;
mod marks;
mod oracle;
pub mod procfs;
mod program;
pub mod raw;
pub mod sys;
mod tasks;
mod watchdog;

pub use build::{Build, cargo_test, example};
pub use gate::Gate;
pub use marks::Marks;
pub use oracle::{Leftovers, Oracle};
pub use program::{Ending, Program};
pub use tasks::{block_on, fifo, padded, park_for_ever, stop, through};
pub use watchdog::Watchdog;
