//! The checksum example on a real tree: every digest is right, whatever happens to one file.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use blake3::Hash;
use nix::pty::{Winsize, openpty};
use nix::sys::stat::Mode;
use nix::unistd::{Uid, mkfifo};
use support::{Oracle, Watchdog};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(300);

static CHECKSUM: LazyLock<PathBuf> = LazyLock::new(|| support::example("checksum"));

fn begin() -> (Oracle, Watchdog) {
    // Built first: the compiler is no part of any story.
    LazyLock::force(&CHECKSUM);
    (Oracle::begin(), Watchdog::start(PATIENCE))
}

/// Files of many sizes and shapes of name, and things that are not files.
fn tree() -> TempDir {
    let tree = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &[u8]| {
        let path = tree.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    write("empty", b"");
    write("one", b"1");
    write("deep/er/than/that", b"deep");
    write("large", &b"0123456789".repeat(400_000));
    for name in ["two words", "-dash", "*", "back\\slash", "new\nline", "re\rturn", "\u{fc}nicode"]
    {
        write(&format!("names/{name}"), name.as_bytes());
    }
    for number in 0..40 {
        write(&format!("many/{number}"), number.to_string().as_bytes());
    }
    symlink("one", tree.path().join("link")).unwrap();
    symlink("nowhere", tree.path().join("dangling")).unwrap();
    mkfifo(&tree.path().join("fifo"), Mode::S_IRWXU).unwrap();
    drop(UnixListener::bind(tree.path().join("socket")).unwrap());
    tree
}

/// The digests of all files below `directory`, sorted, as this test computes them.
fn expected(directory: &Path) -> Vec<(PathBuf, Hash)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            files.extend(expected(&entry.path()));
        } else if kind.is_file() {
            files.push((entry.path(), blake3::hash(&fs::read(entry.path()).unwrap())));
        }
    }
    sorted(files)
}

fn sorted(mut digests: Vec<(PathBuf, Hash)>) -> Vec<(PathBuf, Hash)> {
    digests.sort_by(|(one, _), (other, _)| one.cmp(other));
    digests
}

fn expected_without(directory: &Path, name: &str) -> Vec<(PathBuf, Hash)> {
    let (left, gone): (Vec<_>, Vec<_>) =
        expected(directory).into_iter().partition(|(path, _)| !path.ends_with(name));
    assert_eq!(gone.len(), 1, "{name} should name one file");
    left
}

/// Reads a list of digests by the rules of `b3sum --check`, and refuses what that refuses.
fn parse_check_file(text: &[u8]) -> Vec<(PathBuf, Hash)> {
    let text = str::from_utf8(text).expect("b3sum reads UTF-8");
    assert!(text.is_empty() || text.ends_with('\n'));
    text.split_terminator('\n').map(parse_check_line).collect()
}

fn parse_check_line(line: &str) -> (PathBuf, Hash) {
    let (escaped, rest) = match line.strip_prefix('\\') {
        Some(rest) => (true, rest),
        None => (false, line),
    };
    let (digest, name) = rest.split_once("  ").unwrap_or_else(|| panic!("no digest: {line:?}"));
    assert!(!digest.contains(|c: char| c.is_ascii_uppercase()), "{line:?}");
    let name = if escaped { unescape(name) } else { name.to_owned() };
    assert!(!name.is_empty() && !name.contains(['\0', '\u{fffd}']), "{line:?}");
    (name.into(), Hash::from_hex(digest).unwrap())
}

fn unescape(name: &str) -> String {
    let mut characters = name.chars();
    let mut plain = String::new();
    while let Some(character) = characters.next() {
        plain.push(match character {
            '\\' => match characters.next() {
                Some('\\') => '\\',
                Some('n') => '\n',
                Some('r') => '\r',
                other => panic!("an escape that b3sum does not know: {other:?} in {name:?}"),
            },
            plain => plain,
        });
    }
    plain
}

fn checksum(arguments: &[&str], path: &Path) -> Output {
    Command::new(&*CHECKSUM).args(arguments).arg(path).output().unwrap()
}

