//! Every system call fails, in the ways that are chosen for it, at each of its first five times in a process
//! or a thread: no hang, no leak, no panic; a clear error or no effect.
//!
//! Chosen are errors that the kernel may give to a call as the library makes it: for what there is too
//! little of (memory, descriptors, processes, room), what is forbidden, what an older kernel does not have,
//! by a signal, and by an end of the other side. Of several after which the library does the same, a few
//! stand for all, as those of a path. None says that an argument was no descriptor and no address. Nor is
//! there `EAGAIN` of calls that may wait: strace does not see whether one does, and the kernel never says it
//! to one that does. `nth` sees that, and has it of what sends.
//!
//! The faults are injected by strace, into the program and all that it starts. Its log tells whether
//! the call was made: a cell of one that was not says nothing. The first case has nothing fail, and
//! looks which calls are made at all.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, stdin};
use std::process::Command;
use std::time::Duration;

use support::{Ending, LANDLOCK_IS_WHOLE, Program, Random, landlock_version, sys};

use super::Scenario;
use super::outcome::{
    MOST_NAME_IT, Told, descriptors, no_thread_left, nothing_left, number_of, say, verdict,
};
use super::workload::{everything_and_more, warm_up};
use crate::case::Case;
use crate::figures::Figures;
use crate::seed::Seed;

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "syscalls",
    story: "every system call x errors of its own x its first five times, by strace",
    cases: |extent| extent.either(300, cells().len() as u64) + 1,
    patience: |_| Duration::from_secs(30),
    least: Some(MOST_NAME_IT),
    case,
    subject,
};

