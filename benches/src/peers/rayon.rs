//! Threads that steal from each other.

use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::Pool;
use crate::tasks::Task;

pub(super) struct Rayon(ThreadPool);

impl Rayon {
    pub(super) fn new(workers: usize) -> Self {
        Self(ThreadPoolBuilder::new().num_threads(workers).build().expect("threads"))
    }
}

impl Pool for Rayon {
    fn map(&mut self, task: Task, xs: &[u64], chunk: Option<usize>) -> Vec<u64> {
        let run = |x: &u64| task.run(*x);
        self.0.install(|| match chunk {
            None => xs.par_iter().map(run).collect(),
            Some(n) => xs.par_iter().with_min_len(n).with_max_len(n).map(run).collect(),
        })
    }

    fn close(self: Box<Self>) {}
}
