//! procspawn's pool: this executable started again, a channel for each task.

use std::collections::VecDeque;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use procspawn::JoinHandle;
use serde::{Serialize, de::DeserializeOwned};

use super::{Pool, even_chunks};
use crate::payload::{Kind, Payload};
use crate::tasks::Task;

/// How many tasks wait at a time: each holds four descriptors.
const WINDOW: usize = 64;

pub(super) struct Procspawn {
    pool: procspawn::Pool,
    workers: usize,
}

impl Procspawn {
    pub(super) fn new(workers: usize) -> Self {
        Self { pool: procspawn::Pool::new(workers).expect("a pool"), workers }
    }

    fn submit(&self, task: Task, x: u64) -> JoinHandle<u64> {
        self.pool.spawn((task, x), |(task, x)| task.run(x))
    }
}

/// Starts jobs, at most [`WINDOW`] ahead of the one that is joined.
fn in_window<J, R>(
    jobs: impl Iterator<Item = J>,
    start: impl Fn(J) -> JoinHandle<R>,
    mut take: impl FnMut(JoinHandle<R>),
) where
    R: Serialize + DeserializeOwned,
{
    let mut waiting = VecDeque::with_capacity(WINDOW);
    for job in jobs {
        if waiting.len() == WINDOW {
            waiting.pop_front().into_iter().for_each(&mut take);
        }
        waiting.push_back(start(job));
    }
    waiting.into_iter().for_each(take);
}

impl Pool for Procspawn {
    fn map(&mut self, task: Task, xs: &[u64], chunk: Option<usize>) -> Vec<u64> {
        let mut values = Vec::with_capacity(xs.len());
        let chunk = chunk.unwrap_or(even_chunks(xs.len(), self.workers));
        if chunk == 1 {
            let take = |handle: JoinHandle<u64>| values.push(handle.join().expect("a value"));
            in_window(xs.iter(), |x| self.submit(task, *x), take);
            return values;
        }
        let start = |part: &[u64]| {
            let run = |(task, xs): (Task, Vec<u64>)| xs.into_iter().map(|x| task.run(x)).collect();
            self.pool.spawn((task, part.to_vec()), run)
        };
        let take = |handle: JoinHandle<Vec<u64>>| values.extend(handle.join().expect("values"));
        in_window(xs.chunks(chunk), start, take);
        values
    }

    fn payload(&self, kind: Kind, len: usize) -> Option<Payload> {
        Payload::plain(kind, len)
    }

    fn echo(&mut self, payload: Payload) -> Payload {
        match payload {
            Payload::Bytes(bytes) => {
                let handle: JoinHandle<Vec<u8>> = self.pool.spawn(bytes, |bytes| bytes);
                Payload::Bytes(handle.join().expect("the bytes"))
            }
            Payload::Floats(floats) => {
                let handle: JoinHandle<Vec<f64>> = self.pool.spawn(floats, |floats| floats);
                Payload::Floats(handle.join().expect("the floats"))
            }
            other => unreachable!("{other:?} is not ours"),
        }
    }

    fn begin(&mut self, task: Task, x: u64) -> bool {
        // Dropping a handle would end the task.
        (0..self.workers).for_each(|_| std::mem::forget(self.submit(task, x)));
        true
    }

    fn fragile(self: Box<Self>, n: u64) -> Option<Receiver<(u64, Result<u64, String>)>> {
        let (send, outcomes) = mpsc::channel();
        thread::spawn(move || {
            let mut next = 0;
            let take = |mut handle: JoinHandle<u64>| {
                let outcome = handle.join_timeout(Duration::from_secs(5));
                // Nobody listens any more if it took too long in all.
                let _ = send.send((next, outcome.map_err(|error| error.to_string())));
                next += 1;
            };
            in_window(0..n, |x| self.submit(Task::Fragile, x), take);
        });
        Some(outcomes)
    }

    /// It waits for the tasks, then kills the workers.
    fn close(self: Box<Self>) {
        self.pool.shutdown();
    }
}

/// A process that does nothing.
pub(crate) fn start_and_join() {
    procspawn::spawn((), |()| ()).join().expect("a process that ends");
}