/// The calls that a run of everything makes; how many of them a process or thread makes at least,
/// five where it makes more; and how each may fail.
///
/// `write` is only interrupted, since nearly all of ours go to an eventfd, which has room or rings.
const CALLS: &[(&str, u64, &[&str])] = &[
    ("access", 1, &["ENOENT", "EACCES"]),
    ("chdir", 1, &["EACCES", "ENOENT", "ENOMEM"]),
    ("clone", 1, &["EAGAIN", "ENOMEM"]),
    ("clone3", 5, &["EAGAIN", "ENOMEM", "ENOSYS"]),
    ("close_range", 1, &["ENOMEM", "ENOSYS"]),
    ("dup2", 5, &["EBUSY", "EINTR", "EMFILE"]),
    ("eventfd2", 5, &["EMFILE", "ENFILE", "ENOMEM"]),
    ("execve", 5, &["E2BIG", "EACCES", "EAGAIN", "ENOENT", "ENOMEM", "ETXTBSY"]),
    ("fallocate", 5, &["EINTR", "ENOMEM", "ENOSPC"]),
    ("fchdir", 1, &["EACCES"]),
    ("fcntl", 5, &["EMFILE", "EINVAL", "EPERM"]),
    ("fstatfs", 3, &["EINTR", "EIO", "ENOMEM"]),
    ("ftruncate", 5, &["EINTR", "EIO", "ENOSPC"]),
    ("get_robust_list", 3, &["ENOSYS", "EPERM"]),
    ("getcwd", 1, &["ENOENT"]),
    ("getdents64", 5, &["EIO", "ENOENT"]),
    ("getrandom", 5, &["EAGAIN", "EINTR", "ENOSYS"]),
    ("getrusage", 5, &["EINVAL", "EPERM"]),
    ("getsockname", 2, &["ENOBUFS"]),
    ("getsockopt", 4, &["ENOMEM", "ENOPROTOOPT", "EMFILE"]),
    ("ioctl", 1, &["EACCES", "EINVAL"]),
    ("landlock_add_rule", 3, &["EINVAL", "ENOMEM", "EOPNOTSUPP"]),
    ("landlock_create_ruleset", 2, &["EINVAL", "ENOMEM", "ENOSYS", "EOPNOTSUPP"]),
    ("landlock_restrict_self", 1, &["E2BIG", "ENOMEM", "EPERM"]),
    ("lseek", 5, &["EINVAL"]),
    ("madvise", 5, &["EAGAIN", "EINVAL", "ENOMEM"]),
    ("memfd_create", 5, &["EMFILE", "ENFILE", "ENOMEM"]),
    ("mkdir", 2, &["EACCES", "EEXIST", "ENOENT", "ENOSPC"]),
    ("mmap", 5, &["EAGAIN", "ENOMEM"]),
    ("mprotect", 5, &["ENOMEM"]),
    ("munmap", 5, &["ENOMEM"]),
    ("newfstatat", 5, &["EACCES", "ENOENT", "ENOMEM"]),
    ("openat", 5, &["EACCES", "EINTR", "EMFILE", "ENFILE", "ENOENT", "ENOMEM"]),
    ("pidfd_open", 5, &["EINVAL", "EMFILE", "ENFILE", "ENOMEM", "ENOSYS", "ESRCH"]),
    ("pidfd_send_signal", 5, &["EPERM", "ESRCH"]),
    ("poll", 5, &["EINTR", "EINVAL", "ENOMEM"]),
    ("ppoll", 4, &["EINTR", "EINVAL", "ENOMEM"]),
    ("prctl", 5, &["EINVAL", "EPERM"]),
    ("pread64", 2, &["EIO", "EINTR"]),
    ("prlimit64", 5, &["EINVAL", "EPERM"]),
    ("preadv2", 5, &["EAGAIN", "ENOSYS", "EOPNOTSUPP"]),
    ("pwrite64", 2, &["ENOSPC", "EINTR"]),
    ("read", 5, &["EINTR", "EIO"]),
    ("recvfrom", 5, &["ECONNRESET", "EINTR", "ENOMEM"]),
    ("recvmsg", 5, &["ECONNRESET", "EINTR", "ENOMEM"]),
    ("rmdir", 2, &["EBUSY", "ENOENT"]),
    ("rt_sigaction", 5, &["EINVAL"]),
    ("rt_sigprocmask", 5, &["EINVAL"]),
    ("sched_getaffinity", 5, &["EINVAL"]),
    ("sched_setaffinity", 1, &["EINVAL", "EPERM"]),
    ("seccomp", 2, &["EACCES", "EINVAL", "ENOMEM", "ENOSYS"]),
    (
        "sendmsg",
        5,
        &["ECONNRESET", "EINTR", "EMFILE", "ENOBUFS", "ENOMEM", "EPIPE", "ETOOMANYREFS"],
    ),
    ("sendto", 5, &["ECONNRESET", "EINTR", "ENOBUFS", "EPIPE"]),
    ("setpgid", 1, &["EACCES", "EPERM"]),
    ("setpriority", 1, &["EACCES", "EPERM"]),
    ("setsockopt", 5, &["ENOMEM", "ENOPROTOOPT"]),
    ("shutdown", 5, &["ENOTCONN"]),
    ("sigaltstack", 3, &["ENOMEM"]),
    ("signalfd4", 1, &["EMFILE", "ENFILE", "ENOMEM"]),
    ("socketpair", 5, &["EMFILE", "ENFILE", "ENOMEM"]),
    ("statx", 5, &["ENOMEM", "ENOSYS", "EACCES"]),
    ("tgkill", 5, &["EAGAIN", "EPERM", "ESRCH"]),
    ("timer_create", 2, &["EAGAIN", "ENOMEM"]),
    ("timer_delete", 1, &["EINVAL"]),
    ("timer_settime", 2, &["EINVAL"]),
    ("unshare", 1, &["EINVAL", "EPERM"]),
    ("waitid", 5, &["ECHILD", "EINTR"]),
    ("write", 5, &["EINTR"]),
];

/// Calls that are made, or could be, and do not fail here, and why.
const LEFT_OUT: &[(&[&str], &str)] = &[
    (
        &["arch_prctl", "rseq", "set_robust_list", "set_tid_address"],
        "the C library's, as it starts",
    ),
    (&["brk"], "answers where the end is, and never with an error"),
    (&["mremap"], "the C library's, where it pleases"),
    (
        &["dup", "faccessat2", "fork", "fstat", "lstat", "open", "pipe", "poll", "stat", "vfork"],
        "other C libraries' for some on the table",
    ),
    (&["close"], "never leaves open what it closes, as strace would"),
    (&["futex"], "wakes or is wrong about its address; strace would leave it undone"),
    (&["exit", "exit_group", "rt_sigreturn", "sched_yield"], "cannot fail"),
    (&["getpgrp", "getpid", "getppid", "getresgid", "getresuid", "gettid"], "cannot fail"),
    (&["restart_syscall"], "the kernel's, after strace stopped one that waits"),
    (&["clock_nanosleep"], "a pause before something is tried again"),
    (&["kill", "readlink", "wait4"], "made only once another call has failed"),
    (&["rename", "rt_sigtimedwait", "unlink"], "made only where coverage is written"),
];

