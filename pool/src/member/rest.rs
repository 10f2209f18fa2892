//! One that writes faster than it is read is not read for a moment.
//!
//! Its wire is read under the floor's lock, and whoever gives that back and takes it again at once gets it
//! before those who wait for it: a worker that did nothing but write kept callers from it for half a second.

use std::time::{Duration, Instant};

use epilogue_process::child::Watch;

use super::Member;

impl Member {
    /// Long enough for those who wait for the lock to have it.
    const REST: Duration = Duration::from_millis(1);

    /// It has been looked at. If it had more to say than one look takes, others come first.
    pub(crate) fn looked_at(&mut self) {
        self.rests_until = self.child.has_more().then(|| Instant::now() + Self::REST);
    }

    /// What to wait for.
    pub(crate) fn watch(&self) -> Watch {
        let watch = self.child.watch();
        match self.rests_until {
            Some(_) => watch.without_wire(),
            None => watch,
        }
    }

    /// When it is to be looked at, whatever else happens.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.child.due().into_iter().chain(self.rests_until).min()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use crate::floor::floor_with;
    use crate::worker::serve;

    #[test]
    fn one_that_rests_is_not_waited_for_and_is_looked_at_when_that_is_over() {
        let mut floor = floor_with(serve);
        let member = &mut floor.members[0];
        member.rests_until = Some(Instant::now());
        assert!(member.watch().wire().is_none() && member.watch().pidfd().is_some());
        assert_eq!(member.due(), member.rests_until);
        // It has little to say.
        assert!(floor.look_at(0).is_none());
        assert!(floor.members[0].watch().wire().is_some());
    }
}
