//! What comes of a map: outcomes as they arrive, put into the order of the items.

use std::collections::BTreeMap;

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
    later: BTreeMap<Index, Vec<T>>,
}

impl<T> Default for Pieces<T> {
    fn default() -> Self {
        Self { joined: Vec::new(), later: BTreeMap::new() }
    }
}

impl<T> Pieces<T> {
    /// Has `fill` append what begins at `first`.
    fn put(&mut self, first: Index, fill: impl FnOnce(&mut Vec<T>)) {
        if first != self.joined.len() {
            let mut piece = Vec::new();
            fill(&mut piece);
            self.later.insert(first, piece);
            return;
        }
        fill(&mut self.joined);
        while let Some(piece) = self.later.remove(&self.joined.len()) {
            self.joined.extend(piece);
        }
    }

    /// The sequence, or as much of it as has no gap.
    pub(crate) fn into_vec(self) -> Vec<T> {
        self.joined
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

    fn take(&mut self, Arrival { first, outcomes }: Arrival, limits: &Limits) -> GoOn {
        self.0.put(first, |all| match outcomes {
            Arrived::Answers(reply) => {
                answers(&reply, limits, |one| all.push(one.map_err(TaskError::from)));
            }
            Arrived::Answer(parcel) => all.push(answer(parcel, limits).map_err(TaskError::from)),
            Arrived::Failed { count, error } => {
                all.extend(std::iter::repeat_n(error, count).map(Err));
            }
        });
        GoOn::Yes
    }

    fn whole(self) -> Self::Whole {
        self.0.into_vec()
    }
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
        // A map that ended early cancelled the rest. Those are not why it ended.
        let is_effect = matches!(error, TaskError::Cancelled { begun: false });
        let is_first = match &self.cause {
            None => true,
            Some((_, TaskError::Cancelled { begun: false })) => !is_effect,
            Some((first, _)) => index < *first && !is_effect,
        };
        if is_first {
            self.cause = Some((index, error));
        }
    }
}

impl<R: Portable> Collect<R> for Values<R> {
    type Whole = Self;

    fn take(&mut self, Arrival { first, outcomes }: Arrival, limits: &Limits) -> GoOn {
        let mut failed = None;
        match outcomes {
            Arrived::Answers(reply) => self.values.put(first, |values| {
                failed = extend_from_answers(&reply, limits, values)
                    .err()
                    .map(|(index, fault)| (first + index, fault.into()));
            }),
            Arrived::Answer(parcel) => match answer(parcel, limits) {
                Ok(value) => self.values.put(first, |values| values.push(value)),
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
