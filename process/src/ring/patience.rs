//! How long to look for what may come at once, before sleeping.

use std::thread;
use std::time::{Duration, Instant};

/// How long to look before sleeping, by how that went the last times.
///
/// To be woken on another CPU takes as long as some tasks do, so it pays to look for about that
/// long; see `facts/performance.md` 1.1 of the design, and `benches/RESULTS.md`. Whoever looks gives
/// its CPU away each time: the other side may need just that one. And one who has always looked in
/// vain sleeps at once, and tries again now and then.
#[derive(Debug, Default)]
pub struct Patience {
    in_vain: u32,
}

impl Patience {
    /// How long it looks.
    pub const BUDGET: Duration = Duration::from_micros(50);
    /// So many times in a row is for nothing. Then one in as many is a trial.
    const TOO_OFTEN: u32 = 4;
    const TRIAL: u32 = 16;
    /// How many looks are cheaper than giving the CPU away.
    const GLANCES: usize = 8;

    /// Of one that begins: it sleeps at once the first time, and tries the second time. Who starts
    /// many at a time has better use for the CPUs, and first sends something once they are up.
    pub(crate) fn of_beginner() -> Self {
        Self { in_vain: Self::TRIAL - 1 }
    }

    /// Looks for something, for a while. None if it did not come: it is time to sleep.
    pub fn look<T>(&mut self, mut found: impl FnMut() -> Option<T>) -> Option<T> {
        let is_worth_it =
            self.in_vain < Self::TOO_OFTEN || self.in_vain.is_multiple_of(Self::TRIAL);
        // A model tries every order of events as it is, and has no clock.
        let is_worth_it = is_worth_it && !cfg!(epilogue_model);
        let (come, is_in_time) = match is_worth_it {
            true => Self::look_patiently(&mut found),
            false => (found(), true),
        };
        match come {
            Some(_) if is_in_time => self.in_vain = 0,
            _ => self.in_vain = self.in_vain.wrapping_add(1),
        }
        come
    }

    /// What it found, and whether within the time. Where all CPUs are busy, whoever gives its own
    /// away gets it back a slice later: it finds something then, and would have been woken sooner.
    fn look_patiently<T>(found: &mut impl FnMut() -> Option<T>) -> (Option<T>, bool) {
        for _ in 0..Self::GLANCES {
            if let Some(come) = found() {
                return (Some(come), true);
            }
            std::hint::spin_loop();
        }
        let until = Instant::now() + Self::BUDGET;
        loop {
            thread::yield_now();
            let is_in_time = Instant::now() < until;
            let come = found();
            if come.is_some() || !is_in_time {
                return (come, is_in_time);
            }
        }
    }
}
