//! How a pool does: counts, and how long its tasks wait and run.

use std::fmt;
use std::time::{Duration, Instant};

use crate::floor::Floor;
use crate::histogram::Histogram;
use crate::pool::Pool;
use crate::trace::Trace;

impl Pool {
    /// How the pool does at this moment, and how it has done so far.
    ///
    /// What workers have answered is counted as done once somebody has looked: whoever waits for an
    /// outcome does, and so does this. After the pool has ended these are its final counts.
    ///
    /// The pool always measures, for it costs next to nothing: each task that takes longer than 10
    /// µs, and of shorter ones only some, each of which counts for those before it as well.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = epilogue_pool::Pool::new(2)?;
    /// pool.map(0..1000u64, |x| x * x)?;
    /// let stats = pool.stats();
    /// assert_eq!((stats.done, stats.queued, stats.running), (1000, 0, 0));
    /// println!("{stats}");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn stats(&self) -> Stats {
        let shared = self.shared();
        if !shared.is_ours() {
            // Nobody would give the lock back that another thread of the original had.
            return Stats::default();
        }
        let missed_events = shared.observer.as_ref().map_or(0, |observer| observer.feed().missed());
        Stats { missed_events, ..shared.floor().stats() }
    }
}

/// How a pool does. In a fork of the process that owns the pool all is zero.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// The pool's name.
    pub name: String,
    /// The workers.
    pub workers: WorkerCounts,
    /// Tasks that no worker has begun.
    pub queued: u64,
    /// Tasks that workers have begun and not answered.
    pub running: u64,
    /// Tasks that a worker answered in time: with a value, or with an error such as a panic.
    pub done: u64,
    /// Tasks that were lost with their worker.
    pub lost: u64,
    /// Tasks that were cancelled.
    pub cancelled: u64,
    /// Tasks that took longer than they were allowed to, or waited longer.
    pub timed_out: u64,
    /// How often a task was begun again, because its worker had died during it.
    pub retried: u64,
    /// How long tasks waited from when they were submitted until a worker began them. One that is
    /// begun again waits from then on.
    pub waited: Histogram,
    /// How long tasks ran, as their workers measured it. Of tasks that go together, each counts as
    /// long as their mean.
    pub ran: Histogram,
    /// How many events were not taken in time; see [`Event::Missed`](crate::Event::Missed).
    pub missed_events: u64,
}

/// How many workers a pool has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerCounts {
    /// As many as there are to be.
    pub wanted: usize,
    /// Those that were started, and are not up yet.
    pub starting: usize,
    /// Those that take tasks.
    pub up: usize,
    /// Those that take no tasks any more, and have not ended.
    pub ending: usize,
    /// Those that have ended.
    pub ended: u64,
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, workers, queued, running, done, lost, .. } = self;
        let WorkerCounts { wanted, starting, up, ending, ended } = workers;
        write!(
            f,
            "pool {name}: {queued} tasks queued, {running} running, {done} done, {lost} lost"
        )?;
        let rest = [
            (self.cancelled, "cancelled"),
            (self.timed_out, "timed out"),
            (self.retried, "tried again"),
        ];
        for (count, what) in rest.into_iter().filter(|&(count, _)| count > 0) {
            write!(f, ", {count} {what}")?;
        }
        write!(f, "\n  workers: {up} of {wanted} up")?;
        let rest = [(*starting as u64, "starting"), (*ending as u64, "ending"), (*ended, "ended")];
        for (count, what) in rest.into_iter().filter(|&(count, _)| count > 0) {
            write!(f, ", {count} {what}")?;
        }
        write!(f, "\n  waited: {}\n  ran: {}", self.waited, self.ran)?;
        match self.missed_events {
            0 => Ok(()),
            missed => write!(f, "\n  {missed} events were not taken in time"),
        }
    }
}

/// Times of which not all are measured.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    histogram: Histogram,
    /// How many were not measured since the last one that was.
    skipped: u64,
}

