//! What a case counted, and what all cases of a run did.
//!
//! The program of a case says its figures on standard output, a line each, and the one that
//! started it adds them up.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

const COUNT: &str = "count:";
const WORST: &str = "worst:";

/// Counts, which are added up, and times, of which the longest stays.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    counts: BTreeMap<String, u64>,
    worst: BTreeMap<String, Duration>,
}

/// Says a count, from the program of a case.
pub(crate) fn say_count(what: &str, count: u64) {
    println!("{COUNT}{count} {what}");
}

/// Says how long something took at most, from the program of a case.
pub(crate) fn say_worst(what: &str, time: Duration) {
    println!("{WORST}{} {what}", time.as_micros());
}

impl Figures {
    /// Reads what [`say_count`] and [`say_worst`] said. Other lines are not for us.
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

    pub(crate) fn add(&mut self, other: Self) {
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
        f.write_str(&counts.chain(worst).collect::<Vec<_>>().join(", "))
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
}
