//! The futex as the kernel does it: whether to sleep is decided behind the lock that who wakes takes.
//!
//! One queue for all words: only one thread of a model sleeps, and to be woken for no reason is
//! allowed. A sleeper whom nobody wakes is what loom calls a deadlock.

use loom::sync::{Condvar, Mutex};

use super::atomic::{AtomicU64, Break, is_broken};

loom::lazy_static! {
    static ref QUEUE: (Mutex<()>, Condvar) = (Mutex::new(()), Condvar::new());
}

pub(crate) fn wait(word: &AtomicU64, expected: u32) {
    let (lock, woken) = &*QUEUE;
    let queue = lock.lock().unwrap();
    if word.peek() as u32 == expected || is_broken(Break::Futex) {
        drop(woken.wait(queue).unwrap());
    }
}

pub(crate) fn wake(_: &AtomicU64) {
    let (lock, woken) = &*QUEUE;
    let _queue = lock.lock().unwrap();
    woken.notify_all();
}
