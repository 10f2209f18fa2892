//! Bad input: each is a typed error that says what to do. Nothing is lost, nothing hangs, and the
//! pool goes on.
//!
//! A type that cannot travel by itself has tests of its own, in `portable`.

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::iter;
use std::panic;
use std::process;
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use epilogue::pool::Pool;
use epilogue::process::Side;
use epilogue::process::codec::Problem;
use epilogue::{BuildError, JoinError, Limits, Portable, Process, Refusal, StartError, TaskError};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use support::{Marks, begin, fifo, park_for_ever, procfs};

#[path = "bad_input/sys.rs"]
mod sys;

/// After whatever went wrong, the pool does what it is for, and ends well.
#[track_caller]
fn goes_on(pool: Pool) {
    assert_eq!(pool.map(0..10u64, |x| x + 1).unwrap(), (1..=10).collect::<Vec<_>>());
    let report = pool.close().unwrap();
    assert_eq!(report.broken, None);
}

fn limited(max_bytes: usize) -> Pool {
    let mut limits = Limits::default();
    limits.max_bytes = max_bytes;
    Pool::builder().workers(1).limits(limits).start().unwrap()
}

/// What is wrong with a value, whichever way it was to go, with its cure in the text.
#[track_caller]
fn problem(error: TaskError, expected: Side) -> Problem {
    let text = error.to_string();
    let (side, problem) = match error {
        TaskError::Encode { side, error } => (side, error.problem),
        TaskError::Decode { side, error } => (side, error.problem),
        other => panic!("{other:?}"),
    };
    assert_eq!(side, expected);
    assert!(text.starts_with(&format!("{side} cannot be ")), "{text}");
    assert!(text.contains(problem.hint()), "{text}");
    problem
}

#[test]
fn a_pool_without_workers_is_refused() {
    let (oracle, _watchdog) = begin();
    let error = Pool::new(0).unwrap_err();
    assert!(matches!(error, BuildError::NoWorkers));
    assert_eq!(error.to_string(), "a pool needs at least one worker");
    assert!(matches!(Pool::builder().workers(0).start(), Err(BuildError::NoWorkers)));
    oracle.nothing_left();
}

#[test]
fn a_pool_of_more_workers_than_descriptors_is_refused_before_the_first_starts() {
    let (oracle, _watchdog) = begin();
    let error = Pool::new(usize::MAX).unwrap_err();
    assert!(matches!(error, BuildError::TooManyWorkers { workers: usize::MAX, .. }), "{error}");
    assert!(error.to_string().contains("raise the limit (ulimit -n), or ask for fewer"));
    oracle.nothing_left();
}

#[test]
fn a_time_without_end_is_as_good_as_none() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::builder().workers(1).grace_period(Duration::MAX).start_deadline(Duration::MAX);
    let pool = pool.start().unwrap();
    goes_on(pool);

    let builder = Process::builder().grace_period(Duration::MAX).start_deadline(Duration::MAX);
    let process = builder.clone().start(20u64, |x| x + 1).unwrap();
    assert_eq!(process.join().unwrap(), 21);
    let process = builder.start((), |()| -> u8 { park_for_ever() }).unwrap();
    assert!(process.terminate().unwrap().success());
    oracle.nothing_left();
}

#[test]
fn a_name_may_hold_what_no_argument_can() {
    let (oracle, _watchdog) = begin();
    let names = ["a\0b", "", "\0", "\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}"];
    for name in names {
        goes_on(Pool::builder().workers(1).name(name).start().unwrap());
        let process = Process::builder().name(name).start(20u64, |x| x + 1).unwrap();
        assert_eq!(process.name(), name);
        assert_eq!(process.join().unwrap(), 21);
    }
    oracle.nothing_left();
}

// Iterators.

#[test]
fn an_input_without_an_end_is_refused_before_anything_is_begun() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(1).unwrap();
    let refused = [
        pool.map(0u64.., |x| x).unwrap_err(),
        pool.map(iter::repeat(1), |x| x).unwrap_err(),
        pool.map((0..3).cycle(), |x: u8| x).unwrap_err(),
        pool.try_map(iter::repeat_with(|| 1), |x: u8| Ok::<_, String>(x)).unwrap_err(),
        pool.map_with(&1, 0u64.., |_, x| x).unwrap_err(),
        pool.map_outcomes(0u64.., |x| x).unwrap_err(),
    ];
    for error in refused {
        assert!(matches!(error, TaskError::Refused(Refusal::Endless)), "{error:?}");
        assert!(error.to_string().contains("take(n)"), "{error}");
    }
    assert_eq!(pool.map((0u64..).take(3), |x| x).unwrap(), [0, 1, 2]);
    assert_eq!(pool.map(iter::repeat_n(1, 3), |x| x).unwrap(), [1, 1, 1]);
    let mut number = 0;
    let next = iter::from_fn(|| {
        number += 1;
        Some(number)
    });
    assert_eq!(pool.map(next.take(3), |x| x).unwrap(), [1, 2, 3]);
    assert_eq!(pool.submit((), |()| ()).unwrap().join().unwrap(), ());
    let report = pool.close().unwrap();
    assert_eq!((report.done, report.cancelled), (10, 0));
    drop(pool);
    oracle.nothing_left();
}

