//! How many workers there are, who leaves, and who takes their place.

use std::time::Instant;

use epilogue_process::child::Work;

use super::{Floor, Phase};
use crate::member::{Member, Standing};
use crate::recycling::Recycling;
use crate::size::Size;

impl Floor {
    /// How many workers are missing, and may be started now.
    pub(crate) fn missing(&mut self, now: Instant) -> usize {
        self.told_to_hire = 0;
        // First, also if nobody is missing: a time that has passed would be due for ever.
        if self.hiring.is_allowed(now) { self.shortage() } else { 0 }
    }

    /// How workers are replaced that have done enough.
    pub(crate) fn recycling(&self) -> Recycling {
        self.recycling
    }

    /// Whether workers come and go.
    pub(super) fn turns_over(&self) -> bool {
        self.recycling.is_on() || self.size.can_grow()
    }

    fn shortage(&mut self) -> usize {
        let for_spare = self.short_for_spare();
        let stay = |member: &&Member| member.stays();
        let (wanted, staying) = (self.size.wanted(), self.members.iter().filter(stay));
        // Those that have ended, and are buried when nothing is left below them, are replaced before that:
        // each once. Only then is it known whether their pool goes on at all.
        let ended = self.members.iter().filter(|member| member.child.has_ended()).count();
        let most = (2 * wanted).saturating_sub(ended + staying.clone().count());
        let shortage = match self.phase {
            Phase::Starting(_) => wanted.saturating_sub(staying.count()),
            Phase::Running => {
                let worn = self.members.iter().filter(|member| member.is_worn());
                (wanted + worn.count().min(wanted)).saturating_sub(staying.count())
            }
            // The last calls need somebody, if those who had them have died.
            Phase::Draining { .. } => {
                let able = staying.filter(|member| member.tasks_left() != Some(0));
                self.queue.len().min(wanted).saturating_sub(able.count()).max(for_spare)
            }
            Phase::Stopping => 0,
        };
        shortage.min(most)
    }

    /// How many workers a pool that closes lacks for what it could do at the same time: a task behind
    /// one that runs may be what that waits for. Not for what [`Floor::level`] would leave where it is:
    /// whoever was started for that would have nothing to do, be let go, and be missing again.
    fn short_for_spare(&mut self) -> usize {
        if !matches!(self.phase, Phase::Draining { .. }) {
            return 0;
        }
        let is_idle = |member: &&Member| {
            member.stays() && member.load() == 0 && member.tasks_left() != Some(0)
        };
        let idle = self.members.iter().filter(is_idle).count();
        let busy = self.members.iter().filter(|member| member.works()).count();
        let waiting: usize = self.queue.iter().map(|call| call.left()).sum();
        let spare: usize = self.members.iter_mut().map(Member::spare).sum();
        let places = self.size.wanted().saturating_sub(idle + busy);
        (waiting + spare).saturating_sub(idle).min(places)
    }

    /// Has the supervisor start workers, if some are missing that it has not been told of.
    pub(super) fn ask_for_workers(&mut self) {
        if self.size.can_grow() {
            self.grow();
        }
        if !self.recycling.is_on() && self.size.wanted() <= self.members.len() {
            // The supervisor sees for itself who ends.
            return;
        }
        let shortage = self.shortage();
        if shortage > self.told_to_hire {
            self.told_to_hire = shortage;
            self.bell.ring();
        }
    }

    fn grow(&mut self) {
        let waiting: usize = self.queue.iter().map(|call| call.left()).sum();
        let running: usize = self.members.iter().map(Member::tasks).sum();
        let (tasks, workers) = (waiting + running, self.size.wanted());
        let backlog = self.members.iter().map(Member::backlog).max().flatten();
        let is_short = backlog.is_some_and(|backlog| backlog < Size::WORTH_A_WORKER);
        if tasks > workers && !(is_short && waiting == 0) {
            self.size.grow(tasks, Instant::now());
        }
    }

    /// When missing workers may be started, or workers have had nothing to do for too long.
    pub(crate) fn staffing_due(&self) -> Option<Instant> {
        self.hiring.retry_at().into_iter().chain(self.size.look_at()).min()
    }

    pub(crate) fn next_worker(&mut self) -> u64 {
        self.hired += 1;
        self.hired
    }

    /// Takes in a worker that was started while nobody held the lock.
    pub(crate) fn hire(&mut self, mut member: Member) {
        if let Phase::Stopping = self.phase {
            member.stop(None, Work::Finish);
        } else if self.shortage() == 0 {
            // It was one too few when it began to start, and there are to be fewer since: whoever said
            // so saw only those who were there, and let none of them go.
            member.finish();
        }
        self.members.push(member);
    }

