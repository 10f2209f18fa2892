//! What really ran: a line of a file for each line of code, written before the code goes on.
//!
//! It is the truth that a coverage report is held against, so it survives what a process may die
//! of, `SIGKILL` included: a line is one `write` to a file that is opened for appending.

use std::fmt::Display;
use std::fs::OpenOptions;
use std::io::Write;
use std::{env, process};

/// Where the ledger is. Without it nothing is written.
pub const VARIABLE: &str = "TEXTMILL_LEDGER";

/// Notes that this line of code runs, then evaluates what it is given.
#[macro_export]
macro_rules! ran {
    ($value:expr) => {{
        $crate::ledger::note(line!());
        $value
    }};
}

/// Notes for this process that `what` ran.
///
/// # Panics
///
/// If the ledger cannot be written: a truth with gaps is none.
pub fn note(what: impl Display) {
    let Some(path) = env::var_os(VARIABLE) else { return };
    let record = format!("{} {what}\n", process::id());
    let file = OpenOptions::new().append(true).create(true).open(&path);
    let written = file.and_then(|mut file| file.write_all(record.as_bytes()));
    assert!(written.is_ok(), "{}: {written:?}", path.display());
}

/// Notes that this process is about to be copied: the copy begins with its counts.
pub fn note_fork() {
    note("forks");
}

/// Notes that this process is a copy of `parent`.
pub fn note_copy(parent: u32) {
    note(format_args!("copy {parent}"));
}
