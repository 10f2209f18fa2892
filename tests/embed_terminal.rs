//! Ctrl-C in a real terminal.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{ChildStdout, Command, Stdio};
use std::time::Duration;

use nix::pty::openpty;
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use support::{Oracle, Watchdog};

const PATIENCE: Duration = Duration::from_secs(180);
const CTRL_C: &[u8] = b"\x03";

/// Reads until each of `lines` has come, in any order, and nothing else.
#[track_caller]
fn until(stdout: &mut BufReader<ChildStdout>, mut lines: Vec<&str>) {
    while !lines.is_empty() {
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        if line.starts_with("child ") {
            continue; // The pid of the copy.
        }
        let place = lines.iter().position(|expected| *expected == line.trim_end());
        let place = place.unwrap_or_else(|| panic!("{line:?} in place of {lines:?}"));
        lines.remove(place);
    }
}

#[test]
fn ctrl_c_reaches_the_whole_foreground_group_and_a_second_one_skips_what_is_left() {
    let oracle = Oracle::begin();
    let _watchdog = Watchdog::start(PATIENCE);
    let terminal = openpty(None, None).unwrap();
    let mut keyboard = File::from(terminal.master);
    // `--ctty` makes its input the terminal of the new session, whose only group is in front.
    let mut command = Command::new("setsid");
    command.args(["--ctty", env!("CARGO_BIN_EXE_embed_story")]).args([
        // One more process in the group, which waits for nobody. It handles SIGHUP, too: the kernel
        // hangs up on the group when the head of the session ends.
        "fork:handle:1,handle:2,finalizer:child,say:both,park",
        // Only embed's thread lets the signal in. It is the one that reads, too, so it has heard
        // of the second Ctrl-C before it gets the line that is typed after it.
        "mask:2",
        "handle:2",
        "finalizer:skipped",
        "waits:slow",
        "say:ready",
        "park",
    ]);
    let mut child = command
        .stdin(terminal.slave)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The command holds the terminal open, too.
    drop(command);
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    until(&mut stdout, vec!["both", "ready"]);
    keyboard.write_all(CTRL_C).unwrap();
    // The copy has begun its only finalizer, too: the second Ctrl-C would skip it.
    until(&mut stdout, vec!["child", "slow begins"]);
    keyboard.write_all(CTRL_C).unwrap();
    keyboard.write_all(b"go on\n").unwrap();
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "slow ends\n");
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(stderr, "");
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGINT));
    drop((stdout, keyboard));
    let copies = oracle.nothing_left_within(PATIENCE);
    assert!(matches!(copies[..], [WaitStatus::Signaled(_, Signal::SIGINT, _)]), "{copies:?}");
}
