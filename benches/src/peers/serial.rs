//! No pool: the work itself.

use super::Pool;
use crate::tasks::Task;

pub(super) struct Serial;

impl Pool for Serial {
    fn map(&mut self, task: Task, xs: &[u64], _chunk: Option<usize>) -> Vec<u64> {
        xs.iter().map(|x| task.run(*x)).collect()
    }

    fn close(self: Box<Self>) {}
}
