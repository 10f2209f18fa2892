//! Counts the words of every text below a directory, and prints each file as its worker is done:
//!
//! ```text
//! cargo run --release --example as_they_come -- [PATH]
//! ```
//!
//! Paths are found while others are read: the walk is the input of a lazy map, which takes from it
//! only what the workers get to. So it could go on for ever; and the first lines come at once. What
//! is no text, or cannot be read, is told on standard error and holds up nobody.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "printing is what it is for")]

use std::env;
use std::error::Error;
use std::fs;
use std::path::PathBuf;

use epilogue::{Pool, as_completed};
use walkdir::WalkDir;

fn main() -> Result<(), Box<dyn Error>> {
    let root = env::args_os().nth(1).map_or_else(|| PathBuf::from("."), PathBuf::from);
    let pool = Pool::builder().name("words").start()?;

    let entries = WalkDir::new(&root).into_iter().filter_map(Result::ok);
    let files = entries.filter(|entry| entry.file_type().is_file());
    // One whose name is not Unicode would be told by its outcome: a `PathBuf` travels as text.
    let paths = files.map(|entry| entry.into_path());
    let (mut sum, mut longest) = (0, Vec::new());
    for outcome in pool.imap_unordered(paths, count).ahead(256) {
        match outcome {
            Ok(Ok((path, words))) => {
                println!("{words:8} {}", path.display());
                sum += words;
                longest.push((words, path));
            }
            Ok(Err(why)) => eprintln!("as_they_come: {why}"),
            Err(error) => eprintln!("as_they_come: {error}"),
        }
    }
    println!("{sum:8} in {} texts", longest.len());

    // A few tasks with a handle each, in the order in which they are done.
    longest.sort();
    let longest: Vec<_> = longest.into_iter().rev().take(3).map(|(_, path)| path).collect();
    let tasks = pool.submit_all(longest.clone(), longest_word)?;
    for (position, word) in as_completed(tasks) {
        println!("the longest word of {} has {} letters", longest[position].display(), word?);
    }
    println!("{}", pool.close()?);
    Ok(())
}

fn count(path: PathBuf) -> Result<(PathBuf, usize), String> {
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok((path, text.split_whitespace().count()))
}

fn longest_word(path: PathBuf) -> usize {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split(|letter: char| !letter.is_alphabetic()).map(str::len).max().unwrap_or_default()
}
