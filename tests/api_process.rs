//! One function in a process of its own, and scopes: what is started has ended when they say so.

use std::fs::File;
use std::io::Read;
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::process;
use std::time::Duration;

use epilogue::{JoinError, Process, Rung};
use nix::sys::stat::Mode;
use support::{Marks, Oracle, Watchdog, park_for_ever};

fn begin() -> (Oracle, Watchdog) {
    (Oracle::begin(), Watchdog::start(Duration::from_secs(60)))
}

/// What a child does that proves that somebody waited for it: it leaves its mark at the end, and
/// the end comes only when the test has gone on.
fn linger((directory, fifo): (PathBuf, PathBuf)) {
    File::open(fifo).unwrap().read_to_end(&mut Vec::new()).unwrap();
    Marks::at(&directory).leave("end");
}

struct Story {
    marks: Marks,
    fifos: tempfile::TempDir,
}

impl Story {
    fn new() -> Self {
        Self { marks: Marks::new(), fifos: tempfile::tempdir().unwrap() }
    }

    /// The argument of a child that lingers until this thread has let it go on.
    fn child(&self, name: &str) -> (PathBuf, PathBuf) {
        let fifo = self.fifos.path().join(name);
        nix::unistd::mkfifo(&fifo, Mode::S_IRWXU).unwrap();
        (self.marks.variable().1.to_owned(), fifo)
    }

    /// Lets a child go on some time from now, which is a time that nobody knows.
    fn let_go_later(&self, name: &str) {
        let fifo = self.fifos.path().join(name);
        let open = move || drop(File::options().write(true).open(fifo).unwrap());
        std::thread::Builder::new().name("later".to_owned()).spawn(open).unwrap();
    }

    fn ended(&self) -> usize {
        self.marks.count("end")
    }
}

#[test]
fn a_process_gives_what_its_function_returned() {
    let (oracle, _watchdog) = begin();
    let process = Process::start((2u8, String::from("x")), |(n, s)| s.repeat(n.into())).unwrap();
    let pid = process.id();
    assert_ne!(pid, process::id());
    assert_eq!(process.join().unwrap(), "xx");
    let process = Process::start((), |()| process::id()).unwrap();
    let pid = process.id();
    assert_eq!(process.join().unwrap(), pid);
    let named = Process::<()>::builder().name("adder").start((1, 2), |(a, b)| a + b).unwrap();
    assert_eq!(named.name(), "adder");
    assert_eq!(named.join().unwrap(), 3);
    oracle.nothing_left();
}

#[test]
fn a_process_that_returns_nothing_says_why() {
    let (oracle, _watchdog) = begin();
    let line = line!() + 1;
    let panicked = Process::start(7, |x: u8| -> u8 { panic!("no {x}") }).unwrap().join();
    let Err(JoinError::Panicked(panic)) = &panicked else { panic!("{panicked:?}") };
    assert_eq!(panic.message, "no 7");
    assert!(panic.location.as_ref().unwrap().starts_with(&format!("{}:{line}:", file!())));
    assert!(panicked.unwrap_err().to_string().starts_with("the process panicked: no 7 (at "));

    for code in [0, 3] {
        let exited = Process::start(code, |code| -> u8 { process::exit(code) }).unwrap().join();
        assert!(matches!(exited, Err(JoinError::Exited(c)) if c == code), "{exited:?}");
    }
    let aborted = Process::start((), |()| -> u8 { process::abort() }).unwrap().join();
    assert!(matches!(aborted, Err(JoinError::Signaled { signal: 6, .. })), "{aborted:?}");
    assert!(aborted.unwrap_err().to_string().contains("SIGABRT"));
    oracle.nothing_left();
}

#[test]
fn dropping_a_process_waits_for_it() {
    let (oracle, _watchdog) = begin();
    let story = Story::new();
    let process = Process::start(story.child("a"), linger).unwrap();
    story.let_go_later("a");
    drop(process);
    assert_eq!(story.ended(), 1);
    oracle.nothing_left();
}