    /// How many workers may have something to do besides those that have. Those that are to take
    /// another one's place wait until it leaves.
    pub(crate) fn may_begin(&self) -> usize {
        if self.members.len() <= self.size.wanted() {
            return self.members.len();
        }
        let busy = self.members.iter().filter(|member| member.works()).count();
        self.size.wanted().saturating_sub(busy)
    }

    /// Lets those go who have done enough, as soon as another one can take their place.
    pub(super) fn relieve(&mut self) {
        if !self.recycling.is_on() && self.members.len() <= self.size.wanted() {
            return;
        }
        let serving = self.members.iter().filter(|member| member.serves()).count();
        if serving > self.size.wanted()
            && let Some(outgrown) = self.position(|member| member.standing == Standing::Outgrown)
        {
            self.retire(outgrown);
        }
        self.finish_those(Member::is_done);
    }

    /// Lets workers end that have nothing left to do.
    pub(super) fn finish_those(&mut self, which: fn(&Member) -> bool) {
        let mut leaving = self.members.iter_mut().filter(|member| which(member)).peekable();
        if leaving.peek().is_some() {
            leaving.for_each(Member::finish);
            // The supervisor sees to it that they do end.
            self.bell.ring();
        }
    }

    /// Whether a worker that has done enough runs its last tasks, whose end somebody has to see.
    pub(super) fn has_to_relieve(&self) -> bool {
        let has_last = |member: &Member| {
            member.standing == Standing::Retiring || member.tasks_left() == Some(0)
        };
        self.members.iter().any(has_last)
    }

    /// It takes no more calls, and leaves when it has answered what it has begun.
    fn retire(&mut self, owner: usize) {
        let next = &mut self.next;
        let taken = self.members[owner].retire(|| {
            *next += 1;
            *next
        });
        taken.into_iter().for_each(|call| self.queue.push_front(call));
    }

    fn position(&self, which: impl Fn(&Member) -> bool) -> Option<usize> {
        self.members.iter().position(which)
    }

    /// From now on there are so many workers. Those that are too many leave when they have answered
    /// what they have begun, those with the least to do first.
    pub(crate) fn resize(&mut self, workers: usize) {
        self.size.set(workers);
        loop {
            let staying = (0..self.members.len()).filter(|&owner| self.members[owner].stays());
            let staying: Vec<_> = staying.collect();
            if staying.len() <= workers {
                break;
            }
            let least = staying.into_iter().rev().min_by_key(|&owner| self.members[owner].load());
            let Some(least) = least else { break };
            self.retire(least);
        }
        self.dispatch();
        self.bell.ring();
    }

    /// Lets workers go that have had nothing to do for too long.
    pub(crate) fn let_idle_go(&mut self, now: Instant) {
        if !self.size.is_due(now) {
            return;
        }
        for member in &mut self.members {
            if member.has_rested() && self.size.shrink() {
                member.finish();
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use crossbeam_channel::bounded;
    use epilogue_process::bell::Bell;
    use epilogue_process::child::Spec;
    use epilogue_process::link::Link;

    use super::{Floor, Member, Phase, Recycling, Size};
    use crate::recycling::Growth;

    fn start(floor: &mut Floor, main: fn(Link)) -> Member {
        let spec = Spec::named("worker");
        Member::start(&spec, floor.next_worker(), floor.recycling(), main).unwrap()
    }

    /// A floor with a worker that does nothing, without a supervisor.
    pub(crate) fn floor_of_one() -> Floor {
        floor_with(|_| {})
    }

    /// The same, with a worker of that main function.
    pub(crate) fn floor_with(main: fn(Link)) -> Floor {
        let mut floor = empty_floor(1, None);
        let worker = start(&mut floor, main);
        floor.hire(worker);
        floor
    }

    /// With two such workers, whether or not as many are wanted, each of which may do so many tasks.
    pub(crate) fn floor_of_two(wanted: usize, most_tasks: u64) -> Floor {
        let mut floor = empty_floor(wanted, Some(most_tasks));
        for _ in 0..2 {
            let worker = start(&mut floor, |_| {});
            floor.members.push(worker);
        }
        floor
    }

    fn empty_floor(wanted: usize, most_tasks: Option<u64>) -> Floor {
        let bells = [Arc::new(Bell::new().unwrap()), Arc::new(Bell::new().unwrap())];
        let staff = (Size::new(wanted, wanted, None), Recycling::new(most_tasks, Growth::Any));
        let (started, _) = bounded(1);
        let mut floor = Floor::new("floor".to_owned(), staff, Arc::default(), started, bells);
        floor.phase = Phase::Running;
        floor
    }

    #[test]
    fn who_was_started_while_the_pool_became_smaller_ends_at_once() {
        let mut floor = floor_of_one();
        floor.resize(2);
        // The supervisor starts it without the lock.
        let second = start(&mut floor, |_| {});
        floor.resize(1);
        floor.hire(second);
        assert_eq!(floor.members.iter().filter(|member| member.stays()).count(), 1);
    }
}
