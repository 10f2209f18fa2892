//! What must run as a worker ends, and leaves a mark when it does.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use epilogue::embed;

use crate::{Marks, sys};

static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();

/// The name of the finalizer that [`register`] registers.
pub const NAME: &str = "hooks";

/// Registers a finalizer and a handler of the C library's `atexit`, once in a process, then leaves
/// the mark `registered`. As they run they leave `finalizer` and `atexit`.
pub fn register(marks: &Path) {
    if DIRECTORY.set(marks.to_owned()).is_ok() {
        sys::at_exit(at_exit);
        embed::finalizer(NAME, || leave("finalizer"));
        leave("registered");
    }
}

extern "C" fn at_exit() {
    leave("atexit");
}

fn leave(event: &str) {
    if let Some(directory) = DIRECTORY.get() {
        Marks::at(directory).leave(event);
    }
}

/// Asserts that in every process that registered them, both ran exactly once: how many those are.
///
/// # Panics
///
/// If one did not run, or ran twice.
#[track_caller]
pub fn all_ran_once(marks: &Marks) -> usize {
    let registered = marks.pids("registered");
    assert_eq!(marks.pids("finalizer"), registered, "finalizers against registered");
    assert_eq!(marks.pids("atexit"), registered, "atexit handlers against registered");
    registered.len()
}

/// Asserts that every process that registered them ran both exactly once, where some may have
/// been killed between having registered them and telling so: how many told so.
///
/// # Panics
///
/// If one did not run, or ran twice.
#[track_caller]
pub fn all_that_told_ran_once(marks: &Marks) -> usize {
    let registered = marks.pids("registered");
    for event in ["finalizer", "atexit"] {
        let ran = marks.pids(event);
        let missing: Vec<_> = registered.iter().filter(|pid| !ran.contains(pid)).collect();
        assert!(missing.is_empty(), "{event} did not run in {missing:?} of {registered:?}");
        let twice = ran.windows(2).find(|pair| pair[0] == pair[1]);
        assert!(twice.is_none(), "{event} ran twice in {twice:?}");
    }
    registered.len()
}