fn stderr(output: &Output) -> &str {
    str::from_utf8(&output.stderr).unwrap()
}

/// The lines of standard error that name a file below `tree`.
fn complaints<'a>(output: &'a Output, tree: &TempDir) -> Vec<&'a str> {
    let tree = tree.path().to_str().unwrap();
    stderr(output).lines().filter(|line| line.contains(tree)).collect()
}

#[test]
fn every_digest_is_right_and_b3sum_could_check_it() {
    let (oracle, _watchdog) = begin();
    let tree = tree();
    let output = checksum(&[], tree.path());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let digests = sorted(parse_check_file(&output.stdout));
    assert_eq!(digests, expected(tree.path()));
    oracle.nothing_left();
}

#[test]
fn the_order_does_not_depend_on_the_workers() {
    let (oracle, _watchdog) = begin();
    let tree = tree();
    let one = checksum(&["--workers", "1"], tree.path());
    let four = checksum(&["--workers", "4"], tree.path());
    assert!(one.status.success() && four.status.success());
    assert_eq!(one.stdout, four.stdout);
    oracle.nothing_left();
}

#[test]
fn the_current_directory_is_the_default() {
    let (oracle, _watchdog) = begin();
    let tree = tempfile::tempdir().unwrap();
    fs::write(tree.path().join("file"), "content").unwrap();
    let output = Command::new(&*CHECKSUM).current_dir(tree.path()).output().unwrap();
    let line = format!("{}  ./file\n", blake3::hash(b"content"));
    assert_eq!(str::from_utf8(&output.stdout).unwrap(), line);
    oracle.nothing_left();
}

#[test]
fn a_file_that_cannot_be_read_is_named_and_the_rest_goes_on() {
    let (oracle, _watchdog) = begin();
    let tree = tree();
    let expected = expected_without(tree.path(), "many/7");
    fs::set_permissions(tree.path().join("many/7"), Permissions::from_mode(0o000)).unwrap();
    fs::set_permissions(tree.path(), Permissions::from_mode(0o755)).unwrap();
    let output = run_bound_by_permissions(tree.path());
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let complaints = complaints(&output, &tree);
    assert!(
        matches!(complaints[..], [one] if one.contains("many/7: Permission denied")),
        "{output:?}"
    );
    let digests = sorted(parse_check_file(&output.stdout));
    assert_eq!(digests, expected);
    oracle.nothing_left();
}

/// Runs the example as a user whom permissions bind. They do not bind root, and the place where
/// the example was built may be closed to everybody else.
fn run_bound_by_permissions(path: &Path) -> Output {
    if !Uid::effective().is_root() {
        return checksum(&[], path);
    }
    const NOBODY: u32 = 65534;
    let place = tempfile::tempdir().unwrap();
    let program = place.path().join("checksum");
    fs::copy(&*CHECKSUM, &program).unwrap();
    fs::set_permissions(place.path(), Permissions::from_mode(0o755)).unwrap();
    Command::new(&program).arg(path).uid(NOBODY).gid(NOBODY).current_dir("/").output().unwrap()
}

#[test]
fn a_name_that_no_check_file_can_hold_is_named_and_the_rest_goes_on() {
    let (oracle, _watchdog) = begin();
    let tree = tempfile::tempdir().unwrap();
    fs::write(tree.path().join("good"), "good").unwrap();
    fs::write(tree.path().join(OsStr::from_bytes(b"latin-\xe9")), "bad").unwrap();
    fs::write(tree.path().join("replaced-\u{fffd}"), "bad").unwrap();
    let output = checksum(&[], tree.path());
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let good = (tree.path().join("good"), blake3::hash(b"good"));
    assert_eq!(parse_check_file(&output.stdout), [good]);
    assert_eq!(complaints(&output, &tree).len(), 2, "{}", stderr(&output));
    assert!(stderr(&output).contains("latin-\u{fffd}: the name is not Unicode"));
    oracle.nothing_left();
}

