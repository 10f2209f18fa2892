//! A bar that shows the progress of a map moves by what is done, not by what was begun.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use epilogue::{Pool, TaskError};
use indicatif::ProgressBar;
use support::{Gate, begin, through};

/// Waits until the bar has come so far: the watchdog ends a bar that never does.
fn await_position(bar: &ProgressBar, position: u64) {
    while bar.position() < position {
        thread::yield_now();
    }
}

#[test]
fn a_bar_moves_as_each_task_ends_and_not_as_items_are_taken() {
    let (oracle, _watchdog) = begin();
    let mut gate = Gate::new();
    let pool = Pool::new(1).unwrap();
    let bar = ProgressBar::no_length();
    let taken = AtomicUsize::new(0);
    let path = gate.path();
    thread::scope(|s| {
        let items = (0..6u64).map(|n| (path.clone(), n)).inspect(|_| {
            taken.fetch_add(1, Ordering::Relaxed);
        });
        let values = s.spawn(|| pool.progress(&bar).chunk_size(1).map(items, through));
        for done in 0..6 {
            gate.wait();
            // The one before has been answered; this one cannot be.
            await_position(&bar, done);
            assert_eq!(bar.position(), done);
            assert!(taken.load(Ordering::Relaxed) as u64 > done);
            gate.open_once();
        }
        assert_eq!(values.join().unwrap().unwrap(), [0, 1, 2, 3, 4, 5]);
    });
    assert_eq!((bar.position(), bar.length()), (6, Some(6)));
    drop((gate, pool));
    oracle.nothing_left();
}

#[test]
fn what_fails_counts_and_what_is_cancelled_does_not() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(1).unwrap();
    let bar = ProgressBar::no_length();
    let outcomes = pool.progress(&bar).map_outcomes([0u64, 1, 0, 2], |n| 10 / n).unwrap();
    assert_eq!((outcomes.len(), bar.position()), (4, 4));
    let bar = ProgressBar::new(100);
    let failed = pool.progress(&bar).chunk_size(1).map([0u64; 50], |n| 10 / n);
    assert!(matches!(failed, Err(TaskError::Panicked(_))));
    // Some were sent ahead: those that ran before the map ended count, and no others.
    let stats = pool.stats();
    assert_eq!(bar.position(), stats.done - 4, "{stats}");
    assert!(bar.position() < 50, "{stats}");
    assert_eq!(bar.length(), Some(100), "a length that was set is kept");
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn a_lazy_map_moves_the_bar_as_it_is_consumed() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(2).unwrap();
    let bar = ProgressBar::no_length();
    let endless = pool.progress(&bar).imap(0u64.., |n| n);
    let first: Vec<u64> = endless.map(Result::unwrap).take(1000).collect();
    assert_eq!(first.len(), 1000);
    assert!(bar.position() >= 1000, "{}", bar.position());
    drop(pool);
    oracle.nothing_left();
}
