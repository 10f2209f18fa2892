//! Searches files with a matcher that some lines drive out of bounds: each file has its time.
//!
//! ```text
//! cargo run --release --example timeouts -- *.md src /bin/ls
//! ```
//!
//! The matcher tries every way to split a line among the stars of its pattern, as those do that bring
//! servers to a stop (<https://owasp.org/www-community/attacks/ReDoS>). Between two lines it asks
//! whether it should stop, so at the soft limit a file is given back as far as it has been searched. In the
//! middle of a line it asks nobody: at the hard limit its worker is ended, and another one takes over.
#![expect(clippy::print_stdout, reason = "printing is what an example is for")]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use epilogue::{Pool, TaskError, task};
use walkdir::WalkDir;

/// Ten of one letter, then what no line has: each line is searched in vain, to the end.
const PATTERN: &[u8] = b"*e*e*e*e*e*e*e*e*e*e**\x01";
const SOFT: Duration = Duration::from_millis(200);
const HARD: Duration = Duration::from_millis(600);

/// How many lines a file has, and how many of them were searched.
fn search(path: PathBuf) -> std::io::Result<(usize, usize)> {
    let text = std::fs::read(path)?;
    let lines: Vec<_> = text.split(|&byte| byte == b'\n').collect();
    let mut searched = 0;
    while searched < lines.len() && !task::should_stop() {
        std::hint::black_box(matches(PATTERN, lines[searched]));
        searched += 1;
    }
    Ok((lines.len(), searched))
}

fn matches(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => (0..=text.len()).any(|skip| matches(rest, &text[skip..])),
        Some((byte, rest)) => text.first() == Some(byte) && matches(rest, &text[1..]),
    }
}

fn files(arguments: impl Iterator<Item = String>) -> Result<Vec<PathBuf>, walkdir::Error> {
    let walks = arguments.flat_map(WalkDir::new);
    let files = walks.filter(|entry| entry.as_ref().map_or(true, |one| one.file_type().is_file()));
    files.map(|entry| entry.map(|entry| entry.into_path())).collect()
}

fn show(path: &Path, outcome: &Result<(usize, usize), TaskError>) {
    let path = path.display();
    match outcome {
        Ok((lines, searched)) if lines == searched => println!("{path}: {lines} lines"),
        Ok((lines, searched)) => {
            println!("{path}: {searched} of {lines} lines, then it was asked to stop")
        }
        Err(error) => println!("{path}: {error}"),
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let files = files(std::env::args().skip(1))?;
    let pool = Pool::builder().name("search").soft_timeout(SOFT).task_timeout(HARD).start()?;
    let outcomes = pool.map_outcomes(files.clone(), |path| search(path).unwrap_or_default())?;
    for (path, outcome) in files.iter().zip(&outcomes) {
        show(path, outcome);
    }
    let report = pool.close()?;
    println!("\n{report}");
    Ok(())
}
