//! What the black-box tests stand on: an oracle that sees what was left behind, a watchdog that
//! turns a hang into a failure, and fixture programs that are started, watched and built.
//!
//! A test that starts processes opens like this. The oracle comes first: it waits for the test's
//! turn, and the watchdog should not count that time.
//!
//! ```no_run
//! let (oracle, _watchdog) = support::begin();
//! // ... the story ...
//! oracle.nothing_left();
//! ```

mod build;
mod gate;
pub mod hooks;
mod landlock;
mod marks;
mod oracle;
pub mod procfs;
mod program;
mod random;
pub mod raw;
pub mod seccomp;
pub mod sys;
mod tasks;
pub mod tcp;
mod tried;
mod victims;
mod watchdog;

pub use build::{Build, cargo_test, example};
pub use gate::Gate;
pub use landlock::{LANDLOCK_IS_WHOLE, landlock_is_whole, landlock_says, landlock_version};
pub use marks::Marks;
pub use oracle::{Leftovers, Oracle, kill_descendants, turn};
pub use program::{Ending, Program};
pub use random::Random;
pub use tasks::{
    LARGE, await_end, block_on, cpus, fifo, forbid_swap, held, hide_cgroups, large, leave_mark,
    named_in_shm, never_early, nice, nicer, padded, park_for_ever, parked, poll_once, refused,
    refused_step, stop, through, waiting,
};
pub use tried::not_tried;
pub use victims::{children_of, end_child, kill_a_child, signal_child};
pub use watchdog::{Watchdog, describe_tree};

/// How a test begins that starts processes, and is over within three minutes on the slowest machine.
#[must_use]
pub fn begin() -> (Oracle, Watchdog) {
    (Oracle::begin(), Watchdog::start(std::time::Duration::from_secs(180)))
}
