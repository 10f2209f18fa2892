//! The time that all finalizers have together, and the kernel timer that enforces it.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use libc::pid_t;

use crate::state::{lock, state};
use crate::sys::action::this_thread;
use crate::sys::timer::KillTimer;

/// What finalizers get where nobody says otherwise.
const DEFAULT: Duration = Duration::from_secs(3);

/// How much longer than a waiting thread the kernel waits, so that the thread comes first.
const MARGIN: Duration = Duration::from_millis(500);

/// Sets how long all finalizers of an ending have together. Three seconds by default.
///
/// In an ending that a signal, [`exit`](crate::exit()) or a normal exit began, the kernel kills the
/// process with `SIGKILL` at the deadline, whatever a finalizer does: it may spin with all signals
/// blocked or have stopped the whole process. [`cleanup`](crate::cleanup), and so
/// [`exec`](crate::exec) and [`exit_now`](crate::exit_now), leave a finalizer behind that has not
/// returned at the deadline, and go on; where that cannot be, `exit_now` is killed half a second later, and
/// so are the others where the kernel has no thread for finalizers, or a signal or the parent has asked for the
/// end of the process meanwhile.
///
/// Holds for endings that begin later. A time too long for the clock means no deadline; with no
/// time at all every finalizer is skipped, and the process ends as it would have.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// epilogue_embed::set_deadline(Duration::from_secs(10));
/// ```
pub fn set_deadline(time: Duration) {
    lock(&state().deadline.0).total = time;
}

/// Who ends what is not done at the deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Enforcer {
    /// The kernel, at the deadline.
    Kernel,
    /// A thread that waits; the kernel only where that thread cannot run.
    Waiter,
    /// A thread that waits, and nobody else: the program is to go on, and may have been stopped meanwhile.
    WaiterAlone,
}

/// The deadline of this process's ending.
#[derive(Debug, Default)]
pub(crate) struct Deadline(Mutex<Clock>);

#[derive(Debug)]
struct Clock {
    total: Duration,
    /// What the parent granted, if that is less.
    latest: Option<Instant>,
    /// Whether it may not stand still any more in this ending, which may not have started it yet.
    hurried: bool,
    /// Whether the process is to be gone behind this ending, which may not have started it yet.
    insisted: bool,
    running: Option<Running>,
    /// Of what this thread runs beside that ending.
    beside: Option<(pid_t, Running)>,
}

/// A clock that runs, or stands still.
#[derive(Debug)]
struct Running {
    ends: Option<Instant>,
    /// What was left when the clock was made to stand still.
    paused: Option<Duration>,
    enforcer: Enforcer,
    timer: Option<KillTimer>,
}

impl Clock {
    /// How long other people's code has, which follows the finalizers or comes before them.
    fn of_others(&self) -> Duration {
        if self.total.is_zero() { DEFAULT } else { self.total }
    }

    /// Whether one ran, which this one replaces.
    fn run(&mut self, total: Duration, enforcer: Enforcer, timer: Option<KillTimer>) -> bool {
        let ends = earlier(Instant::now().checked_add(total), self.latest);
        let mut running = Running { ends, paused: None, enforcer, timer };
        if self.insisted {
            running.insist();
        }
        running.arm();
        self.running.replace(running).is_some()
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self {
            total: DEFAULT,
            latest: None,
            hurried: false,
            insisted: false,
            running: None,
            beside: None,
        }
    }
}

impl Deadline {
    /// Starts the clock. It runs until [`Deadline::stop`]. Whether one ran, which it replaces.
    pub(crate) fn start(&self, enforcer: Enforcer) -> bool {
        let total = lock(&self.0).total;
        // Where there is no time nothing is started, and nobody needs the kernel to be ended.
        let timer = if total.is_zero() { None } else { KillTimer::new() };
        self.run(total, enforcer, timer)
    }

