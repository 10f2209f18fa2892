//! The standard streams of a process lead where its builder says, and nothing that was written to
//! captured ones is lost.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{self, Command};

use epilogue::process::Builder;
use epilogue::{JoinError, Process, StartError, StartMethod, Stdio};
use support::{begin, refused};

const MIB: usize = 1 << 20;

fn new() -> Builder {
    Process::builder()
}

/// What descriptors 0, 1 and 2 are, by device and inode.
fn streams((): ()) -> Vec<(u64, u64)> {
    let file = |fd| fs::metadata(format!("/proc/self/fd/{fd}")).unwrap();
    (0..3).map(file).map(|file| (file.dev(), file.ino())).collect()
}

fn identity(path: &Path) -> (u64, u64) {
    let file = fs::metadata(path).unwrap();
    (file.dev(), file.ino())
}

#[test]
fn input_is_null_and_output_is_ours_by_default() {
    let (oracle, _watchdog) = begin();
    let (found, ours) = (new().start((), streams).unwrap().join().unwrap(), streams(()));
    assert_eq!(found, [identity(Path::new("/dev/null")), ours[1], ours[2]]);
    oracle.nothing_left();
}

#[test]
fn every_stream_can_be_of_every_kind() {
    let (oracle, _watchdog) = begin();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    let (ours, null) = (streams(()), identity(Path::new("/dev/null")));
    fs::write(&path, "").unwrap();
    for stream in 0..3 {
        let with = |kind: Stdio| {
            let builder = match stream {
                0 => new().stdin(kind),
                1 => new().stdout(kind),
                _ => new().stderr(kind),
            };
            builder.start((), streams).unwrap().join().unwrap()[stream]
        };
        assert_eq!(with(Stdio::Inherit), ours[stream]);
        assert_eq!(with(Stdio::Null), null);
        assert_eq!(with(File::open(&path).unwrap().into()), identity(&path));
        let captured = with(Stdio::Capture);
        assert!(captured != null && !ours.contains(&captured), "{captured:?}");
    }
    drop(directory);
    oracle.nothing_left();
}

#[test]
fn a_file_as_input_is_read_and_as_output_is_written() {
    let (oracle, _watchdog) = begin();
    let directory = tempfile::tempdir().unwrap();
    let (input, output) = (directory.path().join("in"), directory.path().join("out"));
    fs::write(&input, "from a file").unwrap();
    let copy = |()| {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).unwrap();
        println!("{text}");
        eprintln!("and an error");
        text.len()
    };
    // Both streams into one file.
    let out = Stdio::from(File::create(&output).unwrap());
    let builder = new().stdin(File::open(&input).unwrap()).stdout(out.clone()).stderr(out);
    assert_eq!(builder.start((), copy).unwrap().join().unwrap(), 11);
    assert_eq!(fs::read_to_string(&output).unwrap(), "from a file\nand an error\n");
    drop(directory);
    oracle.nothing_left();
}

#[test]
fn captured_input_is_empty() {
    let (oracle, _watchdog) = begin();
    let length = |()| std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    assert_eq!(new().stdin(Stdio::Capture).start((), length).unwrap().join().unwrap(), 0);
    oracle.nothing_left();
}

#[test]
fn sixteen_mebibytes_are_captured_of_each_stream_without_a_reader() {
    let (oracle, _watchdog) = begin();
    let fill = |()| {
        let line = [b'o'; 4096];
        for _ in 0..16 * MIB / line.len() {
            std::io::stdout().write_all(&line).unwrap();
            std::io::stderr().write_all(&line.map(|_| b'e')).unwrap();
        }
        std::io::stdout().flush().unwrap();
    };
    let process = new().stdout(Stdio::Capture).stderr(Stdio::Capture).start((), fill).unwrap();
    let output = process.join_output();
    output.result.unwrap();
    assert_eq!((output.stdout.len(), output.stderr.len()), (16 * MIB, 16 * MIB));
    assert!(output.stdout.iter().all(|byte| *byte == b'o'));
    assert!(output.stderr.iter().all(|byte| *byte == b'e'));
    oracle.nothing_left();
}

