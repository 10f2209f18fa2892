//! One crash-prone call, in a process of its own: whatever becomes of it, this program lives on.
//!
//! ```text
//! cargo run --example one_apart -- [FILE]...
//! ```
//!
//! The call counts the words of a file (by default of this one) with a parser that trusts its
//! input too far: an empty file makes it panic, one that holds a NUL makes it abort, as a bug in
//! a C library would. Every file has its answer, or the reason why it has none.
#![expect(clippy::print_stdout, reason = "printing is what an example is for")]

use std::env;
use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::process;

use epilogue::{JoinError, Process, Stdio};

/// Counts words, and trusts its input.
fn count_words(path: PathBuf) -> usize {
    let bytes = fs::read(&path).unwrap_or_default();
    assert!(!bytes.is_empty(), "there is nothing in {}", path.display());
    if bytes.contains(&0) {
        process::abort();
    }
    bytes.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).count()
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut files: Vec<PathBuf> = env::args_os().skip(1).map(PathBuf::from).collect();
    if files.is_empty() {
        files = vec![file!().into(), "/dev/null".into(), env::current_exe()?];
    }
    for file in files {
        let builder = Process::builder().name("count words").limit_core(0).stderr(Stdio::Capture);
        let output = builder.start(file.clone(), count_words)?.join_output();
        print!("{}: ", file.display());
        match output.result {
            Ok(words) => println!("{words} words"),
            Err(JoinError::Panicked(panic)) => println!("no count, {}", panic.message),
            Err(error) => println!("no count: {error}"),
        }
    }
    println!("and this program, process {}, has ended well", process::id());
    Ok(())
}
