//! Programs built with flags of their own: fat LTO, static, instrumented.
//!
//! All are built below the workspace's target directory, one after the other, and never into the
//! place of a program that runs: the result is moved to a path of its own.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{self, Command};

use crate::oracle::turn;

/// A program of this package, to be built for a test.
#[derive(Debug)]
pub struct Build {
    program: String,
    variant: String,
    flags: String,
    arguments: Vec<String>,
    profile: &'static str,
    package: String,
    target: &'static str,
}

impl Build {
    /// The program `program` of `tests/programs`, in the dev profile. `variant` names the result.
    pub fn program(program: &str, variant: &str) -> Self {
        Self {
            program: program.to_owned(),
            variant: variant.to_owned(),
            flags: String::new(),
            arguments: Vec::new(),
            profile: "dev",
            package: "epilogue-tests".to_owned(),
            target: "--bin",
        }
    }

    /// The program is one of the fixture package `package`.
    pub fn package(mut self, package: &str) -> Self {
        self.package = package.to_owned();
        self
    }

    /// It is an example of its package.
    pub fn example(mut self) -> Self {
        self.target = "--example";
        self
    }

    /// It is no program but a file of the package's library, such as `liba.so`.
    pub fn library(mut self) -> Self {
        self.target = "--lib";
        self
    }

    /// Turns on a feature of the package.
    pub fn feature(self, feature: &str) -> Self {
        self.argument("--features").argument(feature)
    }

    fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Builds in the release profile.
    pub fn release(mut self) -> Self {
        self.profile = "release";
        self
    }

    /// Adds to `RUSTFLAGS`, for the program and the crates that it links, not for build scripts.
    pub fn flag(mut self, flag: &str) -> Self {
        self.flags = format!("{} {flag}", self.flags);
        self
    }

    /// Sets a key of Cargo's configuration, such as `profile.release.lto="fat"`.
    pub fn config(self, key_and_value: &str) -> Self {
        self.argument("--config").argument(key_and_value)
    }

    /// Builds the program and returns its path.
    ///
    /// # Panics
    ///
    /// If it cannot be built. The message holds what the compiler said.
    #[track_caller]
    pub fn build(&self) -> PathBuf {
        let _turn = turn();
        let (target, host) = (target_directory().join("tmp/build"), host());
        let _alone = alone(&target);
        let mut cargo = cargo();
        cargo.args(["build", "--package", &self.package, self.target]);
        if self.target != "--lib" {
            cargo.arg(&self.program);
        }
        // With a target named, RUSTFLAGS spare what runs on the host: no procedural macro can be
        // built with +crt-static.
        cargo.args(["--target", &host, "--profile", self.profile]).args(&self.arguments);
        cargo.arg("--target-dir").arg(&target);
        cargo.env_remove("CARGO_ENCODED_RUSTFLAGS").env("RUSTFLAGS", &self.flags);
        // Other flags each time: what is kept for an edit is kept in vain, in gigabytes.
        cargo.env("CARGO_INCREMENTAL", "0");
        run(&mut cargo);
        let profile = if self.profile == "dev" { "debug" } else { self.profile };
        let folder = if self.target == "--example" { "examples" } else { "" };
        let built = target.join(host).join(profile).join(folder).join(&self.program);
        let directory = target.join("built").join(&self.variant);
        fs::create_dir_all(&directory).unwrap();
        let (fresh, kept) = (
            directory.join(format!("{}.{}", self.program, process::id())),
            directory.join(&self.program),
        );
        fs::copy(&built, &fresh).unwrap_or_else(|error| panic!("{}: {error}", built.display()));
        fs::rename(&fresh, &kept).unwrap();
        kept
    }
}

/// Waits until no other process builds a program in `target`, and bars them while the result lives.
///
/// Cargo's own lock ends with the build: the next one may put a program of other flags in the place of this
/// one before it is copied from there.
fn alone(target: &Path) -> File {
    fs::create_dir_all(target).unwrap();
    let file = File::create(target.join("alone")).unwrap();
    file.lock().unwrap();
    file
}

/// `cargo test` of the fixture package `package`, as its author would run it.
pub fn cargo_test(package: &str) -> Command {
    let (mut cargo, _turn) = (cargo(), turn());
    cargo.args(["test", "--package", package, "--target", &host()]);
    cargo.arg("--target-dir").arg(target_directory().join("tmp/build"));
    cargo.env_remove("CARGO_ENCODED_RUSTFLAGS").env("RUSTFLAGS", "").env("CARGO_INCREMENTAL", "0");
    cargo
}

/// The example `name` of the facade, in the dev profile: built as `cargo test` has built it, so
/// as a rule there is nothing left to do.
#[track_caller]
pub fn example(name: &str) -> PathBuf {
    let _turn = turn();
    let target = target_directory();
    let mut cargo = cargo();
    cargo.args(["build", "--workspace", "--example", name]).arg("--target-dir").arg(&target);
    run(&mut cargo);
    target.join("debug/examples").join(name)
}

/// The target directory that this test was built into.
pub fn target_directory() -> PathBuf {
    let program = env::current_exe().unwrap();
    let mut above = program.ancestors();
    above.find(|path| path.join("CACHEDIR.TAG").exists()).expect("not below a target").to_owned()
}

fn cargo() -> Command {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // Locked: a build for a test resolves nothing anew, so it needs no network either.
    cargo.current_dir(workspace).args(["--locked", "--quiet"]);
    cargo
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{said}", output.status);
}

fn host() -> String {
    let output = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .arg("-vV")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().find_map(|line| line.strip_prefix("host: ")).unwrap().to_owned()
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_build_waits_for_that_of_another_process() {
        let other = alone(&target_directory().join("tmp/build"));
        let build = thread::spawn(|| Build::program("embed_story", "awaited").build());
        let waiter = format!(" -> FLOCK ADVISORY WRITE {} ", process::id());
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ") + " ";
        while !fs::read_to_string("/proc/locks")
            .unwrap()
            .lines()
            .any(|line| words(line).contains(&waiter))
        {
            assert!(!build.is_finished(), "it has not waited");
            thread::yield_now();
        }
        drop(other);
        assert!(build.join().unwrap().exists());
    }
}
