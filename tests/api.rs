//! The first API, as a user writes it: what a pool takes, and what comes back.

use std::collections::{BTreeSet, HashMap};
use std::error::Error;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use epilogue::{Pool, Portable, Process, TaskError};
use serde::{Deserialize, Serialize};
use support::{Marks, begin, fifo};

fn wait_for_a_writer(fifo: &Path) {
    File::open(fifo).unwrap().read_to_end(&mut Vec::new()).unwrap();
}

fn let_the_reader_go(fifo: &Path) {
    drop(File::options().write(true).open(fifo).unwrap());
}

#[derive(Serialize, Deserialize)]
struct Config {
    scale: u64,
}

/// Line by line as the issue that asked for this API has it.
#[rustfmt::skip]
fn first_page(paths: Vec<PathBuf>, items: [u64; 3], f: fn(u64) -> u64) -> Result<(), Box<dyn Error>> {
    let config = Config { scale: 3 };

    let pool = Pool::new(4)?;                                   // or Pool::builder().workers(4).name("hash").start()?
    let squares: Vec<u64> = pool.map(0..1000u64, |x| x * x)?;   // ordered; the first TaskError ends it, no task is lost silently
    let sizes = pool.try_map(paths, |p: PathBuf| std::fs::metadata(p).map(|m| m.len()))?;  // E: Into<Box<dyn Error + Send + Sync>>
    let outcomes = pool.map_outcomes(items, f)?;                // Vec<Result<R, TaskError>>: one outcome a task, whatever happens
    let scaled = pool.map_with(&config, items, |config, x| config.scale * x)?;  // state sent once a worker, not once a task
    let task = pool.submit(21u64, |x| x * 2)?;                  // -> Task<u64>
    assert_eq!(task.join()?, 42);
    let report = pool.close()?;                                 // finish, join, and the proof of it: Report

    let child = Process::start(String::from("bob"), |name| format!("hello {name}"))?;
    assert_eq!(child.join()?, "hello bob");                     // dropping joins too
    epilogue::scope(|s| { let a = s.start(1u64, |x| x + 1)?; a.join() })?;   // all joined when scope returns

    let pool = Pool::builder().workers(4).name("hash").start()?;
    drop(pool);

    assert_eq!(squares, (0..1000).map(|x| x * x).collect::<Vec<u64>>());
    assert_eq!(sizes, [5]);
    let outcomes: Vec<Result<u64, TaskError>> = outcomes;
    assert_eq!(outcomes.into_iter().collect::<Result<Vec<_>, _>>()?, [2, 3, 4]);
    assert_eq!(scaled, [3, 6, 9]);
    assert_eq!((report.done, report.workers.len(), report.is_clean()), (1008, 4, true));
    Ok(())
}

#[test]
fn the_first_page_compiles_as_it_is_written_and_is_true() {
    let (oracle, _watchdog) = begin();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("five");
    fs::write(&path, "bytes").unwrap();
    first_page(vec![path], [1, 2, 3], |x| x + 1).unwrap();
    oracle.nothing_left();
}

// Input and order.

