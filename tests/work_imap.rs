//! Lazy maps take what they need and no more, give every outcome, and can be dropped at any moment.

use std::cell::Cell;
use std::ffi::CStr;
use std::fs::File;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process;
use std::thread;
use std::time::Duration;

use epilogue::{Pool, Refusal, TaskError};
use support::{Gate, begin, through};

#[test]
fn outcomes_come_in_the_order_of_the_items_or_as_a_permutation_of_it() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(2).unwrap();
    for chunk in [0, 1, 16] {
        let maps = pool.chunk_size(chunk);
        let ordered = maps.imap(0..5000u64, |x| x * 2).collect::<Result<Vec<_>, _>>().unwrap();
        assert_eq!(ordered, (0..5000).map(|x| x * 2).collect::<Vec<_>>());
        let unordered = maps.imap_unordered(0..5000u64, |x| x * 2);
        let mut unordered = unordered.collect::<Result<Vec<_>, _>>().unwrap();
        unordered.sort();
        assert_eq!(unordered, ordered);
    }
    assert!(pool.imap(0..0u8, |x| x).next().is_none());
    assert!(pool.chunk_size(1).imap_unordered(0..0u8, |x| x).next().is_none());
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn an_outcome_does_not_wait_for_that_of_an_item_before_it_if_no_order_is_asked_for() {
    let (oracle, _watchdog) = begin();
    let gate = Gate::new();
    let pool = Pool::new(2).unwrap();
    let pass = |(gate, n): (PathBuf, u64)| {
        if n == 0 {
            Gate::pass(&gate);
        }
        n
    };
    let path = gate.path();
    let mut outcomes = pool.imap_unordered((0..100).map(|n| (path.clone(), n)), pass);
    let others: Vec<_> = outcomes.by_ref().take(99).map(Result::unwrap).collect();
    assert!(!others.contains(&0));
    drop(gate);
    assert_eq!(outcomes.next().unwrap().unwrap(), 0);
    assert!(outcomes.next().is_none());
    drop(outcomes);
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn nothing_is_taken_before_it_is_needed_and_never_more_than_is_allowed() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(2).unwrap();
    for ahead in [1, 3, 100] {
        let (taken, given) = (Cell::new(0usize), Cell::new(0usize));
        let most = Cell::new(0);
        let items = (0u64..).inspect(|_| {
            taken.set(taken.get() + 1);
            most.set(most.get().max(taken.get() - given.get()));
        });
        let mut outcomes = pool.imap(items, |x| x + 1).ahead(ahead);
        assert_eq!(taken.get(), 0, "nothing was asked for");
        for n in 0..3000 {
            assert_eq!(outcomes.next().unwrap().unwrap(), n + 1);
            given.set(given.get() + 1);
        }
        // The one that was asked for was not given when the next was taken.
        assert_eq!(most.get(), ahead, "so many items were taken ahead");
    }
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn an_endless_input_is_bounded_if_nothing_is_said() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(2).unwrap();
    let taken = Cell::new(0);
    let items = (0u64..).inspect(|_| taken.set(taken.get() + 1));
    let mut outcomes = pool.imap_unordered(items, |x| x);
    for given in 0..10_000 {
        outcomes.next().unwrap().unwrap();
        assert!(taken.get() <= given + 1024);
    }
    drop(outcomes);
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn the_bytes_ahead_are_bounded_those_of_items_and_those_of_outcomes() {
    const MIB: usize = 1 << 20;
    const LONG: usize = 16 << 10;
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(2).unwrap();
    // Long items, of which a worker would be sent many ahead.
    let done = tempfile::NamedTempFile::new().unwrap();
    let (path, mut most) = (done.path().to_owned(), 0);
    let items = (0..300u64).map(|n| {
        let finished = done.as_file().metadata().unwrap().len();
        most = most.max(n + 1 - finished);
        let mut bytes = path.as_os_str().as_bytes().to_vec();
        bytes.resize(LONG, 0);
        bytes
    });
    let length = |bytes: Vec<u8>| {
        let path = CStr::from_bytes_until_nul(&bytes).unwrap().to_str().unwrap();
        File::options().append(true).open(path).unwrap().write_all(b"x").unwrap();
        bytes.len()
    };
    let lengths = pool.imap(items, length).ahead_bytes(4 * LONG);
    assert_eq!(lengths.map(Result::unwrap).collect::<Vec<_>>(), [LONG; 300]);
    drop(done);
    assert!(most <= 5, "{most} items were ahead");
    // Long outcomes: until the first has come, nobody knows how long.
    let (taken, mut most) = (Cell::new(0), 0);
    let items = (0..40u8).inspect(|_| taken.set(taken.get() + 1));
    let outcomes = pool.imap(items, |n| vec![n; MIB]).ahead_bytes(4 * MIB);
    for (given, outcome) in outcomes.enumerate() {
        assert_eq!(outcome.unwrap(), vec![given as u8; MIB]);
        // The workers are ahead of whoever takes its time.
        thread::sleep(Duration::from_millis(3));
        most = most.max(taken.get() - given);
    }
    assert!(most <= 6, "{most} MiB of outcomes were ahead");
    // One is let through, whatever the bound.
    let outcomes = pool.imap_unordered(0..10u8, |n| vec![n; MIB]).ahead_bytes(0);
    assert_eq!(outcomes.map(|outcome| outcome.unwrap().len()).sum::<usize>(), 10 * MIB);
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn an_iterator_that_is_dropped_half_way_begins_nothing_more_and_holds_up_nobody() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(2).unwrap();
    for ahead in [1, 10, 1000] {
        let mut outcomes = pool.imap(0..1000u64, |x| x).ahead(ahead);
        assert_eq!(outcomes.next().unwrap().unwrap(), 0);
        drop(outcomes);
        let mut outcomes = pool.imap_unordered(0..1000u64, |x| x).ahead(ahead);
        outcomes.next().unwrap().unwrap();
        drop(outcomes);
        // Before it took anything.
        drop(pool.imap(0..1000u64, |x| x));
    }
    assert_eq!(pool.map(0..10u64, |x| x).unwrap().len(), 10);
    let report = pool.close().unwrap();
    assert!(report.is_clean());
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn an_iterator_that_is_forgotten_half_way_does_not_keep_the_pool_from_ending() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(2).unwrap();
    let mut outcomes = pool.imap(0u64.., |x| x);
    outcomes.next().unwrap().unwrap();
    std::mem::forget(outcomes);
    assert!(pool.close().unwrap().is_clean());
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn an_input_that_panics_ends_the_iterator_after_all_outcomes_that_came_before() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(2).unwrap();
    for chunk in [0, 1, 8] {
        let items = (0..100u64).inspect(|&n| assert!(n < 50, "no item {n}"));
        let mut outcomes = pool.chunk_size(chunk).imap(items, |x| x);
        for n in 0..50 {
            assert_eq!(outcomes.next().unwrap().unwrap(), n);
        }
        let error = outcomes.next().unwrap().unwrap_err();
        assert!(matches!(error, TaskError::Refused(Refusal::InputPanicked { .. })), "{error:?}");
        assert!(error.to_string().contains("no item 50"), "{error}");
        // The end is stable.
        assert!((0..3).all(|_| outcomes.next().is_none()));
    }
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn an_item_that_is_lost_or_panics_or_cannot_travel_is_the_only_one() {
    let (oracle, _watchdog) = begin();
    let mut limits = epilogue::Limits::default();
    limits.max_bytes = 1 << 16;
    let pool = Pool::builder().workers(2).limits(limits).start().unwrap();
    let items = (0..300usize).map(|n| match n {
        100 => "x".repeat(1 << 17),
        _ => n.to_string(),
    });
    let outcomes = pool.imap(items, |text: String| match text.as_str() {
        "50" => process::abort(),
        "150" => panic!("on purpose"),
        _ => text,
    });
    for (n, outcome) in outcomes.enumerate() {
        match (n, outcome) {
            (50, outcome) => {
                assert!(matches!(outcome, Err(TaskError::WorkerLost(_))), "{outcome:?}")
            }
            (100, outcome) => {
                assert!(matches!(outcome, Err(TaskError::Encode { .. })), "{outcome:?}")
            }
            (150, outcome) => {
                assert!(matches!(outcome, Err(TaskError::Panicked(_))), "{outcome:?}")
            }
            (n, outcome) => assert_eq!(outcome.unwrap(), n.to_string()),
        }
    }
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn a_pool_that_is_closed_ends_the_iterator() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(2).unwrap();
    let mut outcomes = pool.imap(0u64.., |x| x);
    assert_eq!(outcomes.next().unwrap().unwrap(), 0);
    assert!(pool.close().unwrap().is_clean());
    let mut given = 1;
    let refused = loop {
        match outcomes.next().unwrap() {
            Ok(value) => assert_eq!(value, given),
            Err(error) => break error,
        }
        given += 1;
    };
    assert!(matches!(refused, TaskError::Refused(Refusal::Closed)), "{refused:?}");
    assert!(outcomes.all(|outcome| outcome.is_err()), "an end, and no value after an error");
    outcomes = pool.imap(0u64.., |x| x);
    assert!(matches!(outcomes.next(), Some(Err(TaskError::Refused(Refusal::Closed)))));
    assert!(outcomes.next().is_none());
    drop(outcomes);
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn iterators_of_one_pool_can_be_interleaved_nested_and_used_beside_tasks() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(2).unwrap();
    let evens = pool.imap(0..500u64, |x| x * 2);
    let odds = pool.imap(0..500u64, |x| x * 2 + 1);
    for (n, (even, odd)) in evens.zip(odds).enumerate() {
        let task = pool.submit(n as u64, |x| x * 4 + 1).unwrap();
        assert_eq!(even.unwrap() + odd.unwrap(), task.join().unwrap());
    }
    let inner = pool.imap(0..500u64, |x| x + 1).map(Result::unwrap);
    let outer = pool.imap(inner, |x| x * 10).map(Result::unwrap);
    assert_eq!(outer.sum::<u64>(), (1..=500).sum::<u64>() * 10);
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn iterators_of_many_threads_hold_up_nobody() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(2).unwrap();
    thread::scope(|scope| {
        for thread in 0..4u64 {
            let pool = &pool;
            scope.spawn(move || {
                for round in 0..20 {
                    let items = (0..200u64).map(|n| n + thread);
                    let outcomes = pool.imap(items, |x| x).ahead(round + 1);
                    for (n, outcome) in outcomes.take(100 + round).enumerate() {
                        assert_eq!(outcome.unwrap(), n as u64 + thread);
                    }
                }
            });
        }
    });
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn what_an_iterator_has_on_its_way_goes_on_while_its_consumer_thinks() {
    let (oracle, _watchdog) = begin();
    let (mut first, mut others) = (Gate::new(), Gate::new());
    let pool = Pool::new(2).unwrap();
    // Both workers are up.
    let tasks = [0u64, 1].map(|n| pool.submit((first.path(), n), through).unwrap());
    first.wait_for(2);
    first.open_once();
    assert_eq!(tasks.map(|task| task.join().unwrap()), [0, 1]);
    let (path, other) = (first.path(), others.path());
    let items = (0..4u64).map(|n| (if n == 1 { path.clone() } else { other.clone() }, n));
    let mut outcomes = pool.chunk_size(1).imap(items, through);
    thread::scope(|scope| {
        scope.spawn(|| {
            // The first item and the second run, and the others lie behind them.
            others.wait();
            first.wait();
            others.open_once();
            // The worker of the first goes on to both of the others, although nobody asks for them.
            others.wait();
            others.open_once();
            others.wait();
            others.open_once();
        });
        assert_eq!(outcomes.next().unwrap().unwrap(), 0);
    });
    drop((first, others));
    assert_eq!(outcomes.map(Result::unwrap).collect::<Vec<_>>(), [1, 2, 3]);
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn a_slow_consumer_and_a_slow_input_lose_nothing() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(2).unwrap();
    let items = (0..60u64).inspect(|n| thread::sleep(Duration::from_micros(n % 7 * 50)));
    for (n, outcome) in pool.imap(items, |x| x).enumerate() {
        thread::sleep(Duration::from_micros(n as u64 % 5 * 100));
        assert_eq!(outcome.unwrap(), n as u64);
    }
    drop(pool);
    oracle.nothing_left();
}
