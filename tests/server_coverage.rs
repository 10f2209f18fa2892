//! The coverage data of what a start server forks is kept, whichever way it ends.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use support::{Build, Oracle, Program, Watchdog};

use coverage::Profiles;

#[path = "support/coverage.rs"]
mod coverage;

fn measured() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let build = || Build::program("server_story", "measured").flag("-Cinstrument-coverage").build();
    BUILT.get_or_init(build)
}

#[test]
fn every_child_of_a_server_leaves_its_counts_however_it_ends_and_preload_leaves_its_own() {
    measured();
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(Duration::from_secs(180));
    for pattern in ["p-%p.profraw", "p-%p-%m.profraw"] {
        let profiles = Profiles::new();
        let mut command = profiles.command(measured(), pattern);
        let ending = Program::start(command.arg("measured")).finish();
        assert!(ending.status.success(), "{ending}");
        assert_eq!(ending.stderr, "");
        // Three that returned, one that exited, one that was stopped, one that a signal ended; and
        // four tasks of a pool.
        assert_eq!(profiles.count("measured_in_a_child"), 10, "{:?}", profiles.files());
        assert_eq!(profiles.count("measured_finalizer_in_a_child"), 6, "{:?}", profiles.files());
        // A copy made by a fork has the counts of its original.
        assert!(profiles.count("measured_in_a_server") >= 1);
        drop(profiles);
        oracle.nothing_left();
    }
}
