//! Caps on a job that is not trusted: memory, CPU time, descriptors, files, and the time it takes.
//!
//! ```text
//! cargo run --release --example limits -- [FILE]
//! ```
//!
//! The job decompresses FILE with `gzip -dc`, or, without one, runs four jobs that misbehave each
//! in its own way. Neither a job nor what it started outlives its time.
#![expect(clippy::print_stdout, reason = "printing is what an example is for")]

use std::env;
use std::error::Error;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Duration;

use epilogue::process::Builder;
use epilogue::{Process, Stdio};

const PATIENCE: Duration = Duration::from_secs(3);

fn capped(name: &str) -> Builder {
    let caps = Process::builder().limit_memory(512 << 20).limit_cpu(1).limit_descriptors(64);
    caps.limit_file_size(0).limit_core(0).nice(10).end_tree().name(name).stderr(Stdio::Null)
}

fn run(name: &str, job: fn(Option<PathBuf>) -> usize) -> Result<(), Box<dyn Error>> {
    let file = env::args_os().nth(1).map(PathBuf::from);
    let mut process = capped(name).start(file, job)?;
    match process.join_timeout(PATIENCE) {
        Ok(Some(bytes)) => println!("{name}: {bytes} bytes"),
        Err(error) => println!("{name}: {error}"),
        Ok(None) => {
            let end = process.terminate()?;
            let below = end.tree.map_or(0, |tree| tree.left);
            println!("{name}: out of time, {}, with {below} that it had started", end.rung);
        }
    }
    Ok(())
}

fn decompress(file: Option<PathBuf>) -> usize {
    let output = Command::new("gzip").arg("-dc").args(file).output();
    output.map_or(0, |output| output.stdout.len())
}

fn main() -> Result<(), Box<dyn Error>> {
    if env::args_os().nth(1).is_some() {
        return run("decompress", decompress);
    }
    run("modest", |_| 1 << 20)?;
    run("greedy", |_| vec![1u8; 1 << 30].len())?;
    run("busy", |_| {
        loop {
            std::hint::spin_loop();
        }
    })?;
    run("idle", |_| {
        let _child = Command::new("sleep").arg("1000").spawn();
        thread::sleep(Duration::from_secs(1000));
        0
    })
}
