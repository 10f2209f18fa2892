//! No worker is idle while calls wait with another, whatever the one who sends them is doing.

use std::iter;
use std::path::PathBuf;
use std::thread;

use epilogue::Pool;
use support::{Gate, begin};

/// Items that are done at once, so that it pays to send the next to a worker that has one; then
/// those that stand at these gates, one after the other; then what `last` does when it is asked.
fn items<const N: usize>(
    gates: [PathBuf; N],
    mut last: impl FnMut(),
) -> impl Iterator<Item = Option<PathBuf>> {
    let last = iter::from_fn(move || {
        last();
        None
    });
    iter::repeat_n(None, 5000).chain(gates.map(Some)).chain(last)
}

fn pass(gate: Option<PathBuf>) {
    if let Some(gate) = gate {
        Gate::pass(&gate);
    }
}

#[test]
fn an_idle_worker_takes_over_while_the_input_of_a_map_waits_for_what_lies_behind_another() {
    let (oracle, _watchdog) = begin();
    let (mut holds, mut tells) = (Gate::new(), Gate::new());
    let pool = Pool::new(2).unwrap();
    let items = items([holds.path(), tells.path()], || {
        tells.wait();
        tells.open_once();
        holds.wait();
        holds.open_once();
    });
    assert_eq!(pool.chunk_size(1).map(items, pass).unwrap().len(), 5002);
    drop((pool, holds, tells));
    oracle.nothing_left();
}

#[test]
fn so_does_one_that_becomes_idle_long_after_the_last_call_was_sent() {
    let (oracle, _watchdog) = begin();
    // The third lies behind one of the first two. The other one is let go: in one of these it is.
    for other in [0, 1] {
        let mut gate = Gate::new();
        let pool = Pool::new(2).unwrap();
        let items = items([gate.path(), gate.path(), gate.path()], || {
            gate.wait_for(2);
            // This takes a while.
            thread::scope(|s| {
                for _ in 0..4 {
                    s.spawn(|| Pool::new(2).unwrap().map(0..100u64, |x| x).unwrap());
                }
            });
            gate.open_for(other);
            gate.wait();
            gate.open_once();
        });
        assert_eq!(pool.chunk_size(1).map(items, pass).unwrap().len(), 5003);
        drop((pool, gate));
    }
    oracle.nothing_left();
}

#[test]
fn items_of_one_chunk_that_wait_for_each_other_all_begin() {
    let (oracle, _watchdog) = begin();
    for workers in [2, 4] {
        let pool = Pool::new(workers).unwrap();
        for _ in 0..10 {
            let mut gate = Gate::new();
            let paths = vec![Some(gate.path()); workers];
            thread::scope(|s| {
                let map = s.spawn(|| pool.chunk_size(workers).map(paths, pass));
                gate.wait_for(workers);
                gate.open_once();
                map.join().unwrap().unwrap();
            });
        }
    }
    oracle.nothing_left();
}
