//! However a pool of measured workers ends, every branch that ran is reported, and none twice.
//!
//! The first three tests are those that pytest-cov had to give up, with its numbers.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use support::{Build, Ending, Oracle, Program, Watchdog};

use coverage::Profiles;
use lines::lines;

#[path = "support/coverage.rs"]
mod coverage;
#[path = "support/lines.rs"]
mod lines;

const PATIENCE: Duration = Duration::from_secs(300);
const SOURCE: &str = "programs/coverage_pools.rs";
const BRANCH: &str = "branch";

/// Built before the first story: a compiler's run would be seen as left behind by it.
fn measured() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        Build::program("coverage_pools", "measured").flag("-Cinstrument-coverage").build()
    })
}

/// Runs a story of the measured program, and hands what it left to `judge`.
#[track_caller]
fn story(pattern: &str, arguments: &[&str], judge: impl FnOnce(&Profiles)) -> Ending {
    let program = measured();
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let profiles = Profiles::new();
    let mut command = profiles.command(program, pattern);
    let ending = Program::start(command.args(arguments).current_dir(profiles.path())).finish();
    assert!(ending.status.success(), "{ending}");
    judge(&profiles);
    drop(profiles);
    oracle.nothing_left();
    ending
}

/// The lines of the program that are its ninety-nine branches.
fn branches() -> Vec<usize> {
    let source = include_str!("programs/coverage_pools.rs");
    let numbered = (1..).zip(source.lines());
    numbered.filter(|(_, text)| text.contains("=> step(")).map(|(line, _)| line).collect()
}

/// Asserts that each branch ran once, by files that can all be merged, and that nothing else is
/// there. Of a file that held two profiles, the second would be missing here.
#[track_caller]
fn each_branch_once(profiles: &Profiles, most: usize) {
    let files = profiles.files();
    assert!(files.len() <= most, "{} files", files.len());
    let entries = fs::read_dir(profiles.path()).unwrap().count();
    assert_eq!(entries, files.len(), "there are stray files");
    let counts = lines(measured(), &files, SOURCE);
    let branches = branches();
    assert_eq!(branches.len(), 99);
    let wrong: Vec<_> = branches.iter().filter(|line| counts.get(line) != Some(&1)).collect();
    assert!(wrong.is_empty(), "not once: lines {wrong:?}");
}

/// 33 pools of 3 workers, in the files that usual tools ask for.
#[track_caller]
fn all_of_99_branches(how: &str) {
    for (pattern, most) in [("p-%p-%m.profraw", 100), ("p-%2m.profraw", 2), ("p.profraw", 100)] {
        let ending = story(pattern, &[how], |profiles| each_branch_once(profiles, most));
        assert_eq!(ending.stderr, "", "{pattern}");
    }
}

#[test]
fn pools_that_are_closed_report_all_of_99_branches() {
    all_of_99_branches("closed");
}

#[test]
fn pools_that_are_dropped_report_all_of_99_branches() {
    all_of_99_branches("dropped");
}

#[test]
fn pools_that_are_terminated_report_all_of_99_branches() {
    all_of_99_branches("terminated");
}

#[test]
fn without_coverage_the_same_program_does_the_same_and_writes_no_file() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let profiles = Profiles::new();
    let plain = Path::new(env!("CARGO_BIN_EXE_coverage_pools"));
    for how in ["closed", "dropped", "terminated", "cleared", "aborts", "killed"] {
        let mut command = profiles.command(plain, "p-%p.profraw");
        let ending = Program::start(command.arg(how).current_dir(profiles.path())).finish();
        assert!(ending.status.success(), "{how}: {ending}");
    }
    assert_eq!(fs::read_dir(profiles.path()).unwrap().count(), 0);
    drop(profiles);
    oracle.nothing_left();
}

