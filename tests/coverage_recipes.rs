//! Coverage of any process, not only of ours: every recipe of `docs/coverage.md` works.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use nix::sys::signal::Signal;
use support::{Build, Ending, Oracle, Program, Watchdog, turn};
use tempfile::TempDir;

use coverage::Profiles;

#[path = "support/coverage.rs"]
mod coverage;

const PATIENCE: Duration = Duration::from_secs(180);
const MEASURED: &str = "-Cinstrument-coverage";
const RECIPES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/coverage_recipes");

struct Builds {
    daemon: PathBuf,
    child: PathBuf,
    service: PathBuf,
    plugin: PathBuf,
    preload: PathBuf,
    host: PathBuf,
    counted: PathBuf,
    counted_alone: PathBuf,
    _directory: TempDir,
}

/// All are built before the first story: a compiler's run would be seen as left behind by it.
fn builds() -> &'static Builds {
    static BUILDS: OnceLock<Builds> = OnceLock::new();
    BUILDS.get_or_init(|| {
        let recipe = |name| Build::program(name, "recipe").package("coverage_recipes");
        let measured = |name| recipe(name).flag(MEASURED).build();
        let directory = tempfile::tempdir().unwrap();
        let archive = recipe("libcoverage_recipes.a").library().build();
        let compile = |source, output, flags: &[&str]| {
            let output = directory.path().join(output);
            let source = Path::new(RECIPES).join(source);
            compile(&source, &output, flags, &archive);
            output
        };
        let plugin = Build::program("libcoverage_recipes.so", "measured_recipe");
        Builds {
            daemon: measured("coverage_daemon"),
            child: measured("coverage_child"),
            service: measured("coverage_service"),
            plugin: plugin.package("coverage_recipes").library().flag(MEASURED).build(),
            preload: recipe("libcoverage_recipes.so").library().build(),
            host: compile("host.c", "host", &[]),
            counted: compile("counted.c", "counted", &["--coverage", "-DLINKED"]),
            counted_alone: compile("counted.c", "alone", &["--coverage"]),
            _directory: directory,
        }
    })
}

/// Runs gcc, the only compiler that gcov's data is for.
fn compile(source: &Path, output: &Path, flags: &[&str], archive: &Path) {
    let mut gcc = Command::new("gcc");
    gcc.args(["-O0", "-Wall", "-Werror"]).args(flags).arg(source).arg("-o").arg(output);
    if flags.contains(&"-DLINKED") {
        gcc.arg(archive);
    }
    // The notes for gcov go beside the program.
    gcc.args(["-ldl", "-lpthread", "-lm", "-lgcc_s"]).current_dir(output.parent().unwrap());
    let _turn = turn();
    let built = gcc.output().unwrap();
    assert!(built.status.success(), "{gcc:?}: {}", String::from_utf8_lossy(&built.stderr));
}

/// One story after the other, with somebody who looks after it.
fn begin() -> (&'static Builds, Watchdog, Oracle) {
    let builds = builds();
    let oracle = Oracle::begin();
    (builds, Watchdog::start(PATIENCE), oracle)
}

/// Waits until the program says `ready`, and ends it by SIGTERM.
#[track_caller]
fn terminated(command: &mut Command) -> Ending {
    let mut program = Program::start(command);
    program.wait_for_line("ready");
    program.signal(Signal::SIGTERM);
    let ending = program.finish();
    assert_eq!(ending.signal(), Some(Signal::SIGTERM), "{ending}");
    ending
}

#[test]
fn a_plain_daemon_needs_one_line() {
    let (builds, _watchdog, oracle) = begin();
    let profiles = Profiles::new();
    terminated(&mut profiles.command(&builds.daemon, "p-%p-%m.profraw"));
    assert_eq!((profiles.count("daemon_request"), profiles.files().len()), (10, 1));
    drop(profiles);
    oracle.nothing_left();
}