/// Panics when it is dropped as a panic's payload.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("in the drop of a payload");
    }
}

struct PanicsInSizeHint;

impl Iterator for PanicsInSizeHint {
    type Item = u8;
    fn next(&mut self) -> Option<u8> {
        Some(1)
    }
    fn size_hint(&self) -> (usize, Option<usize>) {
        panic!("in size_hint");
    }
}

struct PanicsInIntoIter;

impl IntoIterator for PanicsInIntoIter {
    type Item = u8;
    type IntoIter = iter::Empty<u8>;
    fn into_iter(self) -> iter::Empty<u8> {
        panic!("in into_iter");
    }
}

#[test]
fn a_panic_of_the_input_is_an_error_that_tells_its_words() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(1).unwrap();
    let panics = (0..5u64).map(|x| if x == 3 { panic!("in next: {x}") } else { x });
    let strange = (0..5u64).map(|x| if x == 3 { panic::panic_any(Bomb) } else { x });
    let silent: Box<dyn Iterator<Item = u8>> = Box::new(PanicsInSizeHint);
    for (error, message) in [
        (pool.map(panics.clone(), |x| x).unwrap_err(), "in next: 3"),
        (pool.map_outcomes(panics, |x| x).unwrap_err(), "in next: 3"),
        (pool.map(strange, |x| x).unwrap_err(), "(a payload that is not text)"),
        (pool.map(silent, |x| x).unwrap_err(), "in size_hint"),
        (pool.map(PanicsInIntoIter, |x| x).unwrap_err(), "in into_iter"),
    ] {
        let TaskError::Refused(Refusal::InputPanicked { message: told }) = &error else {
            panic!("{error:?}")
        };
        assert_eq!(told, message);
        assert_eq!(error.to_string(), format!("the input iterator panicked: {message}"));
    }
    goes_on(pool);
    oracle.nothing_left();
}

#[test]
fn when_the_input_panics_what_had_begun_has_ended_and_nothing_more_begins() {
    let (oracle, _watchdog) = begin();
    let (marks, pipes) = (Marks::new(), tempfile::tempdir().unwrap());
    let directory = marks.variable().1.to_owned();
    let pool = Pool::new(1).unwrap();
    let (begun, go_on) = (fifo(pipes.path(), "begun"), fifo(pipes.path(), "go on"));
    let items = (0..10).map(|number| {
        if number == 9 {
            // The first is in its middle, and will stay there until after the panic.
            drop(File::open(&begun).unwrap());
            let go_on = go_on.clone();
            let let_go_on = move || drop(File::options().write(true).open(go_on).unwrap());
            thread::Builder::new().name("later".to_owned()).spawn(let_go_on).unwrap();
            panic!("the last");
        }
        (number, directory.clone(), begun.clone(), go_on.clone())
    });
    let error = pool.map(items, |(number, directory, begun, go_on)| {
        let marks = Marks::at(&directory);
        marks.leave("begun");
        if number == 0 {
            drop(File::options().write(true).open(begun).unwrap());
            // To the end: by then nobody has it open any more.
            io::read_to_string(File::open(go_on).unwrap()).unwrap();
        }
        marks.leave("ended");
    });
    assert!(matches!(error, Err(TaskError::Refused(Refusal::InputPanicked { .. }))));
    // Of those that waited, some may have begun before they could be taken back.
    let (begun, ended) = (marks.count("begun"), marks.count("ended"));
    assert!(begun >= 1 && begun == ended, "{begun} had begun, {ended} had ended");
    pool.map([()], |()| ()).unwrap();
    assert_eq!(marks.count("begun"), begun);
    let report = pool.close().unwrap();
    assert_eq!((report.done, report.done + report.cancelled), (begun as u64 + 1, 10), "{report}");
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn an_iterator_that_closes_the_pool_ends_its_own_map() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(1).unwrap();
    let taken = Cell::new(0);
    let items = iter::from_fn(|| {
        taken.set(taken.get() + 1);
        if taken.get() == 3 {
            let report = pool.close().unwrap();
            assert_eq!((report.done, report.cancelled), (2, 0));
        }
        Some(taken.get())
    });
    // One at a time: the second must not wait to be sent together with the third.
    let error = pool.chunk_size(1).map(items, |x| x).unwrap_err();
    assert!(matches!(error, TaskError::Refused(Refusal::Closed)), "{error:?}");
    assert_eq!(taken.get(), 3);
    drop(pool);
    oracle.nothing_left();
}