#[test]
fn wherever_the_data_is_asked_to_go_that_of_all_workers_gets_there() {
    let program = measured();
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let named = ["p-%p.profraw", "made/p-%m.profraw", "a/b/%4m-%p.profraw", "50%.profraw"];
    for file in named.map(Some).into_iter().chain([None]) {
        let profiles = Profiles::new();
        let mut command = profiles.command(program, "");
        match file {
            Some(file) => command.env("LLVM_PROFILE_FILE", file),
            None => command.env_remove("LLVM_PROFILE_FILE"),
        };
        command.args(["recycled", "5"]).current_dir(profiles.path());
        let ending = Program::start(&mut command).finish();
        assert_eq!((ending.code(), &*ending.stderr), (Some(0), ""), "{file:?}: {ending}");
        assert_eq!(profiles.count(BRANCH), 5, "{file:?}: {:?}", profiles.files());
    }
    oracle.nothing_left();
}

#[test]
fn no_more_files_are_left_than_the_pattern_asks_for_however_many_workers_there_were() {
    for (pattern, most) in [("p-%m.profraw", 1), ("p-%4m.profraw", 4)] {
        story(pattern, &["recycled", "1000"], |profiles| {
            assert_eq!(profiles.count(BRANCH), 1000, "{pattern}");
            // Which of four it is depends on the pid.
            assert!(profiles.files().len() <= most, "{:?}", profiles.files());
        });
    }
}

#[test]
fn without_a_merging_pattern_each_worker_leaves_one_file() {
    story("p-%p.profraw", &["recycled", "20"], |profiles| {
        assert_eq!((profiles.count(BRANCH), profiles.files().len()), (20, 21));
    });
}

#[test]
fn workers_of_a_start_server_lose_nothing() {
    for (pattern, most) in [("p-%p-%m.profraw", 22), ("p-%m.profraw", 1)] {
        story(pattern, &["served", "20"], |profiles| {
            assert_eq!(profiles.count(BRANCH), 20, "{:?}", profiles.files());
            assert!(profiles.files().len() <= most, "{:?}", profiles.files());
        });
    }
}

#[test]
fn a_worker_whose_environment_is_cleared_is_measured_all_the_same() {
    story("made/p-%p.profraw", &["cleared"], |profiles| {
        assert_eq!((profiles.count(BRANCH), profiles.files().len()), (1, 2));
        // Else the runtime would have chosen a name, in the current directory.
        let made = profiles.path().join("made");
        assert!(profiles.files().iter().all(|file| file.starts_with(&made)));
    });
}

#[test]
fn a_worker_can_be_left_out_of_the_measurement() {
    story("p-%p.profraw", &["opted-out"], |profiles| {
        assert_eq!((profiles.count(BRANCH), profiles.files().len()), (0, 1));
    });
}

#[test]
fn a_relative_name_means_the_first_directory_for_all_workers() {
    let program = measured();
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let (profiles, elsewhere) = (Profiles::new(), tempfile::tempdir().unwrap());
    fs::create_dir(elsewhere.path().join("deeper")).unwrap();
    let mut command = profiles.command(program, "");
    command.current_dir(profiles.path()).env("LLVM_PROFILE_FILE", "made/p-%p.profraw");
    let ending = Program::start(command.arg("moved").arg(elsewhere.path())).finish();
    assert!(ending.status.success(), "{ending}");
    assert_eq!(profiles.count(BRANCH), 2);
    let entries: Vec<_> = fs::read_dir(elsewhere.path().join("deeper")).unwrap().collect();
    assert!(entries.is_empty(), "{entries:?}");
    assert_eq!(profiles.files().len(), 3);
    drop((profiles, elsewhere));
    oracle.nothing_left();
}

#[test]
fn a_worker_that_aborts_is_measured_where_it_has_asked_for_that() {
    story("p-%p.profraw", &["aborts"], |profiles| {
        assert_eq!(profiles.count(BRANCH), 1);
    });
}

#[test]
fn a_worker_that_is_killed_keeps_what_it_has_flushed_and_harms_no_other() {
    story("p-%p.profraw", &["killed"], |profiles| {
        assert_eq!(profiles.count(BRANCH), 1);
        let counts = lines(measured(), &profiles.files(), SOURCE);
        let ran = branches().iter().filter(|line| counts.get(line) == Some(&1)).count();
        assert_eq!(ran, 1);
    });
}
