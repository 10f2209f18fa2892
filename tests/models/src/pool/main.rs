//! Those who wait for a pool's outcomes: its own reader, mailbox and wakes, over shuttle's threads, in
//! 10,000 random schedules, the same in each run of the same seed.
//!
//! ```sh
//! [SHUTTLE_RANDOM_SEED=N] cargo run --release -p models --bin pool [MODEL [WHAT IS TAKEN OUT]]
//! ```
//!
//! So do its rules of who reads and who is told, over a floor as small as can be, whose workers are threads:
//! so a model has few steps, and many schedules. All of a pool is modelled by the program `floor`.

extern crate self as epilogue_process;
extern crate self as nix;

mod bells;
mod flag;
mod floor;
mod harness;
mod member;
mod models;
mod outcome;
mod shared;
mod taken_out;
mod worker;

#[path = "../../../../pool/src/mailbox.rs"]
#[expect(dead_code, reason = "not all of it is modelled")]
mod mailbox;
#[path = "../../../../pool/src/reader.rs"]
mod reader;
#[path = "../../../../pool/src/terms.rs"]
#[expect(dead_code, reason = "of it, `earlier` is used")]
mod terms;
#[path = "../../../../pool/src/wakes.rs"]
mod wakes;

pub(crate) use bells::{bell, child, poll};
pub(crate) use outcome::{error, parcel, ring, scope};

mod sync {
    pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    pub(crate) use shuttle::sync::{Condvar, Mutex, MutexGuard};
    pub(crate) use shuttle::thread_local;
}

use std::process::ExitCode;

fn main() -> ExitCode {
    harness::run("pool", &models::MODELS)
}