// Values that cannot be written or read.

/// Does as it is told where it is told, in any of the processes that it passes through.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Told {
    what: What,
    parent: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
enum What {
    Nothing,
    FailToWrite,
    PanicWhileWriting,
    FailToRead,
    PanicWhileReading,
    ExitWhileReading,
    PanicInDrop,
}

impl Told {
    fn new(what: What) -> Self {
        Self { what, parent: process::id() }
    }
}

impl Serialize for Told {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::Error;
        match self.what {
            What::FailToWrite => Err(S::Error::custom("not to be written")),
            What::PanicWhileWriting => panic!("while it is written"),
            what => (what, self.parent).serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Told {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (what, parent) = <(What, u32)>::deserialize(deserializer)?;
        match what {
            What::FailToRead => Err(D::Error::custom("not to be read")),
            What::PanicWhileReading => panic!("while it is read"),
            What::ExitWhileReading if parent != process::id() => process::exit(7),
            what => Ok(Self { what, parent }),
        }
    }
}

/// As `Told`, for values whose end does harm as well.
#[derive(Serialize, Deserialize)]
struct Ends(Told);

impl Drop for Ends {
    fn drop(&mut self) {
        let quiet = self.0.what != What::PanicInDrop || self.0.parent == process::id();
        assert!(quiet || thread::panicking(), "while it is dropped");
    }
}

#[test]
fn an_argument_that_cannot_go_is_given_back_with_the_reason() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(1).unwrap();
    for (what, words) in [
        (What::FailToWrite, "not to be written"),
        (What::PanicWhileWriting, "panicked: while it is written"),
    ] {
        let told = Told::new(what);
        let error = pool.submit(told, |told| told.parent).unwrap_err();
        assert!(matches!(error.reason, Refusal::Encode(_)), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(words) && text.contains("Told"), "{text}");
        assert!(text.ends_with("see `Serialize` and `Deserialize` of the type"), "{text}");
        assert_eq!(error.into_value(), told);

        let error = Process::start(told, |told| told.parent).unwrap_err();
        assert!(matches!(error, StartError::Encode(_)), "{error:?}");
        assert!(error.to_string().contains(words), "{error}");
        for error in [
            pool.map([told], |told| told.parent).unwrap_err(),
            pool.map_with(&told, [1], |told, _: u8| told.parent).unwrap_err(),
        ] {
            assert!(matches!(problem(error, Side::Argument), Problem::Refused(_)));
        }
    }
    goes_on(pool);
    oracle.nothing_left();
}