#[test]
fn a_child_of_std_that_is_terminated_keeps_what_one_that_is_killed_loses() {
    let (builds, _watchdog, oracle) = begin();
    for (how, calls) in [("term", 10), ("kill", 0)] {
        let profiles = Profiles::new();
        let mut command = profiles.command(&builds.child, "p-%p-%m.profraw");
        let ending = Program::start(command.args(["parent", how])).finish();
        assert!(ending.status.success(), "{ending}");
        assert_eq!(profiles.count("child_work"), calls, "{how}: {ending}");
    }
    oracle.nothing_left();
}

#[test]
fn a_service_on_tokio_drains_and_all_of_it_is_measured() {
    let (builds, _watchdog, oracle) = begin();
    let profiles = Profiles::new();
    let mut service = Program::start(&mut profiles.command(&builds.service, "p-%p-%m.profraw"));
    service.wait_for_line("ready");
    service.signal(Signal::SIGTERM);
    service.wait_for_line("draining");
    service.tell("done");
    let ending = service.finish();
    assert_eq!((ending.code(), &*ending.stderr), (Some(0), ""), "{ending}");
    let counts = ["service_request", "service_drains"].map(|name| profiles.count(name));
    assert_eq!((counts, profiles.files().len()), ([10, 3], 1));
    drop(profiles);
    oracle.nothing_left();
}

#[test]
fn a_service_that_is_killed_as_it_drains_keeps_what_ran_before() {
    let (builds, _watchdog, oracle) = begin();
    let profiles = Profiles::new();
    let mut service = Program::start(&mut profiles.command(&builds.service, "p-%p-%m.profraw"));
    service.wait_for_line("ready");
    service.signal(Signal::SIGTERM);
    service.wait_for_line("draining");
    service.signal(Signal::SIGKILL);
    assert_eq!(service.finish().signal(), Some(Signal::SIGKILL));
    assert_eq!((profiles.count("service_request"), profiles.files().len()), (10, 1));
    drop(profiles);
    oracle.nothing_left();
}

/// What gcov says of the line of `counted.c` that is called ten times.
fn count_in_c(program: &Path, data: &Path) -> Option<u64> {
    let found = Command::new("find").arg(data).args(["-name", "*.gcda"]).output().unwrap();
    let found = String::from_utf8(found.stdout).unwrap();
    let file = found.lines().next()?;
    let notes = program.parent().unwrap().join(Path::new(file).with_extension("gcno").file_name()?);
    let beside = data.join(notes.file_name()?);
    fs::copy(notes, &beside).unwrap();
    fs::copy(file, beside.with_extension("gcda")).unwrap();
    let mut gcov = Command::new("gcov");
    gcov.arg("--stdout").arg(beside).current_dir(data);
    let report = String::from_utf8(gcov.output().unwrap().stdout).unwrap();
    let line = report.lines().find(|line| line.contains("calls++"))?;
    line.split(':').next()?.trim().parse().ok()
}

#[test]
fn a_c_program_keeps_its_counts_with_embed_linked_or_preloaded_and_not_without() {
    let (builds, _watchdog, oracle) = begin();
    for (program, preloads, calls) in [
        (&builds.counted_alone, false, None),
        (&builds.counted_alone, true, Some(10)),
        (&builds.counted, false, Some(10)),
    ] {
        let data = tempfile::tempdir().unwrap();
        let mut command = Command::new(program);
        command.env("GCOV_PREFIX", data.path());
        if preloads {
            command.env("LD_PRELOAD", &builds.preload).env("COVERAGE_PRELOAD", "1");
        }
        terminated(&mut command);
        assert_eq!(count_in_c(program, data.path()), calls, "preloads: {preloads}");
    }
    oracle.nothing_left();
}

#[test]
fn a_measured_plugin_in_a_plain_c_host_keeps_its_counts() {
    let (builds, _watchdog, oracle) = begin();
    for returns in [false, true] {
        let profiles = Profiles::new();
        let mut command = profiles.command(&builds.host, "p-%p-%m.profraw");
        command.arg(&builds.plugin);
        match returns {
            true => assert!(Program::start(command.arg("return")).finish().status.success()),
            false => drop(terminated(&mut command)),
        }
        assert_eq!((profiles.count("plugin_work"), profiles.files().len()), (10, 1), "{returns}");
    }
    oracle.nothing_left();
}