impl Measured {
    /// So many times were, or were not, measured.
    #[inline]
    pub(crate) fn note(&mut self, time: Option<Duration>, count: u32) {
        let count = u64::from(count);
        match time {
            None => self.skipped += count,
            Some(time) => {
                // It stands for those before it as well.
                self.histogram.record(time, count + std::mem::take(&mut self.skipped));
            }
        }
    }
}

/// How long the tasks of a pool wait and run.
#[derive(Debug)]
pub(crate) struct Times {
    pub(crate) waited: Measured,
    pub(crate) ran: Measured,
    /// How many tasks more are not measured.
    pass: u32,
    /// Which of them are is left to chance, or what comes at regular intervals would be missed.
    chance: u32,
    /// How many calls were measured, as long as they are few.
    first: u32,
    /// How long a task ran, when that was measured last, in nanoseconds.
    last: u64,
}

impl Default for Times {
    fn default() -> Self {
        let (waited, ran) = (Measured::default(), Measured::default());
        Self { waited, ran, pass: 0, chance: 0x9E37_79B9, first: 0, last: 0 }
    }
}

impl Times {
    /// Of tasks that take less than this, about one in so many is measured.
    const SLOW: u64 = 10_000;
    const ONE_IN: u32 = 64;

    /// A trace for a call of so many tasks, if it is to be measured.
    pub(crate) fn sample(&mut self, count: u32) -> Option<Box<Trace>> {
        if self.pass > count && self.last < Self::SLOW {
            self.pass -= count;
            return None;
        }
        self.first = (self.first + 1).min(Self::ONE_IN);
        if self.first == Self::ONE_IN {
            // Marsaglia, "Xorshift RNGs", 2003.
            self.chance ^= self.chance << 13;
            self.chance ^= self.chance >> 17;
            self.chance ^= self.chance << 5;
            self.pass = Self::ONE_IN / 2 + self.chance % Self::ONE_IN;
        }
        Some(Trace::new(Instant::now(), None))
    }

    /// A worker has answered so many tasks, which took so long; 0 if it did not measure that.
    #[inline]
    pub(crate) fn ran(&mut self, count: u32, nanos: u64) {
        let mut time = None;
        if nanos > 0 {
            self.last = nanos / u64::from(count.max(1));
            time = Some(Duration::from_nanos(self.last));
        }
        self.ran.note(time, count);
    }
}

impl Floor {
    fn stats(&mut self) -> Stats {
        self.collect();
        let report = self.report();
        let mut stats = Stats {
            name: report.name.clone(),
            queued: self.queue.iter().map(|call| call.left() as u64).sum(),
            done: report.done,
            lost: report.lost,
            cancelled: report.cancelled,
            timed_out: report.timed_out,
            retried: report.retried,
            waited: self.times.waited.histogram.clone(),
            ran: self.times.ran.histogram.clone(),
            ..Stats::default()
        };
        stats.workers.wanted = self.wanted();
        stats.workers.ended = report.workers.len() as u64 + report.omitted;
        self.members.iter_mut().for_each(|member| member.count(&mut stats));
        stats
    }
}

#[cfg(test)]
mod tests {
    use super::{Measured, Times};
    use std::time::Duration;

    #[test]
    fn a_time_stands_for_those_before_it_that_were_not_measured() {
        let mut measured = Measured::default();
        let time = Duration::from_micros(3);
        measured.note(Some(time), 1);
        measured.note(None, 7);
        assert_eq!(measured.histogram.count(), 1);
        measured.note(Some(time), 2);
        assert_eq!((measured.histogram.count(), measured.histogram.mean()), (10, Some(time)));
    }

    #[test]
    fn the_first_tasks_and_slow_ones_are_measured_each_and_of_others_about_one_in_64() {
        let mut times = Times::default();
        let sampled = |times: &mut Times, calls: usize| {
            (0..calls).filter(|_| times.sample(1).is_some()).count()
        };
        assert_eq!(sampled(&mut times, 64), 64);
        times.ran(1, 300);
        let some = sampled(&mut times, 64_000);
        assert!((600..1500).contains(&some), "{some}");
        assert!(times.sample(1000).is_some(), "a long call is measured");
        times.ran(10, 1_000_000);
        assert_eq!(sampled(&mut times, 100), 100);
    }
}