#[test]
fn an_argument_that_cannot_be_read_is_an_error_and_the_worker_goes_on() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(1).unwrap();
    // A debug build rehearses in the caller; a release build hears of it from the worker.
    for what in [What::FailToRead, What::PanicWhileReading] {
        let outcomes = pool.map_outcomes([What::Nothing, what].map(Told::new), |told| told.what);
        let [good, bad] = outcomes.unwrap().try_into().unwrap();
        assert_eq!(good.unwrap(), What::Nothing);
        match (bad.unwrap_err(), what) {
            (TaskError::Panicked(panic), What::PanicWhileReading) => {
                assert_eq!(panic.message, "while it is read");
            }
            (error, _) => assert!(matches!(problem(error, Side::Argument), Problem::Refused(_))),
        }
    }
    let report = pool.close().unwrap();
    assert!(report.is_clean() && report.workers.len() == 1, "{report}");
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn a_result_that_cannot_come_is_the_error_of_its_task_alone() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(1).unwrap();
    let whats = [
        What::Nothing,
        What::FailToWrite,
        What::PanicWhileWriting,
        What::FailToRead,
        What::PanicWhileReading,
        What::Nothing,
    ];
    let outcomes = pool.map_outcomes(whats, Told::new).unwrap();
    let [first, unwritten, panicked, unread, panicked_here, last] = outcomes.try_into().unwrap();
    assert_eq!([first.unwrap().what, last.unwrap().what], [What::Nothing; 2]);
    let words = |outcome: Result<Told, TaskError>| match problem(outcome.unwrap_err(), Side::Result)
    {
        Problem::Refused(words) => words,
        other => panic!("{other:?}"),
    };
    assert_eq!(words(unwritten), "not to be written");
    let panicked = panicked.unwrap_err().to_string();
    assert!(panicked.starts_with("the task panicked: while it is written (at "), "{panicked}");
    assert_eq!(words(unread), "not to be read");
    assert_eq!(words(panicked_here), "panicked: while it is read");

    let process = Process::start(What::PanicWhileReading, Told::new).unwrap();
    let error = process.join().unwrap_err();
    assert!(matches!(error, JoinError::Decode { side: Side::Result, .. }), "{error:?}");
    let report = pool.close().unwrap();
    assert!(report.is_clean() && report.workers.len() == 1, "{report}");
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn a_value_that_exits_while_it_is_read_is_a_lost_worker_with_its_exit_code() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(1).unwrap();
    let told = [What::Nothing, What::ExitWhileReading, What::Nothing].map(Told::new);
    let outcomes = pool.map_outcomes(told, |told| told.what).unwrap();
    assert_eq!(*outcomes[0].as_ref().unwrap(), What::Nothing);
    assert_eq!(*outcomes[2].as_ref().unwrap(), What::Nothing);
    let Err(TaskError::WorkerLost(lost)) = &outcomes[1] else { panic!("{outcomes:?}") };
    assert_eq!(lost.status.code(), Some(7), "{lost}");
    let error = pool.map_with(&told[1], [1], |_, x: u8| x).unwrap_err();
    assert!(matches!(error, TaskError::WorkerLost(_)), "{error:?}");
    goes_on(pool);
    oracle.nothing_left();
}

#[test]
fn a_panic_in_the_drop_of_a_value_is_the_panic_of_its_task() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(1).unwrap();
    let argument = Ends(Told::new(What::PanicInDrop));
    let result = |parent| Ends(Told { what: What::PanicInDrop, parent });
    for error in [
        pool.map([argument], drop).unwrap_err(),
        pool.map([process::id()], result).map(drop).unwrap_err(),
    ] {
        let TaskError::Panicked(panic) = &error else { panic!("{error:?}") };
        assert_eq!(panic.message, "while it is dropped");
    }
    let state = Ends(Told::new(What::PanicInDrop));
    assert_eq!(pool.map_with(&state, [1, 2], |_, x: u8| x).unwrap(), [1, 2]);
    goes_on(pool);
    oracle.nothing_left();
}

#[test]
fn a_panic_with_any_payload_is_an_error() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(1).unwrap();
    let outcomes = pool.map_outcomes(0..5u8, |x| match x {
        0 => panic::panic_any(17),
        1 => panic::panic_any(Bomb),
        2 => panic::resume_unwind(Box::new("without a place")),
        3 => panic::resume_unwind(Box::new("long ".repeat(100_000))),
        _ => x,
    });
    let messages = outcomes.unwrap().into_iter().map(|outcome| match outcome {
        Err(TaskError::Panicked(panic)) => panic.message,
        other => format!("{other:?}"),
    });
    let messages: Vec<_> = messages.collect();
    assert_eq!(messages[..2], ["(a payload that is not text)"; 2]);
    assert_eq!((messages[2].as_str(), messages[4].as_str()), ("without a place", "Ok(4)"));
    assert!(messages[3].starts_with("long long") && messages[3].len() <= 64 << 10);
    goes_on(pool);
    oracle.nothing_left();
}

#[derive(Default, Serialize, Deserialize)]
struct Point {
    x: u8,
    y: u8,
}

#[derive(Default, Serialize, Deserialize)]
struct Flat {
    #[serde(flatten)]
    point: Point,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Number(u8),
    Text(String),
}