    /// Starts the clock for what follows the finalizers at an exit. It is other people's code, and
    /// has the same time again, or the usual one if the finalizers had none.
    pub(crate) fn start_for_exit(&self) {
        let total = lock(&self.0).of_others();
        self.run(total, Enforcer::Kernel, KillTimer::new());
    }

    /// As [`Deadline::start_for_exit`], unless a clock runs: who asks again and again for an end that is under
    /// way must not put it off.
    pub(crate) fn keep_for_exit(&self) {
        let timer = KillTimer::new();
        let mut clock = lock(&self.0);
        if clock.running.is_none() {
            let total = clock.of_others();
            clock.run(total, Enforcer::Kernel, timer);
        }
    }

    /// Starts a clock of its own for what this thread runs beside another ending, whose clock may have been
    /// replaced, or stopped at its end, when this is not done.
    pub(crate) fn start_beside(&self) {
        let timer = KillTimer::new();
        let mut clock = lock(&self.0);
        clock.beside = Some((this_thread(), Running::of_others(clock.of_others(), timer)));
    }

    /// Stops the clock of what this thread ran beside another ending: it is done, or waits for its turn to be
    /// an ending with a clock of its own. Whether there was one.
    pub(crate) fn stop_beside(&self) -> bool {
        // Another thread's clock is not its to stop: what that one runs may hang.
        lock(&self.0).beside.take_if(|(thread, _)| *thread == this_thread()).is_some()
    }

    /// Starts the clock for an ending that has to begin within `patience`, unless one runs: who asks again
    /// and again must not put it off.
    pub(crate) fn start_before(&self, patience: Duration) {
        let timer = KillTimer::new();
        let mut clock = lock(&self.0);
        if clock.running.is_none() {
            let total = clock.of_others().saturating_add(patience);
            clock.running = Some(Running::of_others(total, timer));
        }
    }

    /// How long an ending has that begins now.
    pub(crate) fn granted(&self) -> Duration {
        let clock = lock(&self.0);
        let until_latest = clock.latest.map(|at| at.saturating_duration_since(Instant::now()));
        until_latest.map_or(clock.total, |left| left.min(clock.total))
    }

    fn run(&self, total: Duration, enforcer: Enforcer, timer: Option<KillTimer>) -> bool {
        lock(&self.0).run(total, enforcer, timer)
    }

    /// Stops the clock and disarms the timer. The next ending is not hurried by this one's signal.
    pub(crate) fn stop(&self) {
        let mut clock = lock(&self.0);
        (clock.running, clock.hurried, clock.insisted) = (None, false, false);
    }

    /// What is left, or `None` where there is no deadline or the clock stands still.
    pub(crate) fn remaining(&self) -> Option<Duration> {
        let clock = lock(&self.0);
        let running = clock.running.as_ref().filter(|running| running.paused.is_none())?;
        Some(running.ends?.saturating_duration_since(Instant::now()))
    }

    /// Runs `work` outside the deadline: the clock stands still until it returns, or until
    /// [`Deadline::hurry`].
    pub(crate) fn pause_for<R>(&self, work: impl FnOnce() -> R) -> R {
        self.pause();
        let result = work();
        self.resume();
        result
    }

    /// Lets a clock that stands still run on, and not stand still again in this ending.
    pub(crate) fn hurry(&self) {
        lock(&self.0).hurried = true;
        self.resume();
    }

    /// Has the kernel enforce the deadline of this ending, too, where a thread does it alone: the process is to
    /// be gone behind it, and one that is stopped would stay for ever.
    pub(crate) fn insist(&self) {
        let mut clock = lock(&self.0);
        clock.insisted = true;
        if let Some(running) = &mut clock.running {
            running.insist();
            if running.paused.is_none() {
                running.arm();
            }
        }
    }

    fn pause(&self) {
        let mut clock = lock(&self.0);
        if !clock.hurried
            && let Some(running) = &mut clock.running
        {
            running.pause();
        }
    }

    /// Lets a clock that stands still run on.
    fn resume(&self) {
        let mut clock = lock(&self.0);
        let latest = clock.latest;
        if let Some(running) = &mut clock.running
            && let Some(left) = running.paused.take()
        {
            running.ends = earlier(Instant::now().checked_add(left), latest);
            running.arm();
        }
    }

