//! What a case counted, and what all cases of a run did.
//!
//! The program of a case says its figures on standard output, a line each, and the one that
//! started it adds them up.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

const COUNT: &str = "count:";
const WORST: &str = "worst:";
const MOST: &str = "most:";
const NOT_TRIED: &str = "not tried:";

/// Counts, which are added up, times, of which the longest stays, sizes, of which the largest does, and
/// why cases were not tried.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    counts: BTreeMap<String, u64>,
    worst: BTreeMap<String, Duration>,
    most: BTreeMap<String, u64>,
    not_tried: BTreeMap<String, u64>,
    not_reached: u64,
}

/// Whether a case did what it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tried {
    Yes,
    /// This machine does not let us.
    Refused,
    /// There was no moment for its fault, such as a call that was not made so often.
    NotReached,
}

/// Says a count, from the program of a case.
pub(crate) fn say_count(what: &str, count: u64) {
    println!("{COUNT}{count} {what}");
}

/// Says how long something took at most, from the program of a case.
pub(crate) fn say_worst(what: &str, time: Duration) {
    println!("{WORST}{} {what}", time.as_micros());
}

/// Says how much of something there was at most, from the program of a case.
pub(crate) fn say_most(what: &str, size: u64) {
    println!("{MOST}{size} {what}");
}

/// Says that the case cannot be tried here, from its program, which ends then.
pub(crate) fn say_not_tried(why: &str) {
    println!("{NOT_TRIED}{why}");
}

impl Figures {
    /// Of a case that cannot be tried here.
    pub(crate) fn not_tried(why: &str) -> Self {
        let not_tried = BTreeMap::from([(why.to_owned(), 1)]);
        Self { not_tried, ..Self::default() }
    }

    /// Of a case whose fault never happened.
    pub(crate) fn not_reached() -> Self {
        Self { not_reached: 1, ..Self::default() }
    }

    /// Reads what the functions above said. Other lines are not for us.
    pub(crate) fn said(output: &str) -> Self {
        let mut figures = Self::default();
        for line in output.lines() {
            let number = |start: &str| {
                let (number, what) = line.strip_prefix(start)?.split_once(' ')?;
                Some((number.parse().ok()?, what.to_owned()))
            };
            if let Some((count, what)) = number(COUNT) {
                figures.count(&what, count);
            } else if let Some((micros, what)) = number(WORST) {
                figures.worst(&what, Duration::from_micros(micros));
            } else if let Some((size, what)) = number(MOST) {
                figures.most(&what, size);
            } else if let Some(why) = line.strip_prefix(NOT_TRIED) {
                figures.add(Self::not_tried(why));
            }
        }
        figures
    }

    pub(crate) fn count(&mut self, what: &str, count: u64) {
        *self.counts.entry(what.to_owned()).or_default() += count;
    }

    pub(crate) fn worst(&mut self, what: &str, time: Duration) {
        let worst = self.worst.entry(what.to_owned()).or_default();
        *worst = time.max(*worst);
    }

    pub(crate) fn most(&mut self, what: &str, size: u64) {
        let most = self.most.entry(what.to_owned()).or_default();
        *most = size.max(*most);
    }

    /// How often this was counted.
    pub(crate) fn counted(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or_default()
    }

    pub(crate) fn tried(&self) -> Tried {
        match (self.not_tried.is_empty(), self.not_reached) {
            (false, _) => Tried::Refused,
            (true, 0) => Tried::Yes,
            (true, _) => Tried::NotReached,
        }
    }

    /// Whether all of it was tried.
    pub(crate) fn is_tried(&self) -> bool {
        self.tried() == Tried::Yes
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.not_reached += other.not_reached;
        other.most.iter().for_each(|(what, &size)| self.most(what, size));
        for (why, count) in other.not_tried {
            *self.not_tried.entry(why).or_default() += count;
        }
        other.counts.iter().for_each(|(what, &count)| self.count(what, count));
        other.worst.iter().for_each(|(what, &time)| self.worst(what, time));
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.counts.iter().map(|(what, count)| format!("{count} {what}"));
        let worst = self.worst.iter().map(|(what, time)| {
            format!("{what} after {:.1} ms at worst", time.as_secs_f64() * 1e3)
        });
        let most = self.most.iter().map(|(what, size)| format!("{size} {what} at most"));
        let not_tried =
            self.not_tried.iter().map(|(why, count)| format!("{count} not tried: {why}"));
        let not_reached =
            (self.not_reached > 0).then(|| format!("{} not reached", self.not_reached));
        let all = counts.chain(worst).chain(most).chain(not_tried).chain(not_reached);
        f.write_str(&all.collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_added_up_and_of_times_the_longest_stays() {
        let mut all = Figures::said("count:3 deaths\nnoise\nworst:1500 gone\n");
        all.add(Figures::said("count:4 deaths\nworst:700 gone\n"));
        assert_eq!(all.to_string(), "7 deaths, gone after 1.5 ms at worst");
    }

    #[test]
    fn of_sizes_the_largest_stays_and_what_was_not_tried_says_why() {
        let mut all = Figures::said("most:3 KiB more\n");
        assert!(all.is_tried());
        all.add(Figures::said("most:2 KiB more\nnot tried:no disk\n"));
        all.add(Figures::not_tried("no disk"));
        assert!(!all.is_tried());
        assert_eq!(all.to_string(), "3 KiB more at most, 2 not tried: no disk");
    }

    #[test]
    fn a_fault_that_never_happened_was_not_tried() {
        let mut all = Figures::not_reached();
        assert_eq!((all.tried(), all.is_tried()), (Tried::NotReached, false));
        all.add(Figures::said("count:3 deaths\n"));
        assert_eq!(all.to_string(), "3 deaths, 1 not reached");
        assert_eq!((all.counted("deaths"), all.counted("births")), (3, 0));
        assert_eq!(Figures::not_tried("no disk").tried(), Tried::Refused);
    }
}
