//! The ring of `process`, its own source, over loom's atomics: every order of events with so many
//! preemptions, and every value that the memory model lets a load return.
//!
//! ```sh
//! cargo run --release -p models --bin ring [MODEL [WHAT IS TAKEN OUT]]
//! ```
//!
//! Each model runs as it is, and must pass; and once for each thing that is taken out of the
//! protocol, without which it must fail. Each run is a process, for loom does not outlive a failure.

mod handover;
mod loss;
mod script;
mod sleep;
mod sys;

#[path = "../../../../process/src/ring/mod.rs"]
#[expect(dead_code, unused_imports, reason = "not all of it is modelled")]
mod ring;

/// What the ring uses of the wire.
mod wire {
    #[derive(Debug)]
    pub(crate) enum WireError {
        Garbage,
    }
}

use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use sys::atomic::{Break, take_out};

/// Two threads, some calls, and what must be true.
struct Model {
    name: &'static str,
    /// How many times it is run, each for another number that it is given.
    variants: u32,
    run: fn(u32),
    /// What must not be taken out.
    needs: &'static [Break],
}

const MODELS: [&[Model]; 3] = [&handover::MODELS, &sleep::MODELS, &loss::MODELS];

/// How many times a thread may be stopped where it could have gone on.
const PREEMPTIONS: usize = 3;

/// What Rust exits with if `main` panics.
const PANIC: i32 = 101;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let models = || MODELS.into_iter().flatten();
    match &args[..] {
        [] => {
            let failed = models().filter(|model| !stands(model)).count();
            println!("ring: {} models passed, {failed} failed", models().count() - failed);
            ExitCode::from(u8::from(failed > 0))
        }
        [name, rest @ ..] => {
            let model = models().find(|model| model.name == name).expect("no such model");
            for what in rest {
                let found = Break::ALL.into_iter().find(|one| format!("{one:?}") == *what);
                take_out(found.expect("nothing of that name can be taken out"));
            }
            check(model);
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
        command.stdin(Stdio::null()).output().expect("a process")
    };
    let whole = child(None);
    let took = start.elapsed();
    if !whole.status.success() {
        println!("ring {}: FAILED\n{}", model.name, String::from_utf8_lossy(&whole.stderr));
        return false;
    }
    let useless: Vec<Break> = model
        .needs
        .iter()
        .copied()
        .filter(|&what| child(Some(what)).status.code() != Some(PANIC))
        .collect();
    let orders = String::from_utf8_lossy(&whole.stdout);
    let orders = orders.trim();
    println!(
        "ring {}: {orders} in {:.1} s; fails without {:?}",
        model.name,
        took.as_secs_f64(),
        model.needs
    );
    if !useless.is_empty() {
        println!("ring {}: FAILED: it passes without {useless:?}", model.name);
    }
    useless.is_empty()
}

fn check(model: &Model) {
    let orders = Arc::new(AtomicU64::new(0));
    for variant in 0..model.variants {
        let mut builder = loom::model::Builder::new();
        // More, with LOOM_MAX_PREEMPTIONS, takes minutes.
        builder.preemption_bound = builder.preemption_bound.or(Some(PREEMPTIONS));
        builder.max_branches = 10_000;
        let (orders, run) = (Arc::clone(&orders), model.run);
        builder.check(move || {
            orders.fetch_add(1, Ordering::Relaxed);
            run(variant);
        });
    }
    println!("{} orders", orders.load(Ordering::Relaxed));
}