type Cell = (&'static str, &'static str, u64);

fn cells() -> Vec<Cell> {
    let mut cells = Vec::new();
    for &(call, most, errors) in CALLS {
        for &error in errors {
            cells.extend((1..=most).map(|time| (call, error, time)));
        }
    }
    cells
}

/// Those that once broke a promise, which every run tries first.
const ONCE_BROKEN: &[Cell] = &[
    ("write", "EINTR", 1),
    ("write", "EINTR", 2),
    ("write", "EINTR", 3),
    ("write", "EINTR", 5),
    ("pidfd_send_signal", "ESRCH", 4),
    ("pidfd_send_signal", "EPERM", 4),
    ("getrandom", "EAGAIN", 1),
    ("sendmsg", "EPIPE", 1),
    ("sendmsg", "ECONNRESET", 1),
    ("sendto", "EPIPE", 3),
    ("sendto", "EPIPE", 4),
    ("sendto", "ECONNRESET", 3),
    ("sendto", "ECONNRESET", 4),
];

/// All cells, in an order that is the run's.
fn cell(run: u64, number: u64) -> Cell {
    let (mut cells, mut random) = (cells(), Random::new(run));
    for last in (1..cells.len()).rev() {
        cells.swap(last, random.below(last as u64 + 1) as usize);
    }
    cells.sort_by_key(|cell| !ONCE_BROKEN.contains(cell));
    cells[number as usize]
}

/// The first one looks at the table, the others are its cells.
fn case(case: &mut Case) -> Figures {
    match case.seed.case.checked_sub(1) {
        None => census(case),
        Some(number) => fail(case, cell(case.seed.run, number)),
    }
}

/// How many runs have to be looked at, at most, until each call was made as often as it can be.
const CENSUSES: usize = 10;

/// Asserts that the table is that of the calls which are made.
fn census(case: &mut Case) -> Figures {
    let mut made = BTreeMap::new();
    // Which thread makes a call differs from run to run: one that often makes it twice, in some only once.
    for _ in 0..CENSUSES {
        note_times(case, &mut made);
        if asked_too_often(&made).is_empty() {
            break;
        }
    }
    let known = |name: &str| {
        CALLS.iter().any(|&(call, ..)| call == name)
            || LEFT_OUT.iter().any(|(calls, _)| calls.contains(&name))
    };
    let strangers: Vec<_> = made.keys().filter(|name| !known(name)).collect();
    assert!(strangers.is_empty(), "made, and neither on the table nor left out: {strangers:?}");
    let beyond = asked_too_often(&made);
    assert!(beyond.is_empty(), "on the table, and not made so often: {beyond:?}");
    let none = CALLS.iter().filter(|&&(call, ..)| !made.contains_key(call)).count();
    let mut figures = Figures::default();
    figures.count("kinds of calls made", made.len() as u64);
    figures.count("kinds on the table that nobody made", none as u64);
    figures
}

/// Adds how often each call is made in one run.
fn note_times(case: &mut Case, made: &mut BTreeMap<String, u64>) {
    let (ending, log) = trace(case, &[]);
    assert_eq!(verdict(&ending, None), Ok(Told::Nothing), "nothing was made to fail: {ending}");
    for (call, times) in times_made(&log) {
        let most = made.entry(call.to_owned()).or_default();
        *most = (*most).max(times);
    }
}

/// The calls on the table that nobody made so often as it asks. Another C library may have another call
/// for one that is not made at all, whose cells are not reached, then. An older Landlock has fewer rules.
fn asked_too_often(made: &BTreeMap<String, u64>) -> Vec<(&'static str, u64)> {
    let has_all_rules = landlock_version() >= LANDLOCK_IS_WHOLE;
    let asked = CALLS.iter().map(|&(call, most, _)| (call, most));
    let asked = asked.filter(|(call, _)| has_all_rules || !call.starts_with("landlock_"));
    asked.filter(|&(call, most)| made.get(call).is_some_and(|&times| times < most)).collect()
}

