//! Wherever coverage data is asked to go, it gets there, and only there.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use nix::sys::signal::Signal;
use support::{Build, Ending, Oracle, Program, Watchdog};

use coverage::Profiles;

#[path = "support/coverage.rs"]
mod coverage;

const PATIENCE: Duration = Duration::from_secs(180);
const CALL: &str = "measured_call";

/// Built before the first story: a compiler's run would be seen as left behind by it.
fn measured() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let build = || Build::program("embed_story", "measured").flag("-Cinstrument-coverage").build();
    PROGRAM.get_or_init(build)
}

/// Runs the steps with `LLVM_PROFILE_FILE` as it is given, in a directory of that name, and hands
/// what they left to `judge`.
#[track_caller]
fn story(directory: &str, file: Option<&str>, steps: &[&str], judge: fn(&Profiles)) -> Ending {
    let program = measured();
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let profiles = Profiles::new();
    let directory = profiles.path().join(directory);
    fs::create_dir_all(&directory).unwrap();
    let mut command = profiles.command(program, "");
    command.current_dir(&directory).args(steps);
    match file {
        Some(file) => command.env("LLVM_PROFILE_FILE", file),
        None => command.env_remove("LLVM_PROFILE_FILE"),
    };
    let ending = Program::start(&mut command).finish();
    judge(&profiles);
    drop(profiles);
    oracle.nothing_left();
    ending
}

/// Ten calls, all of them counted, in one file.
fn ten_in_one(profiles: &Profiles) {
    assert_eq!((profiles.count(CALL), profiles.files().len()), (10, 1), "{:?}", profiles.files());
}

#[test]
fn every_pattern_keeps_every_count_however_the_process_ends() {
    let patterns = [
        "p-%p.profraw",
        "p-%m.profraw",
        "p-%4m.profraw",
        "%h/%p.profraw",
        "made/here/p-%p.profraw",
    ];
    for file in patterns.map(Some).into_iter().chain([None]) {
        for end in ["raise:15", "exit-now:0", "std-exit:0"] {
            let ending = story("here", file, &["handle:15", "calls:10", end, "park"], ten_in_one);
            assert_eq!(ending.stderr, "", "{file:?} {end}");
            assert_eq!(ending.signal().is_some(), end == "raise:15", "{ending}");
        }
    }
}

#[test]
fn a_directory_with_a_per_cent_sign_is_a_directory_like_any_other() {
    for directory in ["100%", "at 50% of it", "%p"] {
        for end in ["raise:15", "std-exit:0", "exit-now:0"] {
            let steps = ["handle:15", "chdir:/", "calls:10", "flush", end, "park"];
            let ending = story(directory, Some("p-%p.profraw"), &steps, ten_in_one);
            assert_eq!((&*ending.stdout, &*ending.stderr), ("", ""), "{directory} {end}");
        }
    }
}

#[test]
fn a_per_cent_sign_in_the_name_means_nothing_and_copies_still_have_their_own_files() {
    let judge = |profiles: &Profiles| {
        assert_eq!(profiles.files().len(), 6, "{:?}", profiles.files());
        assert_eq!(profiles.count(CALL), 5 * 11 + 10);
    };
    for end in ["std-exit:0", "raise:15"] {
        let forks = format!("forks:5,calls:1,{end},park");
        let steps = ["handle:15", "calls:10", &forks, "reap"];
        story("here", Some("100%.profraw"), &steps, judge);
    }
}

#[test]
fn a_program_that_changes_its_directory_leaves_nothing_there() {
    let steps = ["handle:15", "chdir:..", "calls:10", "raise:15", "park"];
    let ending = story("here", Some("p-%p.profraw"), &steps, |profiles| {
        ten_in_one(profiles);
        assert!(profiles.files()[0].starts_with(profiles.path().join("here")));
    });
    assert_eq!(ending.signal(), Some(Signal::SIGTERM), "{ending}");
}

#[test]
fn threads_that_need_it_first_at_once_do_not_spoil_it() {
    for _ in 0..20 {
        let steps = ["together:flush", "calls:10", "flush", "leave-at-once:0"];
        let ending = story("here", Some("p-%p.profraw"), &steps, ten_in_one);
        assert_eq!((ending.code(), &*ending.stderr), (Some(0), ""), "{ending}");
    }
}
