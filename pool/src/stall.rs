//! Stalls: workers that have something to do, and do not get on with it.

use std::fmt;
use std::fs;

/// What is done about a worker that has stalled; see [`Builder::on_stall`](crate::Builder::on_stall).
///
/// Whatever it is, the stall is reported, in [`Pool::stalls`](crate::Pool::stalls) and in the
/// [`Report`](crate::Report); and what the worker had not begun goes to others that are idle
/// and may begin it. A worker that a debugger holds is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnStall {
    /// Nothing more: a worker that is stopped stays so until somebody lets it go on.
    Leave,
    /// One that is stopped is sent `SIGCONT`; if it does not get on by that, it is ended, as is one
    /// that is deaf. One that is silent in a task may have its reasons, and is left alone.
    #[default]
    Continue,
    /// It is ended, within the grace period. The task that it had begun is lost with it, and begun
    /// again if it may be.
    End,
}

/// How a worker has stalled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StallKind {
    /// It is stopped, by `SIGSTOP` or a signal like that.
    Stopped,
    /// A debugger holds it.
    Traced,
    /// It sleeps, and does not begin what it was sent. The same is said of a worker to which the
    /// kernel refused to deliver that for as long, as it does while too many descriptors that this
    /// user's programs have sent were not received yet. A worker that is ended for this has begun
    /// nothing, and what it was sent goes to another one.
    Deaf,
    /// It has begun a task, and neither answers nor uses any CPU.
    Silent,
}

impl fmt::Display for StallKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stopped => "is stopped",
            Self::Traced => "is held by a debugger",
            Self::Deaf => "does not begin what it was sent",
            Self::Silent => "sleeps in a task",
        })
    }
}

/// What was done about a worker that had stalled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reaction {
    /// It was left alone.
    Left,
    /// It was sent `SIGCONT`.
    Continued,
    /// It was ended.
    Ended,
}

/// A worker that had something to do, and did not get on with it, as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stall {
    /// The worker's name.
    pub worker: String,
    /// Its process id.
    pub pid: u32,
    /// What was wrong with it.
    pub kind: StallKind,
    /// The state of its main thread, as `/proc/PID/stat` has it: `S` sleeps, `D` waits for a device,
    /// `T` is stopped, `t` is traced.
    pub state: char,
    /// Where in the kernel it waits, if this process may know: `/proc/PID/wchan`.
    pub waits_in: Option<String>,
    /// What was done about it.
    pub reaction: Reaction,
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { worker, pid, kind, state, .. } = self;
        write!(f, "worker {worker} (pid {pid}) {kind}: state {state}")?;
        if let Some(function) = &self.waits_in {
            write!(f, " in {function}")?;
        }
        f.write_str(match self.reaction {
            Reaction::Left => "; it was left alone",
            Reaction::Continued => "; it was continued",
            Reaction::Ended => "; it was ended",
        })
    }
}

/// A process as `/proc` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Look {
    pub(crate) state: char,
    pub(crate) waits_in: Option<String>,
    /// The CPU time that all of its threads have used, in ticks.
    pub(crate) cpu: u64,
}

impl Look {
    /// Looks at a child that has not been reaped, so that the number is its own. None where `/proc`
    /// is not there, or is hidden.
    pub(crate) fn at(pid: u32) -> Option<Self> {
        let (state, cpu) = parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
        let function = fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default();
        let waits_in = (!function.is_empty() && function != "0").then_some(function);
        Some(Self { state, waits_in, cpu })
    }
}

/// The state and the CPU time in a line of `/proc/PID/stat`; see proc_pid_stat(5).
fn parse(stat: &str) -> Option<(char, u64)> {
    // The name may have anything in it, and ends at the last parenthesis.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let [user, system] = [fields.nth(10)?, fields.next()?].map(str::parse::<u64>);
    Some((state, user.ok()?.saturating_add(system.ok()?)))
}

#[cfg(test)]
mod tests {
    use super::{Look, parse};

    #[test]
    fn a_process_is_read_whatever_its_name_is() {
        let line = "42 (a) R (b c) T 1 42 42 0 -1 4194304 100 0 0 0 7 5 0 0 20 0 2 0 1 2 3";
        assert_eq!(parse(line), Some(('T', 12)));
        assert_eq!(parse("42 (short) S 1 2"), None);
        let own = Look::at(std::process::id()).unwrap();
        assert!("RS".contains(own.state), "{own:?}");
    }
}
