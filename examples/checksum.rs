//! Hashes every file of a directory tree in worker processes:
//!
//! ```text
//! cargo run --release --example checksum -- [--workers N] [--crash-on NAME] [PATH]
//! ```
//!
//! The BLAKE3 digests of all regular files below PATH (by default the current directory) go to
//! standard output in the order of their paths, ready for `b3sum --check`. All else goes to
//! standard error: progress, the files that have no digest and why, a summary, and the pool's
//! closing report. Links, pipes, sockets and devices are passed over.
//!
//! With `--crash-on NAME`, the worker that meets the first file of that name aborts, as a bug in a
//! C library would make it. That one file is lost, and every other digest is right.
//!
//! The exit status is 0 if every file has its digest, 1 if one has not, 2 for a usage error.
#![expect(clippy::print_stderr, reason = "standard error is where a program reports")]

use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::{self, ExitCode};
use std::thread;
use std::time::Instant;

use epilogue::Pool;
use indicatif::{HumanBytes, ProgressBar};
use walkdir::WalkDir;

struct Options {
    workers: NonZero<usize>,
    crash_on: Option<PathBuf>,
    root: Option<PathBuf>,
}

fn main() -> ExitCode {
    let options = match parse(env::args_os().skip(1)) {
        Ok(options) => options,
        Err(complaint) => {
            let usage = "usage: checksum [--workers N] [--crash-on NAME] [PATH]";
            eprintln!("checksum: {complaint}\n{usage}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("checksum: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Prints every digest, and returns how many could not be had.
fn run(options: &Options) -> Result<usize, Box<dyn Error>> {
    let start = Instant::now();
    let (files, mut failures) = find_files(options.root.as_deref().unwrap_or(Path::new(".")));
    let find = |name| files.iter().position(|file| file.ends_with(name));
    let crash = options.crash_on.as_ref().map(|name| find(name).ok_or("no file of that name"));
    let crash = crash.transpose()?;

    let pool = Pool::builder().workers(options.workers.get()).name("checksum").start()?;
    let mut tasks = Vec::with_capacity(files.len());
    for (index, file) in files.iter().enumerate() {
        // As an `OsString`, since a `PathBuf` travels only if it is UTF-8.
        let job = (file.clone().into_os_string(), crash == Some(index));
        tasks.push(pool.submit(job, hash)?);
    }

    let (mut stdout, mut bytes) = (io::stdout().lock(), 0);
    let bar = ProgressBar::new(files.len() as u64);
    for (file, task) in files.iter().zip(tasks) {
        let answer = task.join().map_err(|lost| lost.to_string()).flatten();
        let line = answer.and_then(|(digest, length)| {
            bytes += length;
            check_line(file, &digest)
        });
        bar.suspend(|| match line {
            Ok(line) => writeln!(stdout, "{line}"),
            Err(why) => {
                failures += 1;
                eprintln!("checksum: {}: {why}", file.display());
                Ok(())
            }
        })
        // Nobody reads the digests any more: do not compute the rest.
        .inspect_err(|_| drop(pool.terminate()))?;
        advance(&bar);
    }
    bar.finish_and_clear();

    let (count, size, time) = (files.len(), HumanBytes(bytes), start.elapsed());
    eprintln!("checksum: {count} files, {size}, {failures} without a digest, in {time:.2?}");
    eprintln!("{}", pool.close()?);
    Ok(failures)
}

/// Runs in a worker. An `io::Error` cannot travel, but what it says can.
fn hash((path, crash): (OsString, bool)) -> Result<(String, u64), String> {
    if crash {
        process::abort();
    }
    let mut hasher = blake3::Hasher::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    hasher.update_reader(file).map_err(|error| error.to_string())?;
    Ok((hasher.finalize().to_string(), hasher.count()))
}

/// All regular files below `root`, in a stable order, and how many places could not be read.
fn find_files(root: &Path) -> (Vec<PathBuf>, usize) {
    let (mut files, mut failures) = (Vec::new(), 0);
    for entry in WalkDir::new(root).sort_by_file_name() {
        match entry {
            Ok(entry) if entry.file_type().is_file() => files.push(entry.into_path()),
            Ok(_) => {}
            Err(error) => {
                failures += 1;
                eprintln!("checksum: {error}");
            }
        }
    }
    (files, failures)
}

/// The line that `b3sum` prints for `file`. A backslash at its start says that the name is escaped.
fn check_line(file: &Path, digest: &str) -> Result<String, String> {
    let name = file.to_str().filter(|name| !name.contains('\u{fffd}'));
    let name = name.ok_or("the name is not Unicode, and b3sum could not check it")?;
    let escaped = name.replace('\\', r"\\").replace('\n', r"\n").replace('\r', r"\r");
    let mark = if escaped == name { "" } else { "\\" };
    Ok(format!("{mark}{digest}  {escaped}"))
}

/// Moves the bar of a terminal. A pipe gets a line for each quarter of the way instead.
fn advance(bar: &ProgressBar) {
    bar.inc(1);
    let (done, all) = (bar.position(), bar.length().unwrap_or_default());
    if bar.is_hidden() && done * 4 / all > (done - 1) * 4 / all {
        eprintln!("checksum: {done} of {all} files");
    }
}

fn parse(mut words: impl Iterator<Item = OsString>) -> Result<Options, String> {
    let workers = thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN);
    let mut options = Options { workers, crash_on: None, root: None };
    while let Some(word) = words.next() {
        match word.to_str() {
            Some("--workers") => {
                let number = words.next().and_then(|number| number.to_str()?.parse().ok());
                options.workers = number.ok_or("--workers takes a number from 1 on")?;
            }
            Some("--crash-on") => {
                options.crash_on = Some(words.next().ok_or("--crash-on takes a name")?.into());
            }
            Some(option) if option.starts_with('-') => Err(format!("unknown option {option}"))?,
            _ if options.root.is_some() => Err("more than one PATH")?,
            _ => options.root = Some(word.into()),
        }
    }
    Ok(options)
}