impl Default for Untagged {
    fn default() -> Self {
        Self::Number(1)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Tagged {
    Point(Point),
}

impl Default for Tagged {
    fn default() -> Self {
        Self::Point(Point::default())
    }
}

#[derive(Default, Serialize, Deserialize)]
struct Skipping {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    size: u64,
}

#[derive(Default, Serialize, Deserialize)]
struct HalfKnown {
    #[serde(default, skip_serializing)]
    _cache: u8,
    size: u64,
}

/// Asks the bytes what they hold, as a JSON value does.
#[derive(Default, Serialize)]
struct Anything(u8);

impl<'de> Deserialize<'de> for Anything {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(serde::de::IgnoredAny).map(|_| Self(0))
    }
}

#[test]
fn what_serde_would_lose_is_an_error_either_way_and_the_pool_goes_on() {
    #[track_caller]
    fn refused<T: Portable + Default + 'static>(pool: &Pool) {
        let argument = pool.map([T::default()], |_| ()).unwrap_err();
        let state = pool.map_with(&[T::default()], [1u8], |_, x| x).map(drop).unwrap_err();
        let result = pool.map([()], |()| T::default()).map(drop).unwrap_err();
        for (error, side) in
            [(argument, Side::Argument), (state, Side::Argument), (result, Side::Result)]
        {
            let text = error.to_string();
            let problem = problem(error, side);
            let lossy = matches!(problem, Problem::Lossy { .. } | Problem::Unsupported { .. });
            assert!(lossy, "{text}");
        }
    }
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(1).unwrap();
    refused::<Flat>(&pool);
    refused::<Untagged>(&pool);
    refused::<Tagged>(&pool);
    refused::<Skipping>(&pool);
    refused::<HalfKnown>(&pool);
    refused::<Anything>(&pool);
    let whole = pool.map([1], |size| Skipping { name: Some("kept".to_owned()), size });
    assert_eq!(whole.unwrap()[0].name.as_deref(), Some("kept"));
    let report = pool.close().unwrap();
    assert!(report.is_clean() && report.workers.len() == 1, "{report}");
    drop(pool);
    oracle.nothing_left();
}

// Sizes.

#[test]
fn what_is_over_the_limit_is_refused_either_way_and_says_which_limit() {
    let (oracle, _watchdog) = begin();
    let pool = limited(1000);
    let list = vec![0u8; 1 << 20];
    let argument = pool.map([list.clone()], |list| list.len()).unwrap_err();
    let state = pool.map_with(&list, [1u8], |_, x| x).unwrap_err();
    let result = pool.map([1 << 20], |len: usize| vec![0u8; len]).unwrap_err();
    for (error, side) in
        [(argument, Side::Argument), (state, Side::Argument), (result, Side::Result)]
    {
        assert!(error.to_string().contains("`Limits::max_bytes`"), "{error}");
        assert!(matches!(problem(error, side), Problem::TooLarge { limit: 1000 }));
    }
    let refused = pool.submit(list, |list| list.len()).unwrap_err();
    assert_eq!(refused.into_value().len(), 1 << 20);
    assert_eq!(pool.map([900], |len: usize| vec![0u8; len]).unwrap()[0].len(), 900);
    let report = pool.close().unwrap();
    assert!(report.is_clean() && report.workers.len() == 1, "{report}");
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn an_error_arrives_however_small_the_limit_for_values_is() {
    let (oracle, _watchdog) = begin();
    let pool = limited(16);
    let long = |x: u8| -> u8 {
        panic::resume_unwind(Box::new(format!("{x}{}", " is far too small".repeat(1000))))
    };
    let error = pool.map([1], long).unwrap_err();
    let TaskError::Panicked(panic) = &error else { panic!("{error:?}") };
    assert!(panic.message.starts_with("1 is far too small is far"));
    let error = pool.try_map([1u8], |x| Err::<(), _>("no".repeat(1000 * usize::from(x))));
    assert!(matches!(error, Err(TaskError::Failed(_))), "{error:?}");
    let report = pool.close().unwrap();
    assert!(report.is_clean() && report.workers.len() == 1, "{report}");
    drop(pool);
    oracle.nothing_left();
}

/// Written at once, out of memory that is never touched.
struct Bulk(Vec<u8>);

impl Serialize for Bulk {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bulk {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(text.into_bytes()))
    }
}

#[test]
fn a_reply_of_a_gibibyte_is_an_error_and_costs_the_parent_nothing() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(1).unwrap();
    goes_on(Pool::new(1).unwrap());
    let before = procfs::peak_memory();
    let error = pool.map([1 << 30], |len| Bulk(vec![0; len])).map(drop).unwrap_err();
    assert!(error.to_string().contains("raise `Limits::max_bytes`"), "{error}");
    assert!(matches!(problem(error, Side::Result), Problem::TooLarge { .. }));
    let process = Process::start(1 << 30, |len| Bulk(vec![0; len])).unwrap();
    assert!(matches!(process.join().map(drop), Err(JoinError::Encode(_))));
    let grown = procfs::peak_memory() - before;
    assert!(grown < 16 << 10, "{grown} KiB");
    goes_on(pool);
    oracle.nothing_left();
}