#[test]
fn a_process_that_is_terminated_ends_without_a_kill() {
    let (oracle, _watchdog) = begin();
    let process = Process::start((), |()| -> u8 { park_for_ever() }).unwrap();
    let end = process.terminate().unwrap();
    assert!(end.rung <= Rung::Signal, "{end:?}");
    assert!(end.finalizers.is_some(), "{end:?}");
    oracle.nothing_left();
}

#[test]
fn a_panic_stops_a_process_instead_of_waiting_for_ever() {
    let (oracle, _watchdog) = begin();
    let unwound = panic::catch_unwind(|| {
        let _process = Process::start((), |()| -> u8 { park_for_ever() }).unwrap();
        panic!("in the parent");
    });
    assert_eq!(*unwound.unwrap_err().downcast::<&str>().unwrap(), "in the parent");
    oracle.nothing_left();
}

// Scopes.

#[test]
fn a_scope_joins_what_was_not_joined_in_it() {
    let (oracle, _watchdog) = begin();
    let story = Story::new();
    let joined = epilogue::scope(|s| {
        let joined = s.start(1u64, |x| x + 1)?;
        let kept = s.start(story.child("kept"), linger)?;
        let leaked = s.start(story.child("leaked"), linger)?;
        let _dropped = s.start(story.child("dropped"), linger)?;
        std::mem::forget(leaked);
        ["kept", "leaked", "dropped"].iter().for_each(|name| story.let_go_later(name));
        let _unused = kept;
        joined.join()
    });
    assert_eq!(joined.unwrap(), 2);
    assert_eq!(story.ended(), 3);
    oracle.nothing_left();
}

#[test]
fn a_scope_that_is_left_early_joins_too() {
    fn early(story: &Story) -> Result<u64, JoinError> {
        epilogue::scope(|s| {
            let other = s.start(story.child("other"), linger)?;
            std::mem::forget(other);
            story.let_go_later("other");
            let failed = s.start((), |()| -> u64 { panic!("early") })?;
            let value = failed.join()?;
            panic!("{value} is not a value");
        })
    }
    let (oracle, _watchdog) = begin();
    let story = Story::new();
    assert!(matches!(early(&story), Err(JoinError::Panicked(_))));
    assert_eq!(story.ended(), 1);
    oracle.nothing_left();
}

#[test]
fn a_scope_that_panics_stops_all_that_was_started_in_it() {
    let (oracle, _watchdog) = begin();
    let unwound = panic::catch_unwind(AssertUnwindSafe(|| {
        epilogue::scope(|s| {
            std::mem::forget(s.start((), |()| -> u8 { park_for_ever() }).unwrap());
            let _held = s.start((), |()| -> u8 { park_for_ever() }).unwrap();
            panic!("out of the scope");
        })
    }));
    assert_eq!(*unwound.unwrap_err().downcast::<&str>().unwrap(), "out of the scope");
    oracle.nothing_left();
}

#[test]
fn a_scope_lends_what_is_outside_and_can_be_used_by_threads() {
    let (oracle, _watchdog) = begin();
    let names = ["a", "b", "c"].map(String::from);
    let lengths = epilogue::scope(|s| {
        std::thread::scope(|threads| {
            let all = names.each_ref().map(|name| {
                threads.spawn(move || s.start(name.clone(), |name| name.len())?.join())
            });
            all.map(|thread| thread.join().unwrap().unwrap())
        })
    });
    assert_eq!(lengths, [1, 1, 1]);
    assert_eq!(epilogue::scope(|_| 5), 5);
    oracle.nothing_left();
}

#[test]
fn scopes_nest_also_in_a_child() {
    fn tree(depth: u32) -> u32 {
        match depth {
            0 => 1,
            _ => epilogue::scope(|s| {
                let (a, b) = (s.start(depth - 1, tree)?, s.start(depth - 1, tree)?);
                Ok::<_, JoinError>(a.join()? + b.join()?)
            })
            .unwrap(),
        }
    }
    let (oracle, _watchdog) = begin();
    assert_eq!(tree(3), 8);
    oracle.nothing_left();
}
