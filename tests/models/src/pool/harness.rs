//! Runs models: each as it is, and must pass; and once for each thing that is taken out, without which it
//! must fail: who waits for ever is a deadlock. Each run is a process.

use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, Runner};

use crate::taken_out::{Break, take_out};

/// The variable in which shuttle itself looks for another seed than it is given.
const SEED_VARIABLE: &str = "SHUTTLE_RANDOM_SEED";
/// The seed of a run that names none: one that fails fails again.
const SEED: u64 = 0x5EED_0008;

/// What Rust exits with if `main` panics.
const PANIC: i32 = 101;

pub(crate) struct Model {
    pub(crate) name: &'static str,
    pub(crate) run: fn(),
    pub(crate) schedules: usize,
    /// What must not be taken out.
    pub(crate) needs: &'static [Break],
}

/// Runs all models of this program, or the one that its arguments name.
pub(crate) fn run(program: &str, models: &[Model]) -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match &args[..] {
        [] => {
            let failed = models.iter().filter(|model| !stands(program, model)).count();
            println!("{program}: {} models passed, {failed} failed", models.len() - failed);
            ExitCode::from(u8::from(failed > 0))
        }
        [name, rest @ ..] => {
            let model = models.iter().find(|model| model.name == name).expect("no such model");
            for what in rest {
                let found = Break::ALL.into_iter().find(|one| format!("{one:?}") == *what);
                take_out(found.expect("nothing of that name can be taken out"));
            }
            // Half of them switch at any step, the others at few steps that are chosen well.
            let random = RandomScheduler::new_from_seed(SEED, model.schedules / 2);
            Runner::new(random, config()).run(model.run);
            let chosen = PctScheduler::new_from_seed(SEED, 3, model.schedules / 2);
            Runner::new(chosen, config()).run(model.run);
            ExitCode::SUCCESS
        }
    }
}

/// Whether a model passes, and fails without each thing that it needs.
fn stands(program: &str, model: &Model) -> bool {
    let start = Instant::now();
    let child = |without: Option<Break>| {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
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
        println!("{program} {name}: FAILED\n{}", String::from_utf8_lossy(&whole.stderr));
        println!(
            "again: {SEED_VARIABLE}={seed} cargo run --release -p models --bin {program} {name}"
        );
        return false;
    }
    println!(
        "{program} {name}: {} schedules of seed {seed} in {took:.1} s; fails without {:?}",
        model.schedules, model.needs
    );
    let is_useless = |what: &Break| child(Some(*what)).status.code() != Some(PANIC);
    let useless: Vec<_> = model.needs.iter().filter(|what| is_useless(what)).collect();
    if !useless.is_empty() {
        println!("{program} {name}: FAILED: it passes without {useless:?}");
    }
    useless.is_empty()
}

/// Its threads have as much of a stack as a pool's own code needs.
fn config() -> Config {
    let mut config = Config::new();
    config.stack_size = 1 << 18;
    config
}