#[test]
fn what_is_captured_at_most_ends_there_and_the_writer_is_told() {
    let (oracle, _watchdog) = begin();
    // How much it could write, in pieces that do not fill a page evenly; and why no more.
    let fill = |len: usize| {
        let mut out = File::from(std::io::stdout().as_fd().try_clone_to_owned().unwrap());
        let piece = vec![b'o'; len];
        let mut written = 0;
        loop {
            match out.write(&piece) {
                Ok(some) => written += some,
                Err(error) => return (written, error.raw_os_error().unwrap()),
            }
        }
    };
    for method in [StartMethod::Spawn, StartMethod::Server] {
        for (len, limit, most) in [(1000, 100_000, 102_400), (MIB, 8192, 8192), (1, 1, 4096)] {
            let builder = new().start_method(method).stdout(Stdio::CaptureAtMost(limit));
            let output = builder.start(len, fill).unwrap().join_output();
            let (written, error) = output.result.unwrap();
            assert_eq!(error, nix::libc::EPERM);
            assert_eq!(output.stdout.len(), written);
            assert!(output.stdout.iter().all(|byte| *byte == b'o'));
            assert!(
                written as u64 >= limit.min(most - 1000) && written as u64 <= most,
                "{written}"
            );
        }
    }
    epilogue::end_servers();
    oracle.nothing_left();
}

#[test]
fn what_several_write_that_is_captured_at_most_is_given_back_as_far_as_they_came() {
    let (oracle, _watchdog) = begin();
    let tell = |()| {
        println!("first");
        let _ = Command::new("sh").args(["-c", "echo second; echo third >&2"]).status();
        println!("fourth");
    };
    let at_most = || Stdio::CaptureAtMost(1 << 40);
    let output = new().stdout(at_most()).stderr(at_most()).start((), tell).unwrap().join_output();
    output.result.unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "first\nsecond\nfourth\n");
    assert_eq!(output.stderr, b"third\n");
    let nothing = new().stdout(Stdio::CaptureAtMost(0)).start((), |()| println!("x")).unwrap();
    let output = nothing.join_output();
    assert!(matches!(output.result, Err(JoinError::Panicked(_))), "{:?}", output.result);
    assert_eq!(output.stdout, b"");
    let refused = refused(new().stdout(Stdio::CaptureAtMost(u64::MAX)));
    assert!(matches!(refused, StartError::System { .. }), "{refused:?}");
    oracle.nothing_left();
}

#[test]
fn what_grandchildren_write_is_captured_in_its_place() {
    let (oracle, _watchdog) = begin();
    let write = |()| {
        println!("before");
        let script = "echo out; echo err >&2";
        assert!(Command::new("sh").args(["-c", script]).status().unwrap().success());
        assert_eq!(Process::start((), |()| println!("nested")).unwrap().join().ok(), Some(()));
        println!("after");
    };
    let process = new().stdout(Stdio::Capture).stderr(Stdio::Capture).start((), write).unwrap();
    let output = process.join_output();
    output.result.unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "before\nout\nnested\nafter\n");
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "err\n");
    oracle.nothing_left();
}

#[test]
fn what_was_written_is_given_back_by_a_process_that_failed() {
    let (oracle, _watchdog) = begin();
    let run = |how: u8| {
        eprintln!("before");
        match how {
            0 => panic!("a reason"),
            1 => process::abort(),
            _ => process::exit(3),
        }
    };
    for (how, last) in [(0, "a reason"), (1, "before"), (2, "before")] {
        let output =
            new().limit_core(0).stderr(Stdio::Capture).start(how, run).unwrap().join_output();
        let result: Result<(), JoinError> = output.result;
        result.unwrap_err();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.starts_with("before\n") && text.contains(last), "{text}");
        assert_eq!(output.stdout, b"");
    }
    oracle.nothing_left();
}
