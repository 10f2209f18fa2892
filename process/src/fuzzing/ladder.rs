//! The ladder of a child under events in any order: it only goes up, does each thing once, and
//! arrives in time.

use std::time::{Duration, Instant};

use super::Input;
use crate::stop::{Ladder, Rung, Step};

pub(super) fn target(bytes: &[u8]) {
    let mut input = Input(bytes);
    let grace = Duration::from_millis(input.number(2));
    let (mut ladder, mut now) = (Ladder::new(grace), Instant::now());
    let (mut steps, mut must_be_killed_by) = (Vec::new(), None::<Instant>);
    let mut refused = 0;
    while !input.is_empty() {
        let before = ladder.rung();
        let step = match input.below(7) {
            0 => ladder.finish(),
            1 => {
                ladder.drained(now);
                None
            }
            2 => {
                let limit = Duration::from_millis(input.number(2));
                let limit = (input.byte() % 2 == 0).then_some(limit);
                let by = now + limit.map_or(grace, |limit| limit.min(grace));
                if before < Rung::Kill {
                    must_be_killed_by = Some(must_be_killed_by.map_or(by, |other| other.min(by)));
                }
                ladder.stop(now, limit)
            }
            3 => ladder.kill(),
            4 => {
                now += Duration::from_millis(input.number(2));
                None
            }
            5 => {
                ladder.refused(now);
                refused += usize::from(before == Rung::Kill);
                None
            }
            _ => match ladder.due() {
                // Not before it is due.
                Some(due) if due > now => {
                    assert_eq!(ladder.tick(now), None);
                    now = due;
                    ladder.tick(now)
                }
                _ => ladder.tick(now),
            },
        };
        assert!(ladder.rung() >= before, "it went down from {before} to {}", ladder.rung());
        steps.extend(step);
        assert_in_time(&ladder, must_be_killed_by);
    }
    // From here on nothing happens but that time passes.
    for _ in 0..8 {
        let Some(due) = ladder.due() else { break };
        now = now.max(due);
        steps.extend(ladder.tick(now));
        assert_in_time(&ladder, must_be_killed_by);
    }
    assert_eq!(ladder.due(), None, "it has an end");
    if must_be_killed_by.is_some() {
        assert!(steps.contains(&Step::Kill), "{steps:?}");
    }
    for kind in [Rung::Finish, Rung::Stop, Rung::Signal, Rung::Kill] {
        let times = steps.iter().filter(|step| rung(step) == kind).count();
        let most = if kind == Rung::Kill { 1 + refused } else { 1 };
        assert!(times <= most, "{kind} {times} times: {steps:?}");
    }
    assert!(steps.is_sorted_by_key(rung), "{steps:?}");
}

/// Whoever ticks when told to has killed it by then.
fn assert_in_time(ladder: &Ladder, must_be_killed_by: Option<Instant>) {
    let in_time = |by| ladder.due().is_some_and(|due| due <= by);
    let rung = ladder.rung();
    assert!(rung == Rung::Kill || must_be_killed_by.is_none_or(in_time), "{rung} is due too late");
}

fn rung(step: &Step) -> Rung {
    match step {
        Step::Finish => Rung::Finish,
        Step::Stop { .. } => Rung::Stop,
        Step::Signal => Rung::Signal,
        Step::Kill => Rung::Kill,
    }
}
