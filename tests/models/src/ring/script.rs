//! What the two sides of all models do: in short words.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use loom::sync::{Condvar, Mutex};
use loom::thread::{self, JoinHandle};

use crate::ring::{Far, Form, Listener, Near, Place, Reply, Size, Ticket};
use crate::sys::memory::SharedWords;

pub(crate) fn ends() -> (Near, Far, SharedWords) {
    let words = SharedWords::new(Size::Once.words());
    let far = Far::new(Arc::new(words.clone())).unwrap();
    (Near::new(words.clone(), Size::Once), far, words)
}

/// Runs one side in a thread.
pub(crate) fn child<T: 'static>(run: impl FnOnce() -> T + 'static) -> JoinHandle<T> {
    let child = thread::spawn(run);
    // Loom takes the first thing that a thread does after this for a part of it, and does not try
    // what happens if it comes later.
    loom::sync::atomic::AtomicBool::new(false).load(Ordering::Relaxed);
    child
}

/// The argument of a call, or the answer to an item: no other has it, and it is never zero.
pub(crate) fn content(id: u64, index: u32) -> [u8; 8] {
    (id << 32 | u64::from(index) << 8 | 0xff).to_le_bytes()
}

pub(crate) fn call(near: &mut Near, id: u64, count: u32) -> Ticket {
    assert!(near.has_room(8).unwrap());
    let ticket = near.push(id, count, Place::Here, &content(id, 0));
    near.nudge();
    ticket
}

/// The next call, if there is one: its number and where it is.
pub(crate) fn accept(far: &mut Far) -> Option<(u64, u64, u32)> {
    let incoming = far.next()?;
    assert_eq!(incoming.bytes, content(incoming.id, 0), "it came whole");
    Some((incoming.id, incoming.at, incoming.count))
}

/// Answers an item, for which there is room.
pub(crate) fn answer(far: &mut Far, id: u64, index: u32) {
    assert!(far.stage(id, index, Form::Raw));
    far.staged().extend_from_slice(&content(id, index));
    assert!(far.has_room());
    far.commit();
}

/// Checks a record; its number, first item and count.
pub(crate) fn read(reply: &Reply) -> (u64, u32, u32) {
    let expected: Vec<u8> =
        (0..reply.count).flat_map(|at| content(reply.id, reply.first + at)).collect();
    assert_eq!(reply.bytes[..], expected, "it came whole");
    (reply.id, reply.first, reply.count)
}

/// An eventfd, and whoever polls it.
#[derive(Clone)]
pub(crate) struct Bell(Arc<(Mutex<bool>, Condvar)>);

impl Bell {
    pub(crate) fn new() -> Self {
        Self(Arc::new((Mutex::new(false), Condvar::new())))
    }

    pub(crate) fn ring(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_one();
    }

    /// Rings if there is somebody to tell.
    pub(crate) fn tell(&self, listener: Option<Listener>) {
        if listener.is_some() {
            self.ring();
        }
    }

    pub(crate) fn wait(&self) {
        let mut rung = self.0.0.lock().unwrap();
        while !*rung {
            rung = self.0.1.wait(rung).unwrap();
        }
        *rung = false;
    }
}

/// How many times each item was run. It orders nothing: loom knows nothing of it.
#[derive(Clone)]
pub(crate) struct Runs(Arc<[AtomicU32]>);

impl Runs {
    pub(crate) fn new(items: usize) -> Self {
        Self((0..items).map(|_| AtomicU32::new(0)).collect())
    }

    pub(crate) fn note(&self, item: u32) {
        self.0[item as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn of(&self, item: u32) -> u32 {
        self.0[item as usize].load(Ordering::Relaxed)
    }

    pub(crate) fn in_all(&self) -> u32 {
        self.0.iter().map(|runs| runs.load(Ordering::Relaxed)).sum()
    }
}