#[test]
fn an_argument_of_three_gibibytes_is_an_error_before_it_is_copied() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(1).unwrap();
    let before = procfs::peak_memory();
    let error = pool.submit(Bulk(vec![0; 3 << 30]), |bulk| bulk.0.len()).unwrap_err();
    assert!(error.to_string().contains("send less at once"), "{error}");
    assert_eq!(error.into_value().0.len(), 3 << 30);
    let grown = procfs::peak_memory() - before;
    assert!(grown < 16 << 10, "{grown} KiB");
    goes_on(pool);
    oracle.nothing_left();
}

#[test]
fn a_worker_that_announces_a_reply_of_a_gibibyte_is_killed_and_nobody_else_is_hurt() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(2).unwrap();
    let before = procfs::peak_memory();
    let outcomes = pool.map_outcomes(0..40u64, |x| {
        if x == 7 {
            sys::write_to_the_wire(&sys::header_of_a_reply(1 << 30));
            park_for_ever();
        }
        x
    });
    let outcomes = outcomes.unwrap();
    let Err(TaskError::WorkerLost(lost)) = &outcomes[7] else { panic!("{:?}", outcomes[7]) };
    assert!(lost.to_string().contains("announced a frame of 1073741824 bytes"), "{lost}");
    let done = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!(done, 39);
    let grown = procfs::peak_memory() - before;
    assert!(grown < 16 << 10, "{grown} KiB");
    goes_on(pool);
    oracle.nothing_left();
}

#[test]
fn a_worker_that_writes_garbage_is_killed_and_nobody_else_is_hurt() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(2).unwrap();
    let outcomes = pool.map_outcomes(0..40u64, |x| {
        if x == 7 {
            sys::write_to_the_wire(&[0x5a; 100]);
            park_for_ever();
        }
        x
    });
    let outcomes = outcomes.unwrap();
    let Err(TaskError::WorkerLost(lost)) = &outcomes[7] else { panic!("{:?}", outcomes[7]) };
    assert!(lost.to_string().contains("not a frame"), "{lost}");
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 39);
    goes_on(pool);
    oracle.nothing_left();
}

#[derive(Default, Serialize, Deserialize)]
struct Nested(Option<Box<Nested>>);

fn nested(depth: u32) -> Nested {
    (0..depth).fold(Nested::default(), |inner, _| Nested(Some(Box::new(inner))))
}

#[test]
fn a_value_that_is_nested_too_deep_is_refused_either_way() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(1).unwrap();
    let argument = pool.map([nested(5000)], |_| ()).unwrap_err();
    let result = pool.map([5000], nested).map(drop).unwrap_err();
    for (error, side) in [(argument, Side::Argument), (result, Side::Result)] {
        assert!(error.to_string().contains("`Limits::max_depth`"), "{error}");
        assert!(matches!(problem(error, side), Problem::TooDeep { .. }));
    }
    let report = pool.close().unwrap();
    assert!(report.is_clean() && report.workers.len() == 1, "{report}");
    drop(pool);
    oracle.nothing_left();
}

// A pool that is closed, or is being closed.

#[test]
fn a_closed_pool_gives_everything_back() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(1).unwrap();
    let report = pool.close().unwrap();
    let error = pool.submit(String::from("kept"), |text| text.len()).unwrap_err();
    assert!(matches!(error.reason, Refusal::Closed));
    assert_eq!(error.to_string(), "the pool is closed: start a new one, or close it later");
    assert_eq!(error.into_value(), "kept");
    let mut taken = 0;
    let items = iter::from_fn(|| {
        taken += 1;
        Some(1)
    });
    let errors = [
        pool.map(items, |x: u8| x).unwrap_err(),
        pool.try_map([1], |x: u8| Ok::<_, String>(x)).unwrap_err(),
        pool.map_with(&1, [1], |_, x: u8| x).unwrap_err(),
        pool.map_outcomes([1], |x: u8| x).unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, TaskError::Refused(Refusal::Closed)), "{error:?}");
    }
    assert_eq!(taken, 0, "not even looked at");
    assert_eq!(pool.terminate().unwrap(), report);
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn a_pool_that_many_threads_close_is_closed_once() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(2).unwrap();
    let tasks: Vec<_> = (0..50u64).map(|x| pool.submit(x, |x| x).unwrap()).collect();
    let reports: Vec<_> = thread::scope(|s| {
        let closers: Vec<_> = (0..6).map(|_| s.spawn(|| pool.close().unwrap())).collect();
        closers.into_iter().map(|closer| closer.join().unwrap()).collect()
    });
    assert_eq!(reports[0].done, 50);
    assert!(reports.iter().all(|report| *report == reports[0]));
    assert!(tasks.into_iter().enumerate().all(|(x, task)| task.join().unwrap() == x as u64));
    drop(pool);
    oracle.nothing_left();
}

