//! The ledger: which tasks began, written by processes that may die at any moment.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A file to which every task appends its number as it begins: whole or not at all.
#[derive(Debug)]
pub(super) struct Ledger(TempDir);

impl Ledger {
    pub(super) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(super) fn path(&self) -> PathBuf {
        self.0.path().join("ledger")
    }

    /// Notes, in a worker, that this task begins.
    pub(super) fn begin(path: &Path, task: u64) {
        let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
        file.write_all(&task.to_le_bytes()).unwrap();
    }

    /// How often each of so many tasks began.
    pub(super) fn beginnings(&self, tasks: usize) -> Vec<u64> {
        let mut count = vec![0; tasks];
        let bytes = fs::read(self.path()).unwrap_or_default();
        let (numbers, rest) = bytes.as_chunks::<8>();
        assert!(rest.is_empty(), "a torn entry in the ledger");
        numbers.iter().for_each(|number| count[u64::from_le_bytes(*number) as usize] += 1);
        count
    }
}
