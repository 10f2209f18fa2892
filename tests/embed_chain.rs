//! Embed and the libraries that handle signals themselves: signal-hook, ctrlc, tokio.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use nix::sys::signal::Signal;
use support::{Build, Ending, Oracle, Program, Watchdog, example};

const PATIENCE: Duration = Duration::from_secs(180);
const LIBRARIES: [&str; 3] = ["signal-hook", "ctrlc", "tokio"];

struct Programs {
    handlers: PathBuf,
    reload: PathBuf,
}

/// Both are built before the first story: a compiler's run would be seen as left behind by it.
fn programs() -> &'static Programs {
    static PROGRAMS: OnceLock<Programs> = OnceLock::new();
    let handlers = Build::program("embed_handlers", "plain").package("embed_handlers");
    PROGRAMS.get_or_init(|| Programs { handlers: handlers.build(), reload: example("reload") })
}

fn start(library: &str, order: &str) -> Program {
    let mut program = Program::start(Command::new(&programs().handlers).args([library, order]));
    program.wait_for_line("ready");
    program
}

/// Sends one signal and waits for the end; the input stays open until then.
fn ended(mut program: Program) -> Ending {
    program.signal(Signal::SIGTERM);
    let input = program.hold_input();
    let ending = program.finish();
    drop(input);
    ending
}

#[test]
fn a_library_that_was_first_hears_of_each_signal_after_the_finalizers_and_the_program_goes_on() {
    for library in LIBRARIES {
        programs();
        let oracle = Oracle::begin();
        let _watchdog = Watchdog::start(PATIENCE);
        let mut program = start(library, "before");
        program.signal(Signal::SIGTERM);
        program.wait_for_line("seen");
        program.signal(Signal::SIGTERM);
        program.wait_for_line("seen");
        let ending = program.finish();
        assert_eq!(ending.code(), Some(0), "{library}: {ending}");
        let said: Vec<_> = ending.stdout.lines().collect();
        let expected = ["ready", "on_stop", "first finalizer", "seen", "seen", "second finalizer"];
        assert_eq!(said, expected, "{library}");
        assert_eq!(ending.stderr, "", "{library}");
        oracle.nothing_left();
    }
}

#[test]
fn a_library_that_chains_and_comes_later_does_not_keep_the_signal_from_ending_the_process() {
    for library in ["signal-hook", "tokio"] {
        programs();
        let oracle = Oracle::begin();
        let _watchdog = Watchdog::start(PATIENCE);
        let ending = ended(start(library, "after"));
        assert_eq!(ending.signal(), Some(Signal::SIGTERM), "{library}: {ending}");
        // The library may or may not have had its turn: the process is on its way out.
        let ours: Vec<_> = ending.stdout.lines().filter(|line| *line != "seen").collect();
        assert_eq!(ours, ["ready", "on_stop", "first finalizer"], "{library}: {ending}");
        oracle.nothing_left();
    }
}

#[test]
fn a_library_that_replaces_handlers_and_comes_later_leaves_the_finalizers_to_the_programs_end() {
    programs();
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let mut program = start("ctrlc", "after");
    program.signal(Signal::SIGTERM);
    program.wait_for_line("seen");
    let ending = program.finish();
    assert_eq!(ending.code(), Some(0), "{ending}");
    let said: Vec<_> = ending.stdout.lines().collect();
    assert_eq!(said, ["ready", "seen", "second finalizer", "first finalizer"], "{ending}");
    oracle.nothing_left();
}

#[test]
fn a_signal_between_a_program_and_the_one_that_replaces_it_waits_for_the_new_one() {
    let reload = &programs().reload;
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(reload);
    let mut program = Program::start(command.arg("--state").arg(directory.path().join("count")));
    program.wait_for_line("process");
    for _ in 0..20 {
        // Many at once, so that some arrive in the middle of the first one's reload.
        (0..200).for_each(|_| program.signal(Signal::SIGHUP));
        program.wait_for_line("process");
    }
    // It may be in the middle of a reload, and has shown that none of them was its end.
    program.signal(Signal::SIGKILL);
    let ending = program.finish();
    assert_eq!(ending.signal(), Some(Signal::SIGKILL), "{ending}");
    drop(directory);
    oracle.nothing_left();
}
