//! How many deaths in which time are a storm: the restart intensity of Erlang's supervisors, see
//! <https://www.erlang.org/doc/system/sup_princ.html#maximum-restart-intensity>.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The deaths that a pool survives. Without a limit all of those that its tasks are to blame for.
#[derive(Debug, Default)]
pub(crate) struct Intensity {
    limit: Option<(usize, Duration)>,
    deaths: VecDeque<Instant>,
}

impl Intensity {
    /// More than so many deaths within that time are too many.
    pub(crate) fn new(limit: Option<(usize, Duration)>) -> Self {
        Self { limit, deaths: VecDeque::new() }
    }

    /// Whether too many deaths are to end the pool.
    pub(crate) fn is_limited(&self) -> bool {
        self.limit.is_some()
    }

    /// Notes a death; true if it is one too many.
    pub(crate) fn is_exceeded_by(&mut self, death: Instant) -> bool {
        let Some((most, within)) = self.limit else { return false };
        self.deaths.push_back(death);
        while self.deaths.front().is_some_and(|&first| death.duration_since(first) > within) {
            self.deaths.pop_front();
        }
        self.deaths.len() > most
    }

    /// Why the pool gives up, as the last death has this `cause`.
    pub(crate) fn cause(&self, last: &str) -> String {
        let within = self.limit.map_or(Duration::ZERO, |(_, within)| within);
        format!("{} of them within {within:?}; the last: {last}", self.deaths.len())
    }
}

#[cfg(test)]
mod tests {
    use super::Intensity;
    use std::time::{Duration, Instant};

    #[test]
    fn only_deaths_that_follow_one_another_within_the_time_are_too_many() {
        let (second, begin) = (Duration::from_secs(1), Instant::now());
        let mut intensity = Intensity::new(Some((2, second)));
        for time in 0..100 {
            assert!(!intensity.is_exceeded_by(begin + second * time), "death {time}");
        }
        assert!(intensity.is_exceeded_by(begin + second * 99));
        let mut unlimited = Intensity::default();
        assert!((0..100).all(|_| !unlimited.is_exceeded_by(begin)));
    }
}
