//! Those who wait for a pool's outcomes: its own reader, mailbox and wakes, over shuttle's threads, in
//! 10,000 random schedules, the same in each run of the same seed.
//!
//! ```sh
//! [SHUTTLE_RANDOM_SEED=N] cargo run --release -p models --bin pool [MODEL [WHAT IS TAKEN OUT]]
//! ```
//!
//! So do its rules of who reads and who is told, over a floor as small as can be, for the pool's takes real
//! children: here workers are threads. Each model runs as it is, and must pass; and once for each thing that
//! is taken out, without which it must fail: who waits for ever is a deadlock.

extern crate self as epilogue_process;
extern crate self as nix;

mod bells;
mod floor;
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

use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use models::{MODELS, Model};
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, Runner};
use taken_out::{Break, take_out};

/// The variable in which shuttle itself looks for another seed than it is given.
const SEED_VARIABLE: &str = "SHUTTLE_RANDOM_SEED";
/// The seed of a run that names none: one that fails fails again.
const SEED: u64 = 0x5EED_0008;

/// What Rust exits with if `main` panics.
const PANIC: i32 = 101;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match &args[..] {
        [] => {
            let failed = MODELS.iter().filter(|model| !stands(model)).count();
            println!("pool: {} models passed, {failed} failed", MODELS.len() - failed);
            ExitCode::from(u8::from(failed > 0))
        }
        [name, rest @ ..] => {
            let model = MODELS.iter().find(|model| model.name == name).expect("no such model");
            for what in rest {
                let found = Break::ALL.into_iter().find(|one| format!("{one:?}") == *what);
                take_out(found.expect("nothing of that name can be taken out"));
            }
            // Half of them switch at any step, the others at few steps that are chosen well.
            let random = RandomScheduler::new_from_seed(SEED, model.schedules / 2);
            Runner::new(random, Config::default()).run(model.run);
            let chosen = PctScheduler::new_from_seed(SEED, 3, model.schedules / 2);
            Runner::new(chosen, Config::default()).run(model.run);
            ExitCode::SUCCESS
        }
    }
}

/// Whether a model passes, and fails without each thing that it needs.
fn stands(model: &Model) -> bool {
    let start = Instant::now();
    let child = |without: Option<Break>| {
        let program = std::env::current_exe().expect("this program");
        let mut command = Command::new(program);
        command.arg(model.name).args(without.map(|what| format!("{what:?}")));
        command
            .env("SHUTTLE_SILENCE_WARNINGS", "1")
            .stdin(Stdio::null())
            .output()
            .expect("a process")
    };
    let whole = child(None);
    let took = start.elapsed().as_secs_f64();
    let (name, seed) = (model.name, std::env::var(SEED_VARIABLE).unwrap_or(SEED.to_string()));
    if !whole.status.success() {
        println!("pool {name}: FAILED\n{}", String::from_utf8_lossy(&whole.stderr));
        println!("again: {SEED_VARIABLE}={seed} cargo run --release -p models --bin pool {name}");
        return false;
    }
    println!(
        "pool {name}: {} schedules of seed {seed} in {took:.1} s; fails without {:?}",
        model.schedules, model.needs
    );
    let is_useless = |what: &Break| child(Some(*what)).status.code() != Some(PANIC);
    let useless: Vec<_> = model.needs.iter().filter(|what| is_useless(what)).collect();
    if !useless.is_empty() {
        println!("pool {name}: FAILED: it passes without {useless:?}");
    }
    useless.is_empty()
}
