//! The coverage data of a process in a sandbox is written where the sandbox allows it.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use support::{Build, Marks, Oracle, Program, Watchdog, landlock_is_whole};

use coverage::Profiles;

#[path = "support/coverage.rs"]
mod coverage;

fn measured() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let build =
        || Build::program("sandbox_story", "sandboxed").flag("-Cinstrument-coverage").build();
    BUILT.get_or_init(build)
}

#[test]
fn coverage_data_is_written_from_within_a_sandbox_that_allows_its_directory() {
    if !landlock_is_whole() {
        return;
    }
    measured();
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(Duration::from_secs(180));
    for pattern in ["p-%p.profraw", "p-%p-%m.profraw"] {
        let (profiles, marks) = (Profiles::new(), Marks::new());
        let (name, directory) = marks.variable();
        let mut command = profiles.command(measured(), pattern);
        command.arg("measured").env("PROFILES", profiles.path()).env(name, directory);
        let ending = Program::start(&mut command).finish();
        assert!(ending.status.success(), "{ending}");
        assert_eq!(ending.stderr, "");
        // One that returned, one that was stopped, one that a signal ended; by both methods.
        assert_eq!(profiles.count("measured_in_a_sandbox"), 6, "{:?}", profiles.files());
        assert_eq!(profiles.count("measured_finalizer_in_a_sandbox"), 6, "{:?}", profiles.files());
        drop((profiles, marks));
        oracle.nothing_left();
    }
}