#[test]
fn results_are_in_the_order_of_the_items_whichever_is_done_first() {
    let (oracle, _watchdog) = begin();
    let directory = tempfile::tempdir().unwrap();
    let fifo = fifo(directory.path(), "fifo");
    let pool = Pool::new(2).unwrap();
    // The first item waits for the second, so it is done last; and both run at the same time.
    let results = pool.map([(0, fifo.clone()), (1, fifo)], |(number, fifo)| {
        match number {
            0 => wait_for_a_writer(&fifo),
            _ => let_the_reader_go(&fifo),
        }
        (number, process::id())
    });
    let results = results.unwrap();
    assert_eq!([results[0].0, results[1].0], [0, 1]);
    assert_ne!(results[0].1, results[1].1);
    assert!(!results.iter().any(|(_, pid)| *pid == process::id()));
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn any_number_of_items_will_do() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(2).unwrap();
    assert_eq!(pool.map(Vec::<u8>::new(), |x| x).unwrap(), [0; 0]);
    assert_eq!(pool.map(Some(7), |x| x + 1).unwrap(), [8]);
    let many = pool.map(0..100_000u32, |x| x ^ 1).unwrap();
    assert!(many.iter().enumerate().all(|(index, &x)| x == index as u32 ^ 1));
    assert_eq!(many.len(), 100_000);
    assert_eq!(pool.close().unwrap().done, 100_001);
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn an_iterator_is_read_only_a_bounded_way_ahead_of_the_workers() {
    let (oracle, _watchdog) = begin();
    let directory = tempfile::tempdir().unwrap();
    let done = directory.path().join("done");
    File::create(&done).unwrap();
    let pool = Pool::new(2).unwrap();
    let mut furthest = 0;
    let items = (0..3000u64).map(|number| {
        let finished = fs::metadata(&done).unwrap().len();
        furthest = furthest.max(number - finished);
        done.clone()
    });
    let results = pool.chunk_size(1).map(items, |done| {
        File::options().append(true).open(done).unwrap().write_all(b"x").unwrap();
    });
    assert_eq!(results.unwrap().len(), 3000);
    assert!(furthest <= 2 * 130, "{furthest} items were taken that no worker was ready for");
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn an_iterator_without_an_end_ends_with_the_first_error() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(2).unwrap();
    let mut number = 0u64;
    let endless = std::iter::from_fn(|| {
        number += 1;
        Some(number)
    });
    let result = pool.try_map(endless, |x| match x {
        1000 => Err("far enough"),
        _ => Ok(()),
    });
    assert_eq!(result.unwrap_err().to_string(), "far enough");
    // How far it was taken depends on how long the worker with the error was kept from its CPU.
    assert!(number >= 1000, "{number} items were taken");
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn an_iterator_may_use_the_pool_itself() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(2).unwrap();
    let items = (0..300u64).map(|x| pool.submit(x, |x| x + 1).unwrap().join().unwrap());
    let results = pool.map(items, |x| x * 10).unwrap();
    assert_eq!(results, (1..=300).map(|x| x * 10).collect::<Vec<_>>());
    let nested = (0..3u64).flat_map(|n| pool.map(0..n, |x| x).unwrap());
    assert_eq!(pool.map(nested, |x| x).unwrap(), [0, 0, 1]);
    drop(pool);
    oracle.nothing_left();
}

// Values.

fn echo<T: Portable + Clone + PartialEq + fmt::Debug>(pool: &Pool, values: &[T]) {
    assert_eq!(pool.map(values.to_vec(), |value| value).unwrap(), values);
    for value in values {
        assert_eq!(pool.submit(value.clone(), identity).unwrap().join().unwrap(), *value);
    }
}

fn identity<T>(value: T) -> T {
    value
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Named {
    id: u64,
    text: String,
    inner: Option<Box<Named>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Shape {
    Nothing,
    Circle(f64),
    Line((i32, i32), (i32, i32)),
    Text { at: (i8, i8), text: String },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Id(u32);

impl Id {
    fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Generic<K: std::hash::Hash + Eq, V> {
    map: HashMap<K, Vec<V>>,
}

#[test]
fn plain_values_of_all_kinds_come_back_as_they_went() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(1).unwrap();
    echo(&pool, &[(), ()]);
    echo(&pool, &[true, false]);
    echo(&pool, &[u128::MAX, 0, 1 << 64]);
    echo(&pool, &[i128::MIN, -1]);
    echo(&pool, &[i64::MIN, i64::MAX]);
    echo(&pool, &[f64::MAX, f64::NEG_INFINITY, -0.0]);
    echo(&pool, &['a', '\u{10ffff}', '\0']);
    echo(&pool, &["", "text", "Zoë \u{1f600}"].map(String::from));
    echo(&pool, &[Some(Some(1)), Some(None), None]);
    echo(&pool, &[Ok(1u8), Err(String::from("no"))]);
    echo(&pool, &[vec![vec![vec![1u8], vec![]], vec![]], vec![]]);
    echo(&pool, &[(1u8, "two".to_owned(), [3.0f32; 3], Some('4'), ((5i8, 6u16), ()))]);
    echo(&pool, &[PathBuf::from("/a/b"), PathBuf::new()]);
    echo(&pool, &[Duration::from_nanos(1), Duration::MAX]);
    echo(&pool, &[std::time::SystemTime::UNIX_EPOCH]);
    echo(&pool, &[BTreeSet::from([3, 1, 2])]);
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn own_types_of_all_kinds_come_back_as_they_went() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(1).unwrap();
    let leaf = Named { id: u64::MAX, text: "leaf".to_owned(), inner: None };
    echo(&pool, &[Named { id: 0, text: String::new(), inner: Some(Box::new(leaf)) }]);
    let text = Shape::Text { at: (-1, 1), text: "here".to_owned() };
    echo(&pool, &[Shape::Nothing, Shape::Circle(0.5), Shape::Line((1, 2), (3, -4)), text]);
    let map = HashMap::from([(Id(1), vec![Shape::Nothing]), (Id(2), vec![])]);
    echo(&pool, &[Generic { map }]);
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn functions_of_all_kinds_can_be_called() {
    fn double(x: u32) -> u32 {
        x * 2
    }
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(1).unwrap();
    assert_eq!(pool.map([1, 2], double).unwrap(), [2, 4]);
    assert_eq!(pool.map([Id(1)], Id::next).unwrap(), [Id(2)]);
    assert_eq!(pool.map([String::from("1")], identity::<String>).unwrap(), ["1"]);
    assert_eq!(pool.map(["a", "bb"].map(String::from), |s| s.len()).unwrap(), [1, 2]);
    assert_eq!(pool.map([(2, 0.5), (3, 2.0)], |(i, f)| f64::from(i) * f).unwrap(), [1.0, 6.0]);
    assert_eq!(pool.map([-4i64], i64::abs).unwrap(), [4]);
    // A constant is no capture, and a closure may hold others.
    const FACTOR: u8 = 3;
    let lists = pool.map([1u8, 2], |x| (0..FACTOR).map(|i| i * x).collect::<Vec<_>>());
    assert_eq!(lists.unwrap(), [[0, 1, 2], [0, 2, 4]]);
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn a_value_of_64_mib_goes_there_and_comes_back() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(1).unwrap();
    let text = "x".repeat(64 << 20);
    let there_and_back = pool.map([text.clone()], |mut text| {
        text.push('y');
        text
    });
    let back = &there_and_back.unwrap()[0];
    assert!(back.len() == (64 << 20) + 1 && back.starts_with(&text) && back.ends_with('y'));
    assert_eq!(Process::start(text, |text| text.len()).unwrap().join().unwrap(), 64 << 20);
    drop(pool);
    oracle.nothing_left();
}

// Errors of the user's function.

#[derive(Debug)]
struct Outer(Inner);

#[derive(Debug)]
struct Inner;

impl fmt::Display for Outer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the outer error")
    }
}

impl fmt::Display for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the inner error")
    }
}

impl Error for Outer {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

impl Error for Inner {}

#[test]
fn try_map_takes_any_error_and_keeps_its_words_and_its_sources() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(2).unwrap();
    let texts = ["1", "x", "3"].map(String::from);
    let parsed = pool.try_map(texts.clone(), |text| text.parse::<u32>());
    assert_eq!(parsed.unwrap_err().to_string(), "invalid digit found in string");
    assert_eq!(pool.try_map(["1".to_owned()], |text| text.parse::<u32>()).unwrap(), [1]);

    let read = pool.try_map(["/no/such/file"].map(PathBuf::from), fs::read_to_string);
    assert_eq!(read.unwrap_err().to_string(), "No such file or directory (os error 2)");

    let boxed = pool.try_map(texts, |text| -> Result<u32, Box<dyn Error + Send + Sync>> {
        if text.is_empty() {
            Err("no text")?
        }
        Ok(text.parse()?)
    });
    assert!(matches!(&boxed, Err(TaskError::Failed(_))), "{boxed:?}");

    let owned = pool.try_map([1], |x| Err::<(), _>(format!("no {x}")));
    assert_eq!(owned.unwrap_err().to_string(), "no 1");

    let custom = pool.try_map([()], |()| Err::<(), _>(Outer(Inner))).unwrap_err();
    let TaskError::Failed(failure) = custom else { panic!("{custom:?}") };
    assert_eq!(failure.to_string(), "the outer error");
    assert_eq!(failure.source().unwrap().to_string(), "the inner error");
    assert!(failure.source().unwrap().source().is_none());

    let unclean = pool.close().unwrap();
    assert!(unclean.is_clean(), "an error that a task returns is not a worker's: {unclean}");
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn two_errors_of_a_mebibyte_each_lose_nothing() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(2).unwrap();
    let error = pool.try_map([1u8, 2], |x| Err::<(), _>(format!("{x}").repeat(1 << 20)));
    let error = error.unwrap_err();
    assert!(matches!(error, TaskError::Failed(_)), "{}", &error.to_string()[..200]);
    // The second may fail before the first has begun, which then never does.
    assert!(["1111", "2222"].iter().any(|begin| error.to_string().starts_with(begin)));
    assert_eq!(pool.map([1], |x| x).unwrap(), [1]);
    assert!(pool.close().unwrap().is_clean());
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn a_panic_tells_its_words_and_its_place() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(1).unwrap();
    let line = line!() + 2;
    let error = pool.map([3], |x: u8| {
        assert!(x > 3, "{x} is not enough");
    });
    let error = error.unwrap_err();
    let TaskError::Panicked(panic) = &error else { panic!("{error:?}") };
    assert_eq!(panic.message, "3 is not enough");
    let place = format!("{}:{line}:", file!());
    let location = panic.location.as_deref().unwrap();
    assert!(location.starts_with(&place), "{location}");
    assert_eq!(error.to_string(), format!("the task panicked: 3 is not enough (at {location})"),);
    let pid = pool.submit((), |()| process::id()).unwrap().join().unwrap();
    let report = pool.close().unwrap();
    assert_eq!((report.workers.len(), report.workers[0].pid), (1, pid), "its worker lives on");
    assert!(report.is_clean(), "{report}");
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn the_error_of_a_map_is_that_of_the_first_item_that_had_one() {
    let (oracle, _watchdog) = begin();
    let directory = tempfile::tempdir().unwrap();
    let fifo = fifo(directory.path(), "fifo");
    let pool = Pool::new(2).unwrap();
    // The second fails first.
    let result = pool.try_map([(0, fifo.clone()), (1, fifo)], |(number, fifo)| {
        match number {
            0 => wait_for_a_writer(&fifo),
            _ => let_the_reader_go(&fifo),
        }
        Err::<(), _>(format!("item {number}"))
    });
    assert_eq!(result.unwrap_err().to_string(), "item 0");
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn a_map_that_failed_begins_nothing_more() {
    let (oracle, _watchdog) = begin();
    let marks = Marks::new();
    let directory = marks.variable().1.to_owned();
    let pool = Pool::new(1).unwrap();
    let mut taken = 0;
    let items = (0..1000).map(|number| {
        taken += 1;
        if number == 1 {
            // One worker takes its tasks in order: now the first has failed, and it is known.
            pool.submit((), |()| ()).unwrap().join().unwrap();
        }
        (number, directory.clone())
    });
    // One at a time: of several that go together, all are taken before the first is sent.
    let result = pool.chunk_size(1).map(items, |(number, directory)| {
        Marks::at(&directory).leave("begun");
        assert_ne!(number, 0, "the first fails");
    });
    assert!(matches!(result, Err(TaskError::Panicked(_))), "{result:?}");
    // The pool is usable, and its only worker takes what was submitted in order: had it still
    // anything of the map, that would have happened before this.
    pool.submit((), |()| ()).unwrap().join().unwrap();
    let begun = marks.count("begun");
    assert!(begun <= 2 && taken <= 2, "{begun} were begun, {taken} were taken");
    let report = pool.close().unwrap();
    // One more for each: the probe of the second, and the last.
    assert_eq!(report.done + report.cancelled, taken * 2, "{report}");
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn every_item_has_its_own_outcome_where_that_is_asked() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(2).unwrap();
    let outcomes = pool.map_outcomes(0..6u32, |x| match x {
        1 => panic!("one"),
        2 => process::exit(3),
        3 => process::exit(0),
        4 => process::abort(),
        _ => x,
    });
    let outcomes = outcomes.unwrap();
    assert_eq!(outcomes.len(), 6);
    assert_eq!(*outcomes[0].as_ref().unwrap(), 0);
    assert_eq!(*outcomes[5].as_ref().unwrap(), 5);
    for (item, cause) in [
        (1, "panicked: one"),
        (2, "exited with code 3"),
        (3, "exited with code 0"),
        (4, "killed by SIGABRT"),
    ] {
        let text = outcomes[item].as_ref().unwrap_err().to_string();
        assert!(text.contains(cause), "{text}");
    }
    let report = pool.close().unwrap();
    assert_eq!((report.done, report.lost, report.cancelled), (3, 3, 0), "{report}");
    drop(pool);
    oracle.nothing_left();
}

// State.

static DECODED: AtomicUsize = AtomicUsize::new(0);
static DROPPED: AtomicUsize = AtomicUsize::new(0);

#[derive(Serialize)]
struct Counted(u64);

impl<'de> Deserialize<'de> for Counted {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        DECODED.fetch_add(1, Ordering::Relaxed);
        u64::deserialize(deserializer).map(Self)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        DROPPED.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_state_is_read_once_by_a_worker_and_dropped_when_the_map_is_over() {
    let (oracle, _watchdog) = begin();
    let directory = tempfile::tempdir().unwrap();
    let fifo = fifo(directory.path(), "fifo");
    let pool = Pool::new(2).unwrap();
    // The first two wait for each other, so that both workers take part.
    let items = (0..500u64).map(|number| (number, fifo.clone()));
    let results = pool.map_with(&Counted(3), items, |state, (number, fifo)| {
        match number {
            0 => wait_for_a_writer(&fifo),
            1 => let_the_reader_go(&fifo),
            _ => {}
        }
        let (decoded, dropped) = (&DECODED, &DROPPED);
        let counts = (decoded.load(Ordering::Relaxed), dropped.load(Ordering::Relaxed));
        (state.0 * number, counts, process::id())
    });
    let results = results.unwrap();
    let values: Vec<_> = results.iter().map(|(value, ..)| *value).collect();
    assert_eq!(values, (0..500).map(|number| number * 3).collect::<Vec<u64>>());
    assert!(results.iter().all(|(_, counts, _)| *counts == (1, 0)));
    assert_eq!(results.iter().map(|(.., pid)| pid).collect::<BTreeSet<_>>().len(), 2);
    drop(pool);

    let pool = Pool::new(1).unwrap();
    for round in 1..=3 {
        let failed = pool.map_with(&Counted(3), [1, 2], |_, x| assert_ne!(x, 1));
        assert!(failed.is_err());
        // The worker takes this after what it was told when the map was over.
        let task = pool
            .submit((), |()| (DECODED.load(Ordering::Relaxed), DROPPED.load(Ordering::Relaxed)));
        assert_eq!(task.unwrap().join().unwrap(), (round, round));
    }
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn maps_of_several_threads_do_not_mix_their_states() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(2).unwrap();
    thread::scope(|s| {
        for thread in 0..4u64 {
            let pool = &pool;
            s.spawn(move || {
                for round in 0..5 {
                    let state = (thread, vec![round; 100]);
                    let results = pool.map_with(&state, 0..100u64, |(thread, list), x| {
                        (*thread, list[x as usize], x)
                    });
                    let expected = (0..100).map(|x| (thread, round, x));
                    assert_eq!(results.unwrap(), expected.collect::<Vec<_>>());
                }
            });
        }
    });
    assert_eq!(pool.close().unwrap().done, 4 * 5 * 100);
    drop(pool);
    oracle.nothing_left();
}

// Tasks.

#[test]
fn tasks_can_be_submitted_by_many_threads_and_joined_in_any_order() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(2).unwrap();
    let (send, tasks) = std::sync::mpsc::channel();
    thread::scope(|s| {
        for thread in 0..8u64 {
            let (pool, send) = (&pool, send.clone());
            s.spawn(move || {
                for number in 0..50u64 {
                    let number = thread * 50 + number;
                    send.send((number, pool.submit(number, |x| x + 1).unwrap())).unwrap();
                }
            });
        }
    });
    drop(send);
    // Joined from the last to the first, by another thread; one in ten is thrown away.
    let tasks: Vec<_> = tasks.into_iter().collect();
    let joined = thread::spawn(move || {
        let kept = tasks.into_iter().rev().filter(|(number, _)| number % 10 != 0);
        kept.map(|(number, task)| assert_eq!(task.join().unwrap(), number + 1)).count()
    });
    assert_eq!(joined.join().unwrap(), 360);
    let report = pool.close().unwrap();
    assert_eq!((report.done, report.cancelled), (400, 0), "one without a handle is done as well");
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn a_task_outlives_its_pool_and_has_its_value() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(1).unwrap();
    let tasks: Vec<_> = (0..20u64).map(|x| pool.submit(x, |x| x * x).unwrap()).collect();
    drop(pool);
    oracle.nothing_left();
    assert!(tasks.iter().all(|task| task.is_finished()));
    let values: Result<Vec<_>, _> = tasks.into_iter().map(|task| task.join()).collect();
    assert_eq!(values.unwrap(), (0..20).map(|x| x * x).collect::<Vec<_>>());
}

#[test]
fn a_worker_may_have_a_pool_of_its_own() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(2).unwrap();
    let sums = pool.try_map([3u64, 4], |n| -> Result<u64, Box<dyn Error + Send + Sync>> {
        let inner = Pool::new(2)?;
        let squares = inner.map(0..n, |x| x * x)?;
        assert!(inner.close()?.is_clean());
        Ok(squares.iter().sum())
    });
    assert_eq!(sums.unwrap(), [5, 14]);
    drop(pool);
    oracle.nothing_left();
}

// The report.

#[test]
fn a_report_counts_every_task_and_names_every_worker() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::builder().workers(2).name("hash").start().unwrap();
    let _ = pool.map_outcomes(0..10, |x: u32| match x {
        3 => process::abort(),
        4 => panic!("four"),
        _ => x,
    });
    let report = pool.close().unwrap();
    assert_eq!(report.name, "hash");
    assert_eq!((report.done, report.lost, report.cancelled), (9, 1, 0), "{report}");
    assert_eq!((report.omitted, &report.broken), (0, &None));
    assert!(!report.is_clean());
    assert_eq!(report.workers.iter().map(|worker| worker.done).sum::<u64>(), 9);
    let lost: Vec<_> = report.workers.iter().filter(|worker| worker.lost > 0).collect();
    assert_eq!((lost.len(), lost[0].end.status.signal()), (1, Some(6)));
    for worker in report.workers.iter().filter(|worker| worker.lost == 0) {
        assert!(worker.end.success(), "{worker}");
        assert!(worker.end.finalizers.is_some(), "{worker}");
    }

    let text = report.to_string();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("pool hash: 9 tasks done, 1 lost, 0 cancelled"));
    assert_eq!(lines.clone().count(), report.workers.len());
    for (line, worker) in lines.zip(&report.workers) {
        let begin = format!("  {} (pid {}): ", worker.name, worker.pid);
        assert!(line.starts_with(&begin) && worker.name.starts_with("hash-"), "{line}");
        let status = if worker.lost > 0 { "killed by SIGABRT" } else { "exited with code 0" };
        assert!(line.contains(status), "{line}");
        assert!(line.contains(&format!("{} tasks done", worker.done)), "{line}");
        assert_eq!(line.contains(", 1 lost"), worker.lost > 0, "{line}");
    }
    assert_eq!(pool.close().unwrap(), report, "closing again proves the same");
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn an_error_of_any_kind_goes_through_a_question_mark() {
    fn run(workers: usize) -> Result<u64, Box<dyn Error>> {
        let pool = Pool::new(workers)?;
        let sum = pool.map(0..4u64, |x| x)?.into_iter().sum::<u64>();
        let more = pool.submit(sum, |x| x + 1)?.join()?;
        fs::read_to_string("/no/such/file").or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(String::new()),
            _ => Err(error),
        })?;
        assert!(pool.close()?.is_clean());
        Ok(more)
    }
    let (oracle, _watchdog) = begin();
    assert_eq!(run(1).unwrap(), 7);
    assert!(run(0).is_err());
    oracle.nothing_left();
}
