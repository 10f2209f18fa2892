//! How times are spread: a histogram whose buckets widen with what they hold.

use std::fmt;
use std::time::Duration;

/// Times, counted in buckets that are an eighth as wide as what they hold is long.
///
/// This is the idea of [HdrHistogram](http://hdrhistogram.org): it takes less than 8 KiB, and a
/// quantile that is read from it is at most 6.25 % from the truth, whether that is a nanosecond or
/// a year. Those of several pools can be [merged](Histogram::merge).
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use epilogue_pool::Histogram;
///
/// let mut times = Histogram::default();
/// for millis in 1..=100 {
///     times.record(Duration::from_millis(millis), 1);
/// }
/// let median = times.quantile(0.5).unwrap();
/// assert!((47..=53).contains(&median.as_millis()));
/// assert_eq!(times.max(), Some(Duration::from_millis(100)));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histogram {
    /// As many as the longest time needs.
    buckets: Vec<u64>,
    count: u64,
    /// In nanoseconds.
    sum: u128,
    shortest: u64,
    longest: u64,
}

/// In how many buckets a power of two is cut: 2 to this.
const CUTS: u32 = 3;

/// Where so many nanoseconds are counted.
fn bucket_of(nanos: u64) -> usize {
    let width = (u64::BITS - nanos.leading_zeros()).saturating_sub(CUTS + 1);
    ((width << CUTS) as usize) + (nanos >> width) as usize
}

/// The fewest nanoseconds that are counted there, and how many follow it.
fn range_of(bucket: usize) -> (u64, u64) {
    let width = (bucket >> CUTS).saturating_sub(1);
    let first = bucket - (width << CUTS);
    ((first as u64) << width, 1 << width)
}

impl Histogram {
    /// Counts `times` times that took so long.
    pub fn record(&mut self, time: Duration, times: u64) {
        if times == 0 {
            return;
        }
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let bucket = bucket_of(nanos);
        if bucket >= self.buckets.len() {
            self.buckets.resize(bucket + 1, 0);
        }
        self.buckets[bucket] = self.buckets[bucket].saturating_add(times);
        self.shortest = if self.count == 0 { nanos } else { self.shortest.min(nanos) };
        self.longest = self.longest.max(nanos);
        self.count = self.count.saturating_add(times);
        self.sum = self.sum.saturating_add(u128::from(nanos) * u128::from(times));
    }

    /// Adds all that another one counted.
    pub fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        if other.buckets.len() > self.buckets.len() {
            self.buckets.resize(other.buckets.len(), 0);
        }
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine = mine.saturating_add(*theirs);
        }
        let is_first = self.count == 0;
        self.shortest = if is_first { other.shortest } else { self.shortest.min(other.shortest) };
        self.longest = self.longest.max(other.longest);
        self.count = self.count.saturating_add(other.count);
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// How many times were counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The shortest time, exactly. None if nothing was counted.
    pub fn min(&self) -> Option<Duration> {
        (self.count > 0).then(|| Duration::from_nanos(self.shortest))
    }

    /// The longest time, exactly. None if nothing was counted.
    pub fn max(&self) -> Option<Duration> {
        (self.count > 0).then(|| Duration::from_nanos(self.longest))
    }

    /// The mean, exactly. None if nothing was counted.
    pub fn mean(&self) -> Option<Duration> {
        let mean = self.sum.checked_div(u128::from(self.count))?;
        Some(Duration::from_nanos(u64::try_from(mean).unwrap_or(u64::MAX)))
    }

    /// The time that this part of all times did not exceed. `part` is from 0 to 1: 0.5 gives the
    /// median, 0.99 what one in a hundred took longer than. None if nothing was counted.
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        let last = self.count.checked_sub(1)?;
        let rank = (part.clamp(0.0, 1.0) * self.count as f64).ceil() as u64;
        let rank = rank.saturating_sub(1).min(last);
        let mut seen = 0u64;
        let bucket = self.buckets.iter().position(|&count| {
            // As the count itself, which is the most there can be.
            seen = seen.saturating_add(count);
            seen > rank
        })?;
        let (first, width) = range_of(bucket);
        // The middle of the bucket, unless all that it holds is on one side of that.
        let nanos = (first + (width - 1) / 2).clamp(self.shortest, self.longest);
        Some(Duration::from_nanos(nanos))
    }

    /// The buckets that are not empty, shortest times first: the longest time that each is for, and
    /// how many it holds.
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> {
        let filled = self.buckets.iter().enumerate().filter(|&(_, &count)| count > 0);
        filled.map(|(bucket, &count)| {
            let (first, width) = range_of(bucket);
            (Duration::from_nanos(first + (width - 1)), count)
        })
    }
}

/// The quantiles that a person asks for, in one line.
impl fmt::Display for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quantiles = [("half within", 0.5), ("9 of 10", 0.9), ("99 of 100", 0.99)];
        for (what, part) in quantiles {
            let Some(time) = self.quantile(part) else { return f.write_str("not measured") };
            write!(f, "{what} {time:.1?}, ")?;
        }
        write!(f, "all {:.1?}", self.max().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::{Histogram, bucket_of, range_of};
    use std::time::Duration;

    #[test]
    fn each_time_has_one_bucket_an_eighth_as_wide_as_it_is_long() {
        let ends = (0..64).flat_map(|shift| [1u64 << shift, (1 << shift) - 1, (1 << shift) + 1]);
        for nanos in ends.chain(0..5000).chain([u64::MAX, u64::MAX - 1]) {
            let (first, width) = range_of(bucket_of(nanos));
            assert!(first <= nanos && nanos - first < width, "{nanos}: {first}, {width}");
            assert!(width == 1 || width <= nanos / 8, "{nanos}: {first}, {width}");
        }
        let places: Vec<_> = (0..5000).map(bucket_of).collect();
        assert!(places.is_sorted_by(|one, next| one == next || one + 1 == *next));
    }

    #[test]
    fn quantiles_are_near_the_truth_and_merging_is_as_if_all_had_been_counted_together() {
        let (mut all, mut even, mut odd) =
            (Histogram::default(), Histogram::default(), Histogram::default());
        for micros in 1..=10_000 {
            let time = Duration::from_micros(micros);
            all.record(time, 1);
            if micros % 2 == 0 { &mut even } else { &mut odd }.record(time, 1);
        }
        for part in [0.01, 0.5, 0.9, 0.99, 0.999, 1.0] {
            let (got, truth) = (all.quantile(part).unwrap().as_secs_f64(), part / 100.0);
            assert!((got - truth).abs() <= truth * 0.07, "{part}: {got}, {truth}");
        }
        assert_eq!(all.mean(), Some(Duration::from_nanos(5_000_500)));
        even.merge(&odd);
        assert_eq!(even, all);
        let mut none = Histogram::default();
        none.merge(&all);
        assert_eq!(none, all);
        assert_eq!(Histogram::default().quantile(0.5), None);
        assert_eq!(Histogram::default().to_string(), "not measured");
    }

    #[test]
    fn what_was_counted_more_often_than_can_be_counted_has_its_quantiles() {
        let (mut times, second) = (Histogram::default(), Duration::from_secs(1));
        times.record(Duration::from_nanos(1), u64::MAX - 5);
        times.record(second, 100);
        assert_eq!(times.quantile(0.5), Some(Duration::from_nanos(1)));
        assert!(times.quantile(1.0).unwrap() > second * 9 / 10);
        assert_eq!(times.count(), u64::MAX);
    }
}
