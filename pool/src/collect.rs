//! What comes of a map: outcomes as they arrive, put into the order of the items.

use std::collections::VecDeque;

use epilogue_process::entry::{answer, answers, extend_from_answers};
use epilogue_process::{Limits, Portable};

use crate::error::TaskError;
use crate::mailbox::{Arrival, Index, Outcomes as Arrived};

/// Whether a map goes on after an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GoOn {
    Yes,
    No,
}

/// Takes the outcomes of a map as they arrive.
pub(crate) trait Collect<R> {
    /// What there is in the end.
    type Whole;

    fn take(&mut self, arrival: Arrival, limits: &Limits) -> GoOn;

    fn whole(self) -> Self::Whole;
}

/// Pieces of a sequence, of which those from the beginning on are joined already.
#[derive(Debug)]
pub(crate) struct Pieces<T> {
    joined: Vec<T>,
    /// Those that begin later, in order, each with where it begins.
    later: VecDeque<(Index, Piece<T>)>,
}

/// Values that follow one another: of a call with one item there is one, which needs no memory.
#[derive(Debug)]
enum Piece<T> {
    One(T),
    Many(Vec<T>),
}

impl<T> Default for Pieces<T> {
    fn default() -> Self {
        Self { joined: Vec::new(), later: VecDeque::new() }
    }
}

impl<T> Pieces<T> {
    /// Has `fill` append what begins at `first`: so many values, or fewer.
    fn put(&mut self, first: Index, count: usize, fill: impl FnOnce(&mut Vec<T>)) {
        if first == self.joined.len() {
            fill(&mut self.joined);
            return self.join();
        }
        let piece = if count == 1 {
            let joined = self.joined.len();
            fill(&mut self.joined);
            self.joined.truncate(joined + 1);
            match self.joined.len() > joined {
                true => self.joined.pop().map(Piece::One),
                false => None,
            }
        } else {
            let mut values = Vec::with_capacity(count);
            fill(&mut values);
            Some(Piece::Many(values))
        };
        let Some(piece) = piece else { return };
        // Each worker answers in order, so this is mostly the last, or near it.
        let place = self.later.partition_point(|&(other, _)| other < first);
        self.later.insert(place, (first, piece));
    }

    /// Joins what begins where the sequence ends.
    fn join(&mut self) {
        while let Some((_, piece)) =
            self.later.pop_front_if(|(first, _)| *first == self.joined.len())
        {
            match piece {
                Piece::One(value) => self.joined.push(value),
                Piece::Many(values) => self.joined.extend(values),
            }
        }
    }

    /// The sequence, or as much of it as has no gap.
    pub(crate) fn into_vec(self) -> Vec<T> {
        self.joined
    }
}

/// Gives one outcome for each task.
pub(crate) fn outcomes<R: Portable>(
    arrived: Arrived,
    limits: &Limits,
    mut each: impl FnMut(Result<R, TaskError>),
) {
    match arrived {
        Arrived::Answers(reply) => {
            answers(&reply, limits, |one| each(one.map_err(TaskError::from)));
        }
        Arrived::Answer(parcel) => each(answer(parcel, limits).map_err(TaskError::from)),
        Arrived::Failed { count, error } => {
            std::iter::repeat_n(error, count).for_each(|error| each(Err(error)));
        }
    }
}

/// One outcome for each item.
#[derive(Debug)]
pub(crate) struct Outcomes<R>(Pieces<Result<R, TaskError>>);

impl<R> Default for Outcomes<R> {
    fn default() -> Self {
        Self(Pieces::default())
    }
}

impl<R: Portable> Collect<R> for Outcomes<R> {
    type Whole = Vec<Result<R, TaskError>>;

    fn take(&mut self, arrival: Arrival, limits: &Limits) -> GoOn {
        let (count, Arrival { first, outcomes }) = (arrival.count(), arrival);
        self.0.put(first, count, |all| self::outcomes(outcomes, limits, |one| all.push(one)));
        GoOn::Yes
    }

    fn whole(self) -> Self::Whole {
        self.0.into_vec()
    }
}

/// Whether a map ends with this error of the item at `index`, rather than with the one that it has. One
/// that ended early cancelled the rest, and what waited to be begun again: those are not why it ended.
pub(crate) fn comes_first(
    index: Index,
    error: &TaskError,
    other: Option<&(Index, TaskError)>,
) -> bool {
    let rank = |error: &TaskError| match error {
        TaskError::Cancelled { begun: false } => 2,
        TaskError::Cancelled { begun: true } => 1,
        _ => 0,
    };
    other.is_none_or(|(first, other)| (rank(error), index) < (rank(other), *first))
}

/// The values, up to the first error.
#[derive(Debug)]
pub(crate) struct Values<R> {
    pub(crate) values: Pieces<R>,
    /// The error of the first item that had one.
    pub(crate) cause: Option<(Index, TaskError)>,
}

impl<R> Default for Values<R> {
    fn default() -> Self {
        Self { values: Pieces::default(), cause: None }
    }
}

impl<R> Values<R> {
    fn fail(&mut self, index: Index, error: TaskError) {
        if comes_first(index, &error, self.cause.as_ref()) {
            self.cause = Some((index, error));
        }
    }
}

impl<R: Portable> Collect<R> for Values<R> {
    type Whole = Self;

    fn take(&mut self, Arrival { first, outcomes }: Arrival, limits: &Limits) -> GoOn {
        let mut failed = None;
        match outcomes {
            Arrived::Answers(reply) => self.values.put(first, reply.count as usize, |values| {
                failed = extend_from_answers(&reply, limits, values)
                    .err()
                    .map(|(index, fault)| (first + index, fault.into()));
            }),
            Arrived::Answer(parcel) => match answer(parcel, limits) {
                Ok(value) => self.values.put(first, 1, |values| values.push(value)),
                Err(fault) => failed = Some((first, fault.into())),
            },
            Arrived::Failed { error, .. } => failed = Some((first, error)),
        }
        match failed {
            Some((index, error)) => {
                self.fail(index, error);
                GoOn::No
            }
            None => GoOn::Yes,
        }
    }

    fn whole(self) -> Self {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::comes_first;
    use crate::error::TaskError;

    #[test]
    fn what_a_map_that_ends_early_has_cancelled_is_not_why_it_ends() {
        let cancelled = |begun| TaskError::Cancelled { begun };
        for begun in [false, true] {
            assert!(comes_first(5, &TaskError::TimedOut, Some(&(0, cancelled(begun)))));
            assert!(!comes_first(0, &cancelled(begun), Some(&(5, TaskError::TimedOut))));
        }
        assert!(comes_first(5, &cancelled(true), Some(&(0, cancelled(false)))));
        assert!(comes_first(0, &TaskError::TimedOut, Some(&(5, TaskError::TimedOut))));
    }
}
