//! A pool, all of its own source, over shuttle's threads: its floor, its supervisor and those who wait, in
//! 10,000 random schedules, the same in each run of the same seed.
//!
//! ```sh
//! [SHUTTLE_RANDOM_SEED=N] cargo run --release -p models --bin floor [MODEL [WHAT IS TAKEN OUT]]
//! ```
//!
//! Only `process` is another one, and only its children, bells and `poll`: see `stand_in`. There is no clock:
//! no deadline ever passes, so whoever would be helped by one waits for ever, which is a deadlock. Maps that
//! go on, limits of time and those who observe a pool are not modelled.

extern crate stand_in as epilogue_process;
extern crate stand_in as nix;

#[path = "../pool/flag.rs"]
mod flag;
#[path = "../pool/harness.rs"]
mod harness;
mod models;

#[path = "../../../../pool/src"]
#[expect(dead_code, unused_imports, reason = "not all of it is modelled")]
mod source {
    pub(crate) mod available;
    pub(crate) mod buffers;
    pub(crate) mod builder;
    pub(crate) mod call;
    pub(crate) mod callback;
    pub(crate) mod collect;
    pub(crate) mod completed;
    pub(crate) mod course;
    pub(crate) mod deadline;
    pub(crate) mod ends;
    pub(crate) mod error;
    pub(crate) mod event;
    pub(crate) mod floor;
    pub(crate) mod future;
    pub(crate) mod hiring;
    pub(crate) mod histogram;
    pub(crate) mod imap;
    pub(crate) mod intensity;
    pub(crate) mod job;
    pub(crate) mod limits;
    pub(crate) mod local;
    pub(crate) mod mailbox;
    pub(crate) mod map;
    pub(crate) mod maps;
    pub(crate) mod member;
    pub(crate) mod note;
    pub(crate) mod observer;
    pub(crate) mod own_thread;
    pub(crate) mod pool;
    pub(crate) mod progress;
    pub(crate) mod reader;
    pub(crate) mod recycling;
    pub(crate) mod reduce;
    pub(crate) mod report;
    pub(crate) mod resize;
    pub(crate) mod scope;
    pub(crate) mod shared;
    pub(crate) mod size;
    pub(crate) mod stall;
    pub(crate) mod stats;
    pub(crate) mod submit;
    pub(crate) mod supervisor;
    pub(crate) mod task;
    pub(crate) mod terms;
    pub(crate) mod trace;
    pub(crate) mod vigil;
    pub(crate) mod wakes;
    pub(crate) mod worker;
}

/// What `pool/src/sync.rs` names, by shuttle.
mod sync {
    pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    pub(crate) use shuttle::sync::{Condvar, Mutex, MutexGuard};
    pub(crate) use shuttle::thread_local;
}

pub(crate) use source::*;
pub(crate) use stand_in::taken_out;

use std::process::ExitCode;

fn main() -> ExitCode {
    harness::run("floor", &models::MODELS)
}
