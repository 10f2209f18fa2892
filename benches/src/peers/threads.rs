//! What one writes first: threads that take jobs from one channel, and answer on another.

use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::{Pool, even_chunks};
use crate::tasks::Task;

type Job = (usize, Task, Vec<u64>);

pub(super) struct Threads {
    jobs: Sender<Job>,
    done: Receiver<(usize, Vec<u64>)>,
    threads: Vec<JoinHandle<()>>,
}

impl Threads {
    pub(super) fn new(workers: usize) -> Self {
        let (jobs, take) = unbounded::<Job>();
        let (give, done) = unbounded();
        let start = |_| {
            let (take, give) = (take.clone(), give.clone());
            thread::spawn(move || {
                for (i, task, xs) in take {
                    let ys = xs.into_iter().map(|x| task.run(x)).collect();
                    give.send((i, ys)).expect("the pool waits for it");
                }
            })
        };
        Self { jobs, done, threads: (0..workers).map(start).collect() }
    }
}

impl Pool for Threads {
    fn map(&mut self, task: Task, xs: &[u64], chunk: Option<usize>) -> Vec<u64> {
        let chunk = chunk.unwrap_or(even_chunks(xs.len(), self.threads.len()));
        for (i, part) in xs.chunks(chunk).enumerate() {
            self.jobs.send((i, task, part.to_vec())).expect("the threads are there");
        }
        let mut values = vec![0; xs.len()];
        for (i, part) in self.done.iter().take(xs.len().div_ceil(chunk)) {
            values[i * chunk..][..part.len()].copy_from_slice(&part);
        }
        values
    }

    fn close(self: Box<Self>) {
        let Self { jobs, threads, .. } = *self;
        drop(jobs);
        threads.into_iter().for_each(|thread| thread.join().expect("a thread that ended well"));
    }
}
