//! What was agreed on for a task beyond "do it": how long it may take, and how often it is tried.

use std::time::Duration;

/// The terms of a task. What is not said is as its pool has it, and there is no limit by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Terms {
    /// How long it may run before its worker is ended.
    pub(crate) timeout: Option<Duration>,
    /// How long it may run before it is asked to return.
    pub(crate) soft_timeout: Option<Duration>,
    /// How long it may wait before it begins.
    pub(crate) queue_timeout: Option<Duration>,
    /// How long it may go on after it was cancelled.
    pub(crate) cancel_within: Option<Duration>,
    /// How many more times it is begun, if its worker dies during it.
    pub(crate) retries: Option<u32>,
}

impl Terms {
    /// These terms, with `others` where nothing was said.
    pub(crate) fn or(self, others: Self) -> Self {
        Self {
            timeout: self.timeout.or(others.timeout),
            soft_timeout: self.soft_timeout.or(others.soft_timeout),
            queue_timeout: self.queue_timeout.or(others.queue_timeout),
            cancel_within: self.cancel_within.or(others.cancel_within),
            retries: self.retries.or(others.retries),
        }
    }

    /// Whether nothing was agreed on: most tasks have no terms, and pay for none.
    pub(crate) fn are_none(&self) -> bool {
        *self == Self::default()
    }

    /// How long the task may run before the first thing happens to it, if anything does.
    pub(crate) fn first_limit(&self) -> Option<Duration> {
        earlier(self.timeout, self.soft_timeout)
    }

    /// Whether each task has a clock of its own, so that none shares a call with others.
    pub(crate) fn need_a_clock(&self) -> bool {
        self.first_limit().or(self.queue_timeout).is_some()
    }
}

/// The earlier of two that may not be.
pub(crate) fn earlier<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::Terms;
    use std::time::Duration;

    #[test]
    fn a_task_has_its_own_terms_before_those_of_its_pool() {
        let second = Duration::from_secs(1);
        let pool = Terms { timeout: Some(second), retries: Some(2), ..Terms::default() };
        let task = Terms { timeout: Some(second * 9), ..Terms::default() };
        let both = task.or(pool);
        assert_eq!((both.timeout, both.retries), (Some(second * 9), Some(2)));
        assert!(Terms::default().or(Terms::default()).are_none() && !both.are_none());
    }
}