#[test]
fn a_worker_that_aborts_loses_its_own_file_and_no_other() {
    for workers in ["1", "2", "4"] {
        let (oracle, _watchdog) = begin();
        let tree = tree();
        let output = checksum(&["--crash-on", "many/23", "--workers", workers], tree.path());
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        let complaints = complaints(&output, &tree);
        let [lost] = complaints[..] else { panic!("one file is lost: {complaints:?}") };
        assert!(lost.contains("many/23: ") && lost.contains("SIGABRT"), "{lost}");
        let digests = sorted(parse_check_file(&output.stdout));
        assert_eq!(digests, expected_without(tree.path(), "many/23"));
        oracle.nothing_left();
    }
}

#[test]
fn a_path_that_does_not_exist_is_named() {
    let (oracle, _watchdog) = begin();
    let output = checksum(&[], Path::new("/does/not/exist"));
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("/does/not/exist"), "{}", stderr(&output));
    assert!(output.stdout.is_empty());
    oracle.nothing_left();
}

#[test]
fn an_empty_directory_is_no_error() {
    let (oracle, _watchdog) = begin();
    let tree = tempfile::tempdir().unwrap();
    let output = checksum(&[], tree.path());
    assert_eq!((output.status.code(), output.stdout.len()), (Some(0), 0), "{}", stderr(&output));
    oracle.nothing_left();
}

#[test]
fn a_usage_error_says_what_is_wrong_and_how_it_goes() {
    let (oracle, _watchdog) = begin();
    let cases: [(&[&str], &str); 7] = [
        (&["--workers"], "--workers takes a number from 1 on"),
        (&["--workers", "0"], "--workers takes a number from 1 on"),
        (&["--workers", "many"], "--workers takes a number from 1 on"),
        (&["--workers", "-1"], "--workers takes a number from 1 on"),
        (&["--crash-on"], "--crash-on takes a name"),
        (&["--worker", "1"], "unknown option --worker"),
        (&[".", "."], "more than one PATH"),
    ];
    for (arguments, complaint) in cases {
        let output = Command::new(&*CHECKSUM).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let usage = "usage: checksum [--workers N] [--crash-on NAME] [PATH]";
        assert_eq!(stderr(&output), format!("checksum: {complaint}\n{usage}\n"));
        assert!(output.stdout.is_empty());
    }
    oracle.nothing_left();
}

#[test]
fn a_terminal_gets_a_bar_and_a_pipe_gets_lines() {
    let (oracle, _watchdog) = begin();
    let tree = tree();
    let count = expected(tree.path()).len();
    let last = format!("{count} of {count} files");

    let output = checksum(&[], tree.path());
    assert!(stderr(&output).contains(&last) && !stderr(&output).contains('\u{1b}'));

    let shown = stderr_on_a_terminal(tree.path());
    assert!(shown.contains(&format!("/{count}")) && shown.contains('\u{1b}'), "{shown:?}");
    assert!(!shown.contains(&last), "{shown:?}");
    oracle.nothing_left();
}

fn stderr_on_a_terminal(path: &Path) -> String {
    let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    let terminal = openpty(&size, None).unwrap();
    let mut child = Command::new(&*CHECKSUM)
        .arg(path)
        .env("TERM", "xterm")
        .stdout(Stdio::null())
        .stderr(terminal.slave)
        .spawn()
        .unwrap();
    let mut shown = Vec::new();
    // A terminal that nobody has open any more gives EIO where a pipe gives its end.
    let _ = File::from(terminal.master).read_to_end(&mut shown);
    assert!(child.wait().unwrap().success());
    String::from_utf8_lossy(&shown).into_owned()
}

#[test]
fn a_reader_that_stops_listening_ends_the_program_without_a_trace() {
    let (oracle, _watchdog) = begin();
    let tree = tree();
    let mut child = Command::new(&*CHECKSUM)
        .arg(tree.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("Broken pipe"), "{}", stderr(&output));
    oracle.nothing_left();
}
