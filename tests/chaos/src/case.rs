//! One case: a program in a session and a cgroup of its own, and the verdict on it.

use std::any::Any;
use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use support::{Ending, Oracle, Program, Random};

use crate::cli::Extent;
use crate::figures::Figures;
use crate::group::Group;
use crate::oracle;
use crate::scenarios::Scenario;
use crate::seed::Seed;
use crate::watchdog::Watchdog;

/// Enters the cgroup, then becomes the program in a session of its own. Outside of the cgroup there is
/// no program: nobody would see what leaves its subreaper.
const ENTER: &str = "echo $$ > \"$0\" && exec setsid \"$@\"";

/// How those cases are counted whose cgroup sees what they leave behind.
const IN_A_CGROUP: &str = "cases in a cgroup of their own";

/// A case that is being tried.
#[derive(Debug)]
pub(crate) struct Case {
    scenario: &'static Scenario,
    pub(crate) seed: Seed,
    pub(crate) extent: Extent,
    pub(crate) random: Random,
    pub(crate) group: Arc<Group>,
    pub(crate) oracle: Oracle,
    /// Whether its program can have left cgroups behind, since it was killed, or may remove none.
    pub(crate) may_leave_cgroups: bool,
}

impl Case {
    /// Tries it: what it counted, or what is wrong.
    pub(crate) fn run(
        scenario: &'static Scenario,
        seed: Seed,
        extent: Extent,
    ) -> Result<Figures, String> {
        let group = Arc::new(Group::make());
        let (random, oracle) = (seed.random(0), Oracle::begin());
        let watchdog = Watchdog::start((scenario.patience)(extent), Arc::clone(&group));
        let house = if group.is_made() { IN_A_CGROUP } else { "cases without a cgroup" };
        let may_leave_cgroups = false;
        let mut case = Self { scenario, seed, extent, random, group, oracle, may_leave_cgroups };
        let try_it = move || {
            let figures = (scenario.case)(&mut case);
            // The driver's own descriptors: those of the program's pipes must be gone, too.
            case.oracle.nothing_left();
            // The library does not tell of one that it could not remove, and whoever comes later sweeps.
            let below = case.group.below();
            assert!(below.is_empty() || case.may_leave_cgroups, "cgroups are left: {below:?}");
            figures
        };
        let outcome = panic::catch_unwind(AssertUnwindSafe(try_it));
        match (watchdog.end(), outcome) {
            (true, _) => Err("it hung, and was ended".to_owned()),
            (false, Ok(mut figures)) => {
                figures.count(house, u64::from(figures.is_tried()));
                Ok(figures)
            }
            (false, Err(payload)) => Err(message(&*payload)),
        }
    }

    /// The program of this case, told what to do by `arguments`.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        self.command_under(&[], arguments)
    }

    /// The same, started by another program.
    pub(crate) fn command_under(&self, wrapper: &[&str], arguments: &[&str]) -> Command {
        let mut command = Command::new("sh");
        command.arg("-c").arg(ENTER).arg(self.group.entrance()).args(wrapper);
        command.arg(std::env::current_exe().unwrap()).args(["subject", self.scenario.name]);
        command.args([self.seed.run, self.seed.case].map(|number| number.to_string()));
        command.args(arguments).env("RUST_BACKTRACE", "0");
        command
    }

    /// Starts the program, and waits for its first instruction, no longer.
    pub(crate) fn start(&self, command: &mut Command) -> Program {
        let program = Program::start(command);
        let own = fs::read_link("/proc/self/exe").unwrap();
        let link = format!("/proc/{}/exe", program.pid());
        // None once it has ended.
        while fs::read_link(&link).is_ok_and(|exe| exe != own) {
            thread::yield_now();
        }
        program
    }

    /// Asserts that all is gone within `bound`; how long it took.
    #[track_caller]
    pub(crate) fn gone_within(&self, bound: Duration) -> Duration {
        oracle::gone_within(&self.oracle, &self.group, bound)
    }

    /// Waits for the program alone, then has all that it left gone within `bound`: whoever holds its output
    /// would be waited for without one.
    #[track_caller]
    pub(crate) fn ends_within(&self, mut program: Program, bound: Duration) -> Ending {
        program.reap();
        self.gone_within(bound);
        program.finish()
    }

    /// Runs the program to its end, which has to be a good one, with nothing left behind: what it
    /// counted.
    #[track_caller]
    pub(crate) fn ends_well(&self, command: &mut Command, bound: Duration) -> Figures {
        self.ends_well_after(0, command, bound)
    }

    /// The same of one that has so many panics on purpose.
    #[track_caller]
    pub(crate) fn ends_well_after(
        &self,
        panics: usize,
        command: &mut Command,
        bound: Duration,
    ) -> Figures {
        let ending = Program::start(command).finish();
        assert!(ending.status.success(), "{ending}");
        self.gone_within(bound);
        let figures = Figures::said(&ending.stdout);
        panicked(&ending, if figures.is_tried() { panics } else { 0 });
        figures
    }
}

/// Asserts that the program died by that signal.
#[track_caller]
pub(crate) fn died_by(ending: &Ending, signal: Signal) {
    assert_eq!(ending.signal(), Some(signal), "{ending}");
}

/// Asserts that of the program, and of all that it started, so many threads panicked: neither its status nor
/// what it counted tells of a thread of the library's, or of a worker that has a successor.
#[track_caller]
pub(crate) fn panicked(ending: &Ending, times: usize) {
    assert_eq!(ending.stderr.matches("panicked at").count(), times, "{ending}");
}

/// The stack of the kernel may be hidden; what it waits for tells enough.
pub(crate) fn status_field(pid: Pid, name: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.map(|value| value.trim().to_owned())
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("(no message)").to_owned()
}
