//! What was measured, round by round.

use std::collections::BTreeMap;

use super::endings::Ending;
use super::noise::Noise;
use super::session::Finished;
use crate::settings::Place;

/// Workload, case, metric, peer: the order of the tables.
type Key = (String, String, String, String);

#[derive(Debug)]
pub(super) struct Results {
    rounds: usize,
    figures: BTreeMap<Key, Series>,
    /// The cases and metrics of a workload in the order in which they were first seen.
    order: Vec<(String, String, String)>,
    pub(super) endings: Vec<Ending>,
    pub(super) failed: Vec<String>,
    pub(super) noisy: usize,
    pub(super) runs: usize,
}

/// One value a round, where there is one.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Series(pub(super) Vec<Option<Value>>);

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Value {
    pub(super) value: f64,
    /// Whether others were busy meanwhile.
    pub(super) noisy: bool,
}

/// The middle of a series, and how far it spreads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Summary {
    pub(super) median: f64,
    pub(super) low: f64,
    pub(super) high: f64,
    /// Whether there were too few quiet rounds, so that the others count too.
    pub(super) noisy: bool,
}

impl Results {
    pub(super) fn new(rounds: usize) -> Self {
        Self {
            rounds,
            figures: BTreeMap::new(),
            order: Vec::new(),
            endings: Vec::new(),
            failed: Vec::new(),
            noisy: 0,
            runs: 0,
        }
    }

    pub(super) fn add(&mut self, round: usize, place: Place, run: Finished) {
        let noisy = run.noise > Noise::LIMIT;
        self.runs += 1;
        self.noisy += usize::from(noisy);
        self.failed.extend(run.failure);
        for figure in run.figures {
            let case = match (figure.workload.as_str(), place) {
                ("W2", place) => format!("{}, {}", figure.case, place.name()),
                _ => figure.case,
            };
            let row = (figure.workload.clone(), case.clone(), figure.metric.clone());
            if !self.order.contains(&row) {
                self.order.push(row);
            }
            let key = (figure.workload, case, figure.metric, figure.peer);
            let series = self.figures.entry(key).or_default();
            series.0.resize(self.rounds, None);
            series.0[round] = Some(Value { value: figure.value, noisy });
        }
    }

    /// Nothing where nothing was measured.
    pub(super) fn series(&self, workload: &str, peer: &str, case: &str, metric: &str) -> Series {
        let key = (workload.into(), case.into(), metric.into(), peer.into());
        self.figures.get(&key).cloned().unwrap_or_default()
    }

    /// The cases and metrics of a workload.
    pub(super) fn rows(&self, workload: &str) -> impl Iterator<Item = (&str, &str)> {
        let of = move |row: &&(String, String, String)| row.0 == workload;
        self.order.iter().filter(of).map(|row| (row.1.as_str(), row.2.as_str()))
    }

    pub(super) fn failures(&self) -> usize {
        let ending = |ending: &&Ending| ending.peer.starts_with("ours") && ending.failure.is_some();
        self.failed.len() + self.endings.iter().filter(ending).count()
    }
}

impl Series {
    /// Round by round; what one of the two lacks is lacking.
    pub(super) fn with(&self, other: &Self, f: impl Fn(f64, f64) -> f64) -> Self {
        let both = self.0.iter().zip(&other.0).map(|(a, b)| {
            let (a, b) = ((*a)?, (*b)?);
            Some(Value { value: f(a.value, b.value), noisy: a.noisy || b.noisy })
        });
        Self(both.collect())
    }

    pub(super) fn over(&self, other: &Self) -> Self {
        self.with(other, |a, b| a / b)
    }

    /// The highest of all rounds, for what was promised never to be higher.
    pub(super) fn highest(self) -> Self {
        let values = self.0.iter().copied().flatten();
        Self(vec![values.max_by(|a, b| a.value.total_cmp(&b.value))])
    }

    /// Round by round the largest of several.
    pub(super) fn largest(all: impl IntoIterator<Item = Self>) -> Self {
        let present = all.into_iter().filter(|series| series.summary().is_some());
        present.reduce(|a, b| a.with(&b, f64::max)).unwrap_or_default()
    }

    /// Of the quiet rounds, if there are enough of them.
    pub(super) fn summary(&self) -> Option<Summary> {
        const ENOUGH: usize = 3;
        let all: Vec<Value> = self.0.iter().copied().flatten().collect();
        let quiet: Vec<Value> = all.iter().copied().filter(|value| !value.noisy).collect();
        let used = if quiet.len() >= ENOUGH.min(all.len()) { quiet } else { all };
        let mut values: Vec<f64> = used.iter().map(|value| value.value).collect();
        values.sort_by(f64::total_cmp);
        Some(Summary {
            median: *values.get(values.len() / 2)?,
            low: *values.first()?,
            high: *values.last()?,
            noisy: used.iter().any(|value| value.noisy),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Series, Value};

    fn series(values: &[(f64, bool)]) -> Series {
        Series(values.iter().map(|&(value, noisy)| Some(Value { value, noisy })).collect())
    }

    #[test]
    fn noisy_rounds_are_left_out_where_enough_others_are_there() {
        let values = [(1.0, false), (9.0, true), (2.0, false), (3.0, false)];
        let summary = series(&values).summary().unwrap();
        assert_eq!((summary.median, summary.high, summary.noisy), (2.0, 3.0, false));
        let summary = series(&values[..3]).summary().unwrap();
        assert_eq!((summary.median, summary.high, summary.noisy), (2.0, 9.0, true));
    }

    #[test]
    fn a_ratio_is_that_of_the_same_round() {
        let (a, b) = (series(&[(2.0, false), (9.0, false)]), series(&[(1.0, false), (3.0, true)]));
        assert_eq!(a.over(&b), series(&[(2.0, false), (3.0, true)]));
        assert_eq!(a.over(&Series::default()).summary(), None);
    }
}
