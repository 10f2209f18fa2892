//! Watches a pool at work: what it tells as it happens, and how it did.
//!
//! ```text
//! cargo run --release --features progress --example observe -- [DIRECTORY]
//! ```
//!
//! Counts the words of all files below a directory, one of which is more than a task can take. What
//! goes wrong is told on standard error at once, and in the end which file took longest.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "printing is what an example is for"
)]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::{env, fs};

use epilogue::{Event, Outcome, Pool};
use indicatif::ProgressBar;
use walkdir::WalkDir;

fn words(path: PathBuf) -> usize {
    if path == Path::new("/dev/zero") {
        std::process::abort();
    }
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).split_whitespace().count()
}

fn main() -> Result<(), Box<dyn Error>> {
    let root = env::args().nth(1).unwrap_or_else(|| ".".into());
    let files =
        WalkDir::new(root).into_iter().flatten().filter(|entry| entry.file_type().is_file());
    let files: Vec<_> = files.map(|entry| entry.into_path()).chain(["/dev/zero".into()]).collect();

    let (told, times) = channel();
    let pool = Pool::builder().name("words").on_event(move |event| match event {
        // Done, and in which time: the mean, where several small files went together.
        Event::Ended { tasks, outcome: Outcome::Done, ran, .. } => {
            let _ = told.send((*ran, tasks.first));
        }
        Event::Ended { .. } | Event::WorkerDown { .. } | Event::Broken { .. } => {
            eprintln!("{event}")
        }
        _ => {}
    });
    let (pool, bar) = (pool.start()?, ProgressBar::no_length());
    let outcomes = pool.progress(&bar).map_outcomes(files.iter().cloned(), words)?;
    bar.finish_and_clear();
    let (count, all) =
        (outcomes.iter().flatten().sum::<usize>(), outcomes.iter().flatten().count());
    println!("{count} words in {all} of {} files", files.len());
    println!("{}", pool.stats());

    // All has been told when this returns.
    let report = pool.close()?;
    drop(pool);
    if let Some((Some(ran), index)) = times.iter().max() {
        println!("longest: {} in {ran:.1?}", files[index].display());
    }
    println!("{} workers ended, {} of them not by themselves", report.workers.len(), report.failed);
    Ok(())
}