    /// Leaves the current and every later ending no more than `time` from now.
    pub(crate) fn at_most(&self, time: Duration) {
        let mut clock = lock(&self.0);
        clock.latest = earlier(clock.latest, Instant::now().checked_add(time));
        let latest = clock.latest;
        if let Some(running) = &mut clock.running {
            running.ends = earlier(running.ends, latest);
            if running.paused.is_none() {
                running.arm();
            }
        }
    }
}

impl Running {
    /// One that runs for so long, whatever the latest is.
    fn of_others(total: Duration, timer: Option<KillTimer>) -> Self {
        let ends = Instant::now().checked_add(total);
        let running = Self { ends, paused: None, enforcer: Enforcer::Kernel, timer };
        running.arm();
        running
    }

    fn arm(&self) {
        if let (Some(timer), Some(ends)) = (&self.timer, self.ends) {
            let left = ends.saturating_duration_since(Instant::now());
            match self.enforcer {
                Enforcer::Kernel => timer.arm(left),
                Enforcer::Waiter => timer.arm(left.saturating_add(MARGIN)),
                Enforcer::WaiterAlone => {}
            }
        }
    }

    fn insist(&mut self) {
        if self.enforcer == Enforcer::WaiterAlone {
            self.enforcer = Enforcer::Waiter;
        }
    }

    fn pause(&mut self) {
        self.paused = self.ends.map(|ends| ends.saturating_duration_since(Instant::now()));
        if let Some(timer) = &self.timer {
            timer.disarm();
        }
    }
}

/// The earlier of two moments, where `None` is never.
fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (moment, None) | (None, moment) => moment,
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use super::{Deadline, Enforcer};
    use crate::state::lock;

    #[test]
    fn a_clock_beside_an_ending_is_stopped_by_the_thread_that_started_it_and_no_other() {
        let deadline = Deadline::default();
        // So long that nobody is killed here.
        lock(&deadline.0).total = Duration::MAX;
        deadline.start_beside();
        let another = thread::scope(|scope| scope.spawn(|| deadline.stop_beside()).join().unwrap());
        assert_eq!((another, deadline.stop_beside(), deadline.stop_beside()), (false, true, false));
    }

    #[test]
    fn what_follows_the_finalizers_has_no_more_than_the_parent_granted() {
        let deadline = Deadline::default();
        lock(&deadline.0).total = Duration::MAX;
        deadline.at_most(Duration::from_secs(1000));
        deadline.keep_for_exit();
        assert!(deadline.remaining().is_some());
    }

    #[test]
    fn the_kernel_enforces_a_deadline_too_behind_which_the_process_is_to_be_gone() {
        let deadline = Deadline::default();
        lock(&deadline.0).total = Duration::MAX;
        let enforcer = || lock(&deadline.0).running.as_ref().map(|running| running.enforcer);
        deadline.start(Enforcer::WaiterAlone);
        deadline.insist();
        assert_eq!(enforcer(), Some(Enforcer::Waiter));
        deadline.stop();
        deadline.start(Enforcer::WaiterAlone);
        assert_eq!(enforcer(), Some(Enforcer::WaiterAlone), "the next one is not the last");
        deadline.stop();
        deadline.insist();
        deadline.start(Enforcer::WaiterAlone);
        assert_eq!(enforcer(), Some(Enforcer::Waiter), "before its clock starts");
    }

    #[test]
    fn an_ending_that_is_hurried_before_its_clock_starts_is_hurried() {
        let deadline = Deadline::default();
        deadline.hurry();
        deadline.start(Enforcer::Waiter);
        assert!(deadline.pause_for(|| deadline.remaining()).is_some());
        deadline.stop();
        deadline.start(Enforcer::Waiter);
        assert!(deadline.pause_for(|| deadline.remaining()).is_none(), "the next one is not");
        deadline.stop();
    }
}
