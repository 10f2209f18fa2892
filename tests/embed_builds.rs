//! Embed keeps its promises however it is built in: in a plugin, twice, beside gcc's coverage.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use nix::sys::signal::Signal;
use support::{Build, Ending, Oracle, Program, Watchdog};

use coverage::{Profiles, count};

#[path = "support/coverage.rs"]
mod coverage;

const PATIENCE: Duration = Duration::from_secs(180);
const MEASURED: &str = "-Cinstrument-coverage";

struct Builds {
    host: PathBuf,
    plugin: PathBuf,
    twice: PathBuf,
    twice_plain: PathBuf,
    gcov: PathBuf,
    gcov_dump: PathBuf,
}

/// All are built before the first story: a compiler's run would be seen as left behind by it.
fn builds() -> &'static Builds {
    static BUILDS: OnceLock<Builds> = OnceLock::new();
    let fixture = |name, variant| Build::program(name, variant).package("embed_builds");
    let gcov = |variant| fixture("embed_gcov", variant).feature("gcov");
    BUILDS.get_or_init(|| Builds {
        host: Build::program("embed_story", "measured").flag(MEASURED).build(),
        plugin: fixture("libembed_plugin.so", "measured").library().flag(MEASURED).build(),
        twice: fixture("embed_twice", "measured").flag(MEASURED).build(),
        twice_plain: fixture("embed_twice", "plain").build(),
        gcov: gcov("gcov").build(),
        // What `exit_now` and `exec` need: a weak reference takes nothing out of an archive.
        gcov_dump: gcov("gcov_dump").flag("-Clink-arg=-Wl,-u,__gcov_dump").build(),
    })
}

/// Waits until the program says `ready`, ends it by a signal, and returns how it ended.
fn ended(command: &mut Command) -> Ending {
    ended_by(command, Signal::SIGTERM)
}

/// The same of one that ends by that signal, when it was sent `SIGTERM`.
fn ended_by(command: &mut Command, signal: Signal) -> Ending {
    let mut program = Program::start(command);
    program.wait_for_line("ready");
    program.signal(Signal::SIGTERM);
    let input = program.hold_input();
    let ending = program.finish();
    drop(input);
    assert_eq!(ending.signal(), Some(signal), "{ending}");
    ending
}

/// A measured plugin in a host that is not: what both have said, and what was counted, when the host
/// has ended by that signal.
#[track_caller]
fn plugin_in_a_plain_host(at_load: Option<&str>, signal: Signal) -> (String, u64) {
    let builds = builds();
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let profiles = Profiles::new();
    let plain = Path::new(env!("CARGO_BIN_EXE_embed_story"));
    let plugin = format!("plugin:{}", builds.plugin.display());
    let mut command = profiles.command(plain, "p-%p.profraw");
    command.envs(at_load.map(|what| ("EMBED_PLUGIN_AT_LOAD", what)));
    let ending = ended_by(command.args(["same", &plugin, "say:ready", "wait"]), signal);
    let told = (ending.stdout, profiles.count("plugin_call"));
    drop(profiles);
    oracle.nothing_left();
    told
}

#[test]
fn a_measured_plugin_in_a_plain_host_keeps_its_counts() {
    let told = ("instrumented false\nready\nplugin\n".to_owned(), 10);
    assert_eq!(plugin_in_a_plain_host(None, Signal::SIGTERM), told);
}

#[test]
fn a_plugin_may_handle_a_signal_as_it_is_loaded() {
    let told = ("instrumented false\nready\nplugin\n".to_owned(), 10);
    assert_eq!(plugin_in_a_plain_host(Some("go on"), Signal::SIGTERM), told);
}

/// The loader's lock is never given back, which an exit needs as well: the kernel ends it when its
/// time is up. A thread of the standard library's would not even begin, and nothing would.
#[test]
fn a_signal_ends_a_program_whose_library_never_gets_loaded() {
    let (said, _) = plugin_in_a_plain_host(Some("wait"), Signal::SIGKILL);
    assert_eq!(said, "instrumented false\nready\n");
}

/// The one that exits has the loader's lock, which a thread of the standard library's would wait for.
#[test]
fn a_library_that_exits_as_it_is_loaded_keeps_no_finalizer_from_running() {
    let builds = builds();
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let plugin = format!("plugin:{}", builds.plugin.display());
    let profiles = Profiles::new();
    let mut command =
        profiles.command(Path::new(env!("CARGO_BIN_EXE_embed_story")), "p-%p.profraw");
    command.env("EMBED_PLUGIN_AT_LOAD", "exit");
    let ending = Program::start(command.args(["finalizer:host", &plugin])).finish();
    drop(profiles);
    oracle.nothing_left();
    assert_eq!(ending.code(), Some(1), "{ending}");
    assert_eq!(ending.stdout, "host\n", "{ending}");
}

