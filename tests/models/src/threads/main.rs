//! The ring of `process`, its own source, between two threads, for ThreadSanitizer to look at.
//!
//! The ring itself is made of atomics, of which no race is one. What it is for is to hand over other
//! memory: what a side wrote before it published is the other's. So here it hands over memory that is
//! no atomic, and each access to that is a race unless the ring orders it.
//!
//! ```sh
//! tests/sanitize threads
//! ```
//!
//! With the argument `weak` nothing releases or acquires: then there must be a report.

mod sys;

#[path = "../../../../process/src/ring/mod.rs"]
#[expect(dead_code, unused_imports, reason = "not all of it is looked at")]
mod ring;

/// What the ring uses of the wire.
mod wire {
    #[derive(Debug)]
    pub(crate) enum WireError {
        Garbage,
    }
}

use std::sync::Arc;
use std::{mem, panic, thread};

use ring::{Far, Form, Listener, Near, Place, Size};
use sys::atomic::{AtomicU64, Ordering, weaken};
use sys::futex;
use sys::memory::SharedWords;
use sys::plain::Plain;

const CALLS: u64 = 50_000;
/// More than the ring can hold, so that a cell that is used again has come back.
const CELLS: u64 = 16;
/// The segment in which all answers lie.
const SLOT: u32 = 3;

fn main() {
    if std::env::args().nth(1).is_some_and(|arg| arg == "weak") {
        weaken();
    }
    let words = SharedWords::new(Size::Once.words());
    let near = Near::new(words, Size::Once);
    let far = Far::new(Arc::new(words)).expect("a ring of that size");
    let shared: &Shared = Box::leak(Box::new(Shared {
        arguments: Plain::new(CELLS as usize),
        segment: Plain::new(1),
        bell: AtomicU64::new(0),
    }));
    // Who panics would leave the other waiting.
    let hook = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        hook(info);
        std::process::abort();
    }));
    // Not joined, and nothing of it freed: the standard library orders that by what ThreadSanitizer does
    // not see. All that the child does has an answer, for which the parent waits.
    mem::forget(thread::spawn(move || child(far, shared)));
    parent(near, shared);
    println!("threads: {CALLS} calls, and as many answers");
}

/// What is no atomic, but for the bell, which orders nothing.
struct Shared {
    arguments: Plain,
    segment: Plain,
    bell: AtomicU64,
}

impl Shared {
    fn ring(&self, listener: Option<Listener>) {
        if listener.is_some() {
            self.bell.store(1, Ordering::Relaxed);
            futex::wake(&self.bell);
        }
    }

    fn wait(&self) {
        while self.bell.swap(0, Ordering::Relaxed) == 0 {
            futex::wait(&self.bell, 0);
        }
    }
}

/// Sends calls as long as there is room, and takes what comes.
fn parent(mut near: Near, shared: &Shared) {
    let (mut sent, mut taken) = (0, 0);
    while taken < CALLS {
        while sent < CALLS && sent - taken < CELLS && near.has_room(0).expect("the child is honest")
        {
            shared.arguments.set(sent % CELLS, sent);
            near.push(sent, 1, Place::Here, &[]);
            near.nudge();
            sent += 1;
        }
        let before = taken;
        while let Some(reply) = near.pop().expect("the child is honest") {
            // The child's until here, and again once that is dropped.
            let deposit = near.deposit(SLOT);
            assert_eq!(reply.id, taken);
            assert_eq!(shared.segment.get(0), taken + 1);
            shared.segment.set(0, 0);
            drop(deposit);
            taken += 1;
        }
        if taken > before {
            near.made_room();
            continue;
        }
        near.listen(Listener::Doorbell, 1);
        if !near.has_reply() {
            shared.wait();
        }
        near.stop_listening();
    }
}

/// Answers each call with its argument and one, in a segment that it may not use before it is back.
fn child(mut far: Far, shared: &Shared) {
    for done in 0..CALLS {
        let incoming = loop {
            match far.next() {
                Some(incoming) => break incoming,
                None => {
                    shared.ring(far.idle());
                    far.wait(|| false);
                }
            }
        };
        assert_eq!(far.claim(incoming.at, 1), (0, 1));
        let argument = shared.arguments.get(incoming.id % CELLS);
        shared.arguments.set(incoming.id % CELLS, 0);
        while done > 0 && !far.returned().has(SLOT as usize) {
            thread::yield_now();
        }
        shared.segment.set(0, argument + 1);
        assert!(far.stage(incoming.id, 0, Form::Bulk), "nothing is open");
        while !far.has_room() {
            shared.ring(Some(Listener::Socket));
            far.wait_for_room();
        }
        far.commit();
        shared.ring(far.publish(0));
    }
}
