//! Tasks over rings in shared memory: one ring down and one up for each worker, 64 tasks in
//! flight, each published by itself, and the values collected in order.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use bytemuck::Zeroable;

use super::wait::{Bell, Policy};
use crate::figure::Printer;
use crate::settings::Settings;
use crate::sys::process::fork;
use crate::sys::shared::Shared;
use crate::timing::{median, seconds};

const SLOTS: usize = 1024;
const WINDOW: u32 = 64;
const WORKERS: usize = 2;
/// The index of a message that says that no more come.
const END: u64 = u64::MAX;

/// A position in a ring, on a line of the cache that only one side writes.
#[derive(Zeroable)]
#[repr(C, align(128))]
struct Position(AtomicU32);

/// Four words: an index, a number, and as much again that is only carried.
#[derive(Zeroable)]
#[repr(C)]
struct Slot([AtomicU64; 4]);

#[derive(Zeroable)]
#[repr(C)]
struct Ring {
    /// How far the writer has come.
    written: Position,
    slots: [Slot; SLOTS],
}

impl Ring {
    fn put(&self, at: u32, index: u64, number: u64) {
        let Slot(words) = &self.slots[at as usize % SLOTS];
        for (word, value) in words.iter().zip([index, number, 0, 0]) {
            word.store(value, Ordering::Relaxed);
        }
        self.written.0.store(at + 1, Ordering::Release);
    }

    fn get(&self, at: u32) -> (u64, u64) {
        let Slot([index, number, ..]) = &self.slots[at as usize % SLOTS];
        (index.load(Ordering::Relaxed), number.load(Ordering::Relaxed))
    }

    fn end(&self) -> u32 {
        self.written.0.load(Ordering::Acquire)
    }
}

#[derive(Zeroable)]
#[repr(C)]
struct Worker {
    down: Ring,
    up: Ring,
    bell: Bell,
}

#[derive(Zeroable)]
#[repr(C)]
struct Memory {
    workers: [Worker; WORKERS],
    /// Rung for the parent.
    bell: Bell,
}

pub(crate) fn run(print: Printer<'_>, settings: Settings) {
    let n = settings.pick(400_000, 400_000, 20_000);
    for (name, policy) in [("park", Policy::Park), ("yield", Policy::Yield)] {
        let rates = (0..settings.pick(5, 3, 1)).map(|_| n as f64 / dispatch(n, policy));
        let case = format!("shm rings w=64 b=1, {name}");
        print.emit(&case, "items_per_s", median(rates.collect()));
    }
}

/// Seconds for `n` tasks.
fn dispatch(n: usize, policy: Policy) -> f64 {
    let memory = Shared::<Memory>::new();
    let start = |i: usize| {
        let (me, bell) = (&memory.workers[i], &memory.bell);
        fork(|| serve(me, bell, policy))
    };
    let workers: Vec<_> = (0..WORKERS).map(start).collect();
    let (time, values) = seconds(|| collect(n, &memory, policy));
    workers.into_iter().for_each(|worker| worker.wait());
    assert!(values.into_iter().eq((0..n as u64).map(|x| x * x)), "every value in its place");
    time
}

fn serve(me: &Worker, parent: &Bell, policy: Policy) {
    for at in 0.. {
        me.bell.wait(policy, || me.down.end() != at);
        let (index, x) = me.down.get(at);
        if index == END {
            return;
        }
        me.up.put(at, index, x.wrapping_mul(x));
        parent.ring();
    }
}

fn collect(n: usize, memory: &Memory, policy: Policy) -> Vec<u64> {
    let mut values = vec![0; n];
    let (mut next, mut done) = (0u64, 0);
    let mut progress = [(0u32, 0u32); WORKERS];
    while done < n {
        for (worker, (sent, taken)) in memory.workers.iter().zip(&mut progress) {
            while *taken != worker.up.end() {
                let (index, value) = worker.up.get(*taken);
                values[index as usize] = value;
                *taken += 1;
                done += 1;
            }
            while *sent - *taken < WINDOW && next < n as u64 {
                worker.down.put(*sent, next, next);
                worker.bell.ring();
                *sent += 1;
                next += 1;
            }
        }
        let arrived = || {
            let mut both = memory.workers.iter().zip(&progress);
            done == n || both.any(|(worker, (_, taken))| worker.up.end() != *taken)
        };
        memory.bell.wait(policy, arrived);
    }
    for (worker, (sent, _)) in memory.workers.iter().zip(&progress) {
        worker.down.put(*sent, END, 0);
        worker.bell.ring();
    }
    values
}