/// Every item of a map whose pool is closed by another thread has an outcome that fits.
fn close_in_the_middle(close: fn(&Pool)) {
    let pool = Pool::new(2).unwrap();
    // A map that begins after the close is refused as a whole: all have to be in the middle.
    let middle = Barrier::new(4);
    let counts = thread::scope(|s| {
        let mappers: Vec<_> = (0..3)
            .map(|_| {
                let (pool, middle) = (&pool, &middle);
                s.spawn(move || {
                    let mut last = 0;
                    let items = (0..4000u64).inspect(|&x| {
                        if x == 1000 {
                            middle.wait();
                        }
                        last = x;
                    });
                    let outcomes = match pool.map_outcomes(items, |x| x + 1) {
                        Err(error) => panic!("{error}"),
                        Ok(outcomes) => outcomes,
                    };
                    assert_eq!((outcomes.len(), last), (4000, 3999));
                    let mut counts = [0; 3];
                    for (x, outcome) in outcomes.into_iter().enumerate() {
                        match outcome {
                            Ok(value) => {
                                assert_eq!(value, x as u64 + 1);
                                counts[0] += 1;
                            }
                            Err(TaskError::Cancelled { .. }) => counts[1] += 1,
                            Err(TaskError::Refused(Refusal::Closed)) => counts[2] += 1,
                            Err(other) => panic!("{other:?}"),
                        }
                    }
                    counts
                })
            })
            .collect();
        middle.wait();
        close(&pool);
        mappers.into_iter().map(|mapper| mapper.join().unwrap()).collect::<Vec<_>>()
    });
    let sum = |index: usize| counts.iter().map(|counts| counts[index]).sum::<u64>();
    let report = pool.close().unwrap();
    assert_eq!((sum(0), report.lost), (report.done, 0), "{report}");
    assert_eq!(sum(1), report.cancelled, "{report}");
}

#[test]
fn a_pool_that_is_closed_under_running_maps_gives_every_item_its_outcome() {
    let (oracle, _watchdog) = begin();
    for _ in 0..5 {
        close_in_the_middle(|pool| drop(pool.close().unwrap()));
        close_in_the_middle(|pool| drop(pool.terminate().unwrap()));
    }
    oracle.nothing_left();
}

#[test]
fn a_map_whose_pool_is_closed_meanwhile_says_so() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(1).unwrap();
    let (send, begun) = mpsc::channel();
    let error = thread::scope(|s| {
        let mapper = s.spawn(|| {
            let mut number = 0u64;
            let endless = iter::from_fn(|| {
                number += 1;
                if number == 100 {
                    send.send(()).unwrap();
                }
                Some(number)
            });
            pool.map(endless, |x| x)
        });
        begun.recv().unwrap();
        drop(pool.close().unwrap());
        mapper.join().unwrap().unwrap_err()
    });
    assert!(matches!(error, TaskError::Refused(Refusal::Closed)), "{error:?}");
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn every_waiter_wakes_when_a_pool_is_terminated() {
    let (oracle, _watchdog) = begin();
    for _ in 0..5 {
        let grace_period = Duration::from_millis(200);
        let pool = Pool::builder().workers(1).grace_period(grace_period).start().unwrap();
        let first = pool.submit((), |()| -> u8 { park_for_ever() });
        let mut tasks = vec![first.unwrap()];
        tasks.extend((0..100u8).map(|x| pool.submit(x, |x| x).unwrap()));
        let outcomes: Vec<_> = thread::scope(|s| {
            let waiters: Vec<_> = tasks.into_iter().map(|task| s.spawn(|| task.join())).collect();
            let report = pool.terminate().unwrap();
            assert_eq!(report.cancelled, 101, "{report}");
            waiters.into_iter().map(|waiter| waiter.join().unwrap()).collect()
        });
        for outcome in outcomes {
            assert!(matches!(outcome, Err(TaskError::Cancelled { .. })), "{outcome:?}");
        }
    }
    oracle.nothing_left();
}

// Forks.

#[test]
fn a_task_that_forks_answers_once_and_its_copy_ends() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(1).unwrap();
    let values = pool.map([1, 2], |x| match sys::fork() {
        Some(copy) => {
            // It ends although nobody told it to: it has no answer to give.
            let status = nix::sys::wait::waitpid(copy, None).unwrap();
            (x, format!("{status:?}").contains("Exited"))
        }
        None => (x + 100, true),
    });
    assert_eq!(values.unwrap(), [(1, true), (2, true)]);
    let report = pool.close().unwrap();
    assert!(report.is_clean() && report.done == 2, "{report}");

    let process = Process::start((), |()| match sys::fork() {
        Some(copy) => {
            nix::sys::wait::waitpid(copy, None).unwrap();
            "original".to_owned()
        }
        None => panic!("a panic of the copy is not the original's either"),
    });
    assert_eq!(process.unwrap().join().unwrap(), "original");
    drop(pool);
    oracle.nothing_left();
}

