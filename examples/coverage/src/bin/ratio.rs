//! How much longer the mill takes with embed, in a build without coverage: `ratio ALONE EMBEDDED`.
//!
//! Both are run in turn, and the median of the ratios of their CPU times is taken: what else happens
//! on the machine hits both alike. It fails if that is above 1.01, or if there is a file.
#![expect(clippy::print_stdout, reason = "it prints a result")]

use std::error::Error;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;
use std::{env, fs};

use nix::sys::resource::{UsageWho, getrusage};

const ROUNDS: usize = 101;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [alone, embedded] = &*arguments else { return Err("ratio ALONE EMBEDDED".into()) };
    let directory = tempfile::tempdir()?;
    let mut ratios = Vec::new();
    let mut best = [Duration::MAX; 2];
    for round in 0..ROUNDS {
        // Each is the first as often as the other.
        let mut times = [Duration::ZERO; 2];
        for place in [round % 2, 1 - round % 2] {
            times[place] = time([alone, embedded][place], directory.path())?;
            best[place] = best[place].min(times[place]);
        }
        ratios.push(times[1].as_secs_f64() / times[0].as_secs_f64());
    }
    ratios.sort_by(f64::total_cmp);
    let ratio = ratios[ROUNDS / 2];
    let files = fs::read_dir(&directory)?.count();
    println!("without embed {:?}, with embed {:?} at best", best[0], best[1]);
    println!("median of {ROUNDS} ratios: {ratio:.4}");
    println!("files written: {files}");
    Ok(if ratio <= 1.01 && files == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The CPU time of one run in `directory`, where its coverage data would go.
fn time(program: &str, directory: &Path) -> Result<Duration, Box<dyn Error>> {
    let before = children()?;
    let mut command = Command::new(program);
    command.current_dir(directory).env("LLVM_PROFILE_FILE", directory.join("p-%p.profraw"));
    if !command.status()?.success() {
        return Err(format!("{program} failed").into());
    }
    Ok(children()? - before)
}

/// The CPU time of all children so far.
fn children() -> Result<Duration, Box<dyn Error>> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let [user, system] = [usage.user_time(), usage.system_time()]
        .map(|time| Duration::new(time.tv_sec() as u64, time.tv_usec() as u32 * 1000));
    Ok(user + system)
}