/// The signal is the host's to die by: it handled that first.
#[test]
fn a_signal_leaves_the_destructors_of_libraries_their_turn() {
    let builds = builds();
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let plugin = format!("plugin:{}", builds.plugin.display());
    let profiles = Profiles::new();
    let plain = Path::new(env!("CARGO_BIN_EXE_embed_story"));
    let mut command = profiles.command(plain, "p-%p.profraw");
    command.env("EMBED_PLUGIN_AT_END", "tell");
    let steps = ["handle:15", "finalizer:host", &plugin, "say:ready", "wait"];
    let ending = ended(command.args(steps));
    assert_eq!(ending.stdout, "ready\nplugin\nhost\ndestructor\n", "{ending}");
    assert_eq!(profiles.count("plugin_call"), 10);
    drop(profiles);
    oracle.nothing_left();
}

/// Where those are behind the program's own, as this C library has them.
#[test]
fn a_signal_in_a_destructor_of_a_library_is_still_what_an_exit_ends_by() {
    let builds = builds();
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let plugin = format!("plugin:{}", builds.plugin.display());
    let profiles = Profiles::new();
    let plain = Path::new(env!("CARGO_BIN_EXE_embed_story"));
    let mut command = profiles.command(plain, "p-%p.profraw");
    command.env("EMBED_PLUGIN_AT_END", "raise");
    // The plugin handles another one.
    let ending = Program::start(command.args(["handle:10", "finalizer:host", &plugin])).finish();
    assert_eq!(ending.signal(), Some(Signal::SIGUSR1), "{ending}");
    assert_eq!(ending.stdout, "plugin\nhost\ndestructor\n", "{ending}");
    drop(profiles);
    oracle.nothing_left();
}

#[test]
fn a_measured_host_and_its_measured_plugin_both_keep_their_counts() {
    let builds = builds();
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let profiles = Profiles::new();
    let plugin = format!("plugin:{}", builds.plugin.display());
    let mut command = profiles.command(&builds.host, "p-%p.profraw");
    let steps = ["handle:15", "finalizer:host", "calls:7", &plugin, "say:ready", "wait"];
    let ending = ended(command.args(steps));
    assert_eq!(ending.stdout, "ready\nplugin\nhost\n", "{ending}");
    assert_eq!((profiles.count("plugin_call"), profiles.count("measured_call")), (10, 7));
    drop(profiles);
    oracle.nothing_left();
}

#[test]
fn two_copies_in_one_program_both_run_and_count_nothing_twice() {
    let builds = builds();
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    for (program, calls) in [(&builds.twice, 10), (&builds.twice_plain, 0)] {
        let profiles = Profiles::new();
        let ending = ended(&mut profiles.command(program, "p-%p.profraw"));
        assert_eq!(ending.stdout, "ready\ntwo\none\n", "{ending}");
        let files = profiles.files();
        assert_eq!(files.iter().map(|file| count(file, "measured_call")).sum::<u64>(), calls);
        let profiles = Profiles::new();
        let ending = Program::start(&mut profiles.command(program, "p-%p.profraw")).finish();
        assert_eq!(ending.stdout, "ready\ntwo\none\n", "{ending}");
        assert_eq!(profiles.count("measured_call"), calls, "{:?}", profiles.files());
    }
    oracle.nothing_left();
}

#[test]
fn code_that_gcc_measures_keeps_its_counts() {
    let builds = builds();
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    for (program, how, kept) in [
        (&builds.gcov, "bare", false),
        (&builds.gcov, "", true),
        (&builds.gcov_dump, "", true),
        (&builds.gcov_dump, "now", true),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new(program);
        command.arg(how).env("GCOV_PREFIX", directory.path());
        match how {
            "now" => drop(Program::start(&mut command).finish()),
            _ => drop(ended(&mut command)),
        }
        let found = Command::new("find").arg(directory.path()).args(["-name", "*.gcda"]).output();
        let found = String::from_utf8(found.unwrap().stdout).unwrap();
        assert_eq!(!found.is_empty(), kept, "{how:?}: {found}");
        if kept {
            // The first arc's counter: ten calls.
            let dump = Command::new("gcov-dump").arg("-l").arg(found.trim()).output().unwrap();
            let dump = String::from_utf8(dump.stdout).unwrap();
            assert!(dump.split_whitespace().any(|word| word == "10"), "{dump}");
        }
    }
    oracle.nothing_left();
}
