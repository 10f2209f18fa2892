//! Marks: proof that something ran, left as files by processes that may die at any moment.

use std::env;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process;

use nix::unistd::Pid;

const VARIABLE: &str = "EPILOGUE_TEST_MARKS";

/// A directory with one file an event, named `event.pid.number`.
///
/// A file is created whole or not at all, and never twice, so marks need no lock and count exactly:
/// an event that happens twice in one process leaves two.
#[derive(Debug)]
pub struct Marks {
    directory: PathBuf,
    /// Removes the directory in the process that made it.
    _owned: Option<tempfile::TempDir>,
}

impl Marks {
    /// Makes an empty directory, removed on drop.
    pub fn new() -> Self {
        let owned = tempfile::tempdir().unwrap();
        Self { directory: owned.path().to_owned(), _owned: Some(owned) }
    }

    /// The directory that the test has passed by [`variable`](Self::variable).
    pub fn from_env() -> Self {
        let directory = env::var_os(VARIABLE).expect("no directory for marks in the environment");
        Self::at(Path::new(&directory))
    }

    /// The marks in `directory`.
    pub fn at(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), _owned: None }
    }

    /// The environment variable that takes these marks to a program: `command.env(name, value)`.
    pub fn variable(&self) -> (&'static str, &Path) {
        (VARIABLE, &self.directory)
    }

    /// Where they are, for a task that leaves some by [`at`](Self::at).
    pub fn path(&self) -> PathBuf {
        self.directory.clone()
    }

    /// Leaves a mark of this process.
    pub fn leave(&self, event: &str) {
        assert!(!event.contains('/'), "an event is a file name");
        for number in 0.. {
            let name = format!("{event}.{}.{number}", process::id());
            match File::create_new(self.directory.join(name)) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                result => return drop(result.unwrap()),
            }
        }
    }

    /// Who left `event`: one pid for each time, in order of the pids.
    pub fn pids(&self, event: &str) -> Vec<Pid> {
        let files = fs::read_dir(&self.directory).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        let mut pids: Vec<Pid> = names.filter_map(|name| parse(&name, event)).collect();
        pids.sort();
        pids
    }

    /// How often `event` happened.
    pub fn count(&self, event: &str) -> usize {
        self.pids(event).len()
    }
}

impl Default for Marks {
    fn default() -> Self {
        Self::new()
    }
}

fn parse(name: &str, event: &str) -> Option<Pid> {
    let (pid, _number) = name.strip_prefix(event)?.strip_prefix('.')?.split_once('.')?;
    pid.parse().ok().map(Pid::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_that_happens_twice_is_counted_twice() {
        let marks = Marks::new();
        marks.leave("finalizer");
        marks.leave("finalizer");
        assert_eq!(marks.pids("finalizer"), [Pid::this(), Pid::this()]);
    }

    #[test]
    fn an_event_is_not_taken_for_one_whose_name_it_begins() {
        assert_eq!(parse("exit.12.0", "exit"), Some(Pid::from_raw(12)));
        assert_eq!(parse("exited.12.0", "exit"), None);
        assert_eq!(parse("exit.late.12.0", "exit"), None);
    }
}
