//! Two channels and a process: questions go down, answers come up, as both sides get to them.
//!
//! ```text
//! cargo run --example talk -- README.md CHANGELOG.md no-such-file
//! ```
//!
//! The process counts words. Its standing is its own: it remembers what it has read between two
//! questions, so a file that is asked for twice is read once.
#![expect(clippy::print_stdout, reason = "printing is what an example is for")]

use std::collections::HashMap;
use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

use epilogue::{Process, Receiver, Sender, channel};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Answer {
    path: PathBuf,
    words: Result<usize, String>,
    remembered: bool,
}

/// What the process does: it ends when nobody can ask any more.
fn count((questions, answers): (Receiver<PathBuf>, Sender<Answer>)) -> usize {
    let mut known = HashMap::new();
    for path in questions.iter().flatten() {
        let remembered = known.contains_key(&path);
        let words = known.entry(path.clone()).or_insert_with(|| {
            let text = fs::read_to_string(&path).map_err(|error| error.to_string())?;
            Ok(text.split_whitespace().count())
        });
        let answer = Answer { path, words: words.clone(), remembered };
        if answers.send(answer).is_err() {
            break; // Nobody listens.
        }
    }
    known.len()
}

fn main() -> Result<(), Box<dyn Error>> {
    let (questions, asked) = channel()?;
    let (sender, answers) = channel()?;
    let counter = Process::start((asked, sender), count)?;

    let mut paths: Vec<PathBuf> = env::args_os().skip(1).map(PathBuf::from).collect();
    if paths.is_empty() {
        paths = ["Cargo.toml", "README.md", "Cargo.toml", "no-such-file"].map(PathBuf::from).into();
    }
    for path in paths {
        questions.send(path)?;
        let Answer { path, words, remembered } = answers.recv()?;
        let note = if remembered { ", remembered" } else { "" };
        match words {
            Ok(words) => println!("{}: {words} words{note}", path.display()),
            Err(error) => println!("{}: {error}{note}", path.display()),
        }
    }
    drop(questions); // The last question: the process sees it, answers, and ends.
    println!("{} files in all", counter.join()?);
    Ok(())
}
