//! Coverage data as a tool would find it: what is in a directory, and how often a function ran.
//!
//! A module of the tests that use it, not of the support library: its reader is for tests alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// How a raw profile of a 64-bit little-endian program begins.
const MAGIC: [u8; 8] = [0x81, b'r', b'f', b'o', b'r', b'p', b'l', 0xff];

/// A directory that instrumented programs write their profiles to.
#[derive(Debug)]
pub struct Profiles {
    directory: TempDir,
}

impl Profiles {
    /// An empty directory, removed on drop.
    pub fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A command that runs `program` with the profile pattern `pattern` in this directory.
    pub fn command(&self, program: &Path, pattern: &str) -> Command {
        let mut command = Command::new(program);
        command.env_remove("__LLVM_PROFILE_RT_INIT_ONCE");
        command.env("LLVM_PROFILE_FILE", self.path().join(pattern));
        command.env("RUST_BACKTRACE", "0");
        command
    }

    /// Every profile that holds data, at any depth. The runtime leaves an empty one behind when
    /// its process is killed.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        walk(self.path(), &mut files);
        files.retain(|file| file.extension().is_some_and(|suffix| suffix == "profraw"));
        files.retain(|file| fs::metadata(file).unwrap().len() > 0);
        files.sort();
        files
    }

    /// What is there and is no profile: rests of a write that was cut short.
    fn litter(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        walk(self.path(), &mut files);
        files.retain(|file| file.extension().is_none_or(|suffix| suffix != "profraw"));
        files
    }

    /// How often the function `name` ran, by all profiles together.
    ///
    /// # Panics
    ///
    /// If a profile cannot be read or holds more than one, which not every tool reads, or if a rest
    /// of one is there.
    #[track_caller]
    pub fn count(&self, name: &str) -> u64 {
        let litter = self.litter();
        assert!(litter.is_empty(), "{litter:?}");
        self.files().iter().map(|file| count(file, name)).sum()
    }
}

impl Default for Profiles {
    fn default() -> Self {
        Self::new()
    }
}

/// How often the function `name` ran, by one profile.
#[track_caller]
pub fn count(file: &Path, name: &str) -> u64 {
    let bytes = fs::read(file).unwrap();
    let starts = bytes.windows(MAGIC.len()).filter(|window| *window == MAGIC).count();
    assert_eq!(starts, 1, "{} holds {starts} profiles", file.display());
    let profile =
        llvm_profparser::parse(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    // The length comes before the name in a mangled one, so no other name ends the same way.
    let mangled = format!("{}{name}", name.len());
    let matches = profile
        .records()
        .iter()
        .filter(|record| record.name.as_deref().is_some_and(|name| name.contains(&mangled)));
    matches.filter_map(|record| record.counts().first().copied()).sum()
}

fn walk(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => walk(&path, files),
            false => files.push(path),
        }
    }
}
