//! The ledger: which tasks began, and where, written by processes that may die at any moment.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A file to which every task appends its number and its process as it begins: whole or not at all.
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
        let entry = [task, std::process::id().into()].map(u64::to_le_bytes);
        file.write_all(entry.as_flattened()).unwrap();
    }

    /// In which processes each of so many tasks began.
    pub(super) fn beginnings(&self, tasks: usize) -> Vec<Vec<u32>> {
        let mut began = vec![Vec::new(); tasks];
        let bytes = fs::read(self.path()).unwrap_or_default();
        let (numbers, rest) = bytes.as_chunks::<8>();
        let (entries, half) = numbers.as_chunks::<2>();
        assert!(rest.is_empty() && half.is_empty(), "a torn entry in the ledger");
        for [task, pid] in entries.iter().map(|entry| entry.map(u64::from_le_bytes)) {
            began[task as usize].push(pid as u32);
        }
        began
    }
}