#[derive(Debug, Serialize, Deserialize)]
struct ForksAsItIsDropped(String);

impl Drop for ForksAsItIsDropped {
    fn drop(&mut self) {
        if let Some(copy) = sys::fork() {
            nix::sys::wait::waitpid(copy, None).unwrap();
        }
    }
}

#[test]
fn a_result_that_forks_as_it_is_dropped_is_answered_once_and_its_copy_ends() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(1).unwrap();
    let values = pool.map(0..3, |x: u32| ForksAsItIsDropped(x.to_string())).unwrap();
    assert!(values.iter().map(|value| &*value.0).eq(["0", "1", "2"]));
    // Here nobody ends a copy.
    std::mem::forget(values);
    let report = pool.close().unwrap();
    assert!(report.is_clean() && report.done == 3, "{report}");
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn a_pool_in_a_forked_copy_refuses_everything_and_the_original_goes_on() {
    let (oracle, _watchdog) = begin();
    let mut fork = process::Command::new(env!("CARGO_BIN_EXE_api_fork"));
    let ending = support::Program::start(&mut fork).finish();
    assert_eq!(ending.code(), Some(0), "{ending}");
    for line in [
        "submit: this process is a fork of the one that owns the pool: start a pool here",
        "value back: kept",
        "map: this process is a fork of the one that owns the pool: start a pool here",
        "try_map: this process is a fork of the one that owns the pool: start a pool here",
        "map_with: this process is a fork of the one that owns the pool: start a pool here",
        "map_outcomes: this process is a fork of the one that owns the pool: start a pool here",
        "task: this process is a fork of the one that owns the pool: start a pool here",
        "as completed: [(0, None), (1, Some(5))]",
        "as completed, of the original: this process is a fork of the one that owns the pool: start a pool here",
        "close: this process is a fork of the one that owns the pool, which alone can close it",
        "terminate: this process is a fork of the one that owns the pool, which alone can close it",
        "process: this process is a fork of the one that started the child, which alone can wait",
        "own pool: [2, 4]",
        "iterator: this process is a fork of the one that owns the pool: start a pool here",
        "iterator in the original: 100 items",
        "iterator that ends: this process is a fork of the one that owns the pool: start a pool here",
        "map_shared: this process is a fork of the one that owns the pool: start a pool here",
        "reduction: this process is a fork of the one that owns the pool: start a pool here",
        "reduced in the original: Some(435)",
        "copy ended: Some(0)",
        "original: [1, 2, 3]",
        "task: 42",
        "process: 5",
        "other: 44",
        "completes: Some(46)",
        "clean: true",
    ] {
        assert!(ending.stdout.lines().any(|said| said == line), "{line:?} is missing: {ending}");
    }
    // One that forked as it gave an item, and two as they ended.
    let [whole, ended] = ["in the original: 100 items", "that ends: "]
        .map(|said| ending.stdout.lines().filter(|line| line.contains(said)).count());
    assert_eq!((whole, ended), (3, 2), "{ending}");
    oracle.nothing_left();
}

// Re-entrance.

static CURRENT: Mutex<Option<Arc<Pool>>> = Mutex::new(None);

/// Uses the pool as it is written: in the middle of another call to it.
#[derive(Deserialize)]
struct Written(u64);

impl Serialize for Written {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let pool = CURRENT.lock().unwrap().clone();
        let value = match pool {
            Some(pool) => pool.map([self.0], |x| x + 1).unwrap()[0],
            None => self.0,
        };
        serializer.serialize_newtype_struct("Written", &value)
    }
}

#[test]
fn a_value_may_use_the_pool_while_it_is_written() {
    let (oracle, _watchdog) = begin();
    let pool = Arc::new(Pool::new(1).unwrap());
    *CURRENT.lock().unwrap() = Some(Arc::clone(&pool));
    assert_eq!(pool.map([5, 6].map(Written), |written| written.0).unwrap(), [6, 7]);
    assert_eq!(pool.submit(Written(7), |written| written.0).unwrap().join().unwrap(), 8);
    *CURRENT.lock().unwrap() = None;
    goes_on(Arc::into_inner(pool).unwrap());
    oracle.nothing_left();
}