/// How often each call is made by the thread that makes it most often.
fn times_made(log: &str) -> BTreeMap<&str, u64> {
    let (mut threads, mut most) = (BTreeMap::new(), BTreeMap::new());
    for (thread, call) in log.lines().filter_map(call_of) {
        let times: &mut u64 = threads.entry((thread, call)).or_default();
        *times += 1;
        let most: &mut u64 = most.entry(call).or_default();
        *most = (*most).max(*times);
    }
    most
}

/// Who makes which call in a line of the log: none if that tells of a signal, of an end, or that a
/// call goes on.
fn call_of(line: &str) -> Option<(&str, &str)> {
    let (thread, rest) = line.split_once(' ')?;
    let (call, _) = rest.trim_start().split_once('(')?;
    let is_name = call.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    (is_name && !call.is_empty()).then_some((thread, call))
}

fn fail(case: &mut Case, (call, error, time): Cell) -> Figures {
    // A question mark: where this machine has no such call, there is nothing to fail.
    let only = format!("trace=?{call}");
    let inject = format!("inject=?{call}:error={error}:when={time}");
    let (ending, log) = trace(case, &["-e", &only, "-e", &inject]);
    case.may_leave_cgroups = call == "rmdir" || !ending.status.success();
    let told = verdict(&ending, Some((call, number_of(error))));
    let told = told.unwrap_or_else(|problem| panic!("{call} {error} {time}: {problem}"));
    if !log.contains("(INJECTED)") {
        assert!(told == Told::Nothing, "{call} {error} {time}: nothing failed: {ending}");
        return Figures::not_reached();
    }
    told.figures()
}

/// Within what everything must be gone once the program is: the grace period of its parts, and more.
const BOUND: Duration = Duration::from_secs(2);

/// Runs the program under strace, which traces all that it starts, too: how it ended, and the log.
fn trace(case: &mut Case, options: &[&str]) -> (Ending, String) {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let mut program = case.start(&mut case.command(&[]));
    program.wait_for_line("ready");
    let mut command = Command::new("sh");
    command.args(["-c", "exec strace \"$@\" 2>&1", "strace", "-f", "-o"]).arg(&log).args(options);
    let mut strace = Program::start(command.arg("-p").arg(program.pid().to_string()));
    strace.wait_for_line("strace: Process");
    program.tell("go");
    program.reap();
    // It writes each line before it lets the call return. Whoever is left goes on without it.
    drop(strace);
    let ending = case.ends_within(program, BOUND);
    (ending, String::from_utf8_lossy(&fs::read(log).unwrap()).into_owned())
}

fn subject(seed: Seed, _: &[String]) {
    // The first of everything, so that what stays open for good is open.
    warm_up().unwrap();
    let before = descriptors();
    // Strace is no ancestor of ours.
    sys::let_all_trace();
    println!("ready");
    let _ = stdin().lock().read_line(&mut String::new());
    say(&everything_and_more());
    let after = descriptors();
    assert!(after <= before, "{after} descriptors instead of {before}");
    match seed.case.checked_sub(1).map(|number| cell(seed.run, number)) {
        // Whoever is told that other code has reaped a child leaves it alone: its pid may be a
        // stranger's. But nobody did, and it stays a zombie.
        Some(("waitid", "ECHILD", _)) => no_thread_left(),
        _ => nothing_left(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_tells_how_often_the_thread_makes_a_call_that_makes_it_most_often() {
        let log = "7  read(0, \"go\\n\", 8) = 3\n\
                   8  read(5 <unfinished ...>\n\
                   7  close(5) = 0\n\
                   8  <... read resumed>, \"\", 1) = -1 EINTR (Interrupted) (INJECTED)\n\
                   8  --- SIGTERM {si_signo=SIGTERM} ---\n\
                   8  read(5, \"\", 1) = 0\n\
                   8  +++ exited with 0 +++\n";
        assert_eq!(times_made(log), BTreeMap::from([("close", 1), ("read", 2)]));
    }
}
