//! Every system call fails, in every way that it may, at each of its first five times in a process or
//! a thread: no hang, no leak, no panic; a clear error or no effect.
//!
//! The faults are injected by strace, into the program and all that it starts.

use std::io::{BufRead, stdin};
use std::process::Command;
use std::time::Duration;

use nix::unistd::getpid;
use support::{Ending, Program, Random, procfs};

use super::Scenario;
use super::workload::{everything, warm_up};
use crate::case::Case;
use crate::figures::Figures;
use crate::seed::Seed;

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "syscalls",
    story: "every system call x its errors x its first five times, by strace",
    cases: |extent| extent.either(200, cells().len() as u64),
    patience: |_| Duration::from_secs(30),
    case,
    subject,
};

/// The calls that a run of everything makes (`strace -f -c`), and how each may fail.
///
/// Not here: those that cannot fail (`getpid`, `exit`), those of the C library as it starts a program
/// or a thread (`arch_prctl`, `set_robust_list`, `rseq`); `brk`, which answers where the end is, and
/// never with an error; `close`, which never leaves open what it
/// closes, and `futex`, which wakes or is wrong about its address: strace would leave either undone.
/// `write` is only interrupted, since nearly all of ours go to an eventfd, which has room or rings.
const CALLS: &[(&str, &[&str])] = &[
    ("access", &["ENOENT", "EACCES"]),
    ("clock_nanosleep", &["EINTR"]),
    ("clone3", &["EAGAIN", "ENOMEM", "ENOSYS"]),
    ("clone", &["EAGAIN", "ENOMEM"]),
    ("close_range", &["ENOMEM", "ENOSYS"]),
    ("dup2", &["EBUSY", "EINTR", "EMFILE"]),
    ("eventfd2", &["EMFILE", "ENFILE", "ENOMEM"]),
    ("execve", &["E2BIG", "EACCES", "EAGAIN", "ENOENT", "ENOMEM", "ETXTBSY"]),
    ("fcntl", &["EMFILE", "EINVAL", "EPERM"]),
    ("fork", &["EAGAIN", "ENOMEM"]),
    ("fstat", &["ENOMEM", "EIO"]),
    ("ftruncate", &["EINTR", "EIO", "ENOSPC"]),
    ("getcwd", &["ENOENT"]),
    ("getdents64", &["EIO", "ENOENT"]),
    ("getrandom", &["EAGAIN", "EINTR", "ENOSYS"]),
    ("getsockopt", &["ENOMEM", "ENOPROTOOPT", "EMFILE"]),
    ("kill", &["EPERM", "ESRCH"]),
    ("lseek", &["EINVAL"]),
    ("madvise", &["EAGAIN", "EINVAL", "ENOMEM"]),
    ("memfd_create", &["EMFILE", "ENFILE", "ENOMEM"]),
    ("mkdir", &["EACCES", "EEXIST", "ENOENT", "ENOSPC"]),
    ("mmap", &["EAGAIN", "ENOMEM"]),
    ("mprotect", &["ENOMEM"]),
    ("mremap", &["ENOMEM"]),
    ("munmap", &["ENOMEM"]),
    ("openat", &["EACCES", "EINTR", "EMFILE", "ENFILE", "ENOENT", "ENOMEM"]),
    ("pidfd_open", &["EINVAL", "EMFILE", "ENFILE", "ENOMEM", "ENOSYS", "ESRCH"]),
    ("pidfd_send_signal", &["EPERM", "ESRCH"]),
    ("pipe2", &["EMFILE", "ENFILE"]),
    ("poll", &["EINTR", "EINVAL", "ENOMEM"]),
    ("ppoll", &["EINTR", "EINVAL", "ENOMEM"]),
    ("prctl", &["EINVAL", "EPERM"]),
    ("pread64", &["EIO", "EINTR"]),
    ("prlimit64", &["EINVAL", "EPERM"]),
    ("pwrite64", &["ENOSPC", "EINTR"]),
    ("read", &["EINTR", "EIO"]),
    ("readlink", &["EACCES", "ENOENT"]),
    ("recvfrom", &["ECONNRESET", "EINTR", "ENOMEM"]),
    ("recvmsg", &["ECONNRESET", "EINTR", "ENOMEM"]),
    ("rmdir", &["EBUSY", "ENOENT"]),
    ("rt_sigaction", &["EINVAL"]),
    ("rt_sigprocmask", &["EINVAL"]),
    ("rt_sigtimedwait", &["EAGAIN", "EINTR"]),
    ("sched_getaffinity", &["EINVAL"]),
    ("sendmsg", &["ECONNRESET", "EINTR", "EMFILE", "ENOBUFS", "ENOMEM", "EPIPE"]),
    ("sendto", &["ECONNRESET", "EINTR", "ENOBUFS", "EPIPE"]),
    ("setsockopt", &["ENOMEM", "ENOPROTOOPT"]),
    ("shutdown", &["ENOTCONN"]),
    ("sigaltstack", &["ENOMEM"]),
    ("socketpair", &["EMFILE", "ENFILE", "ENOMEM"]),
    ("statx", &["ENOMEM", "ENOSYS", "EACCES"]),
    ("timer_create", &["EAGAIN", "ENOMEM"]),
    ("timer_settime", &["EINVAL"]),
    ("timer_delete", &["EINVAL"]),
    ("unlink", &["ENOENT"]),
    ("wait4", &["ECHILD", "EINTR"]),
    ("waitid", &["ECHILD", "EINTR"]),
    ("write", &["EINTR"]),
];

/// Which of the times that a process or thread makes the call.
const TIMES: u64 = 5;

type Cell = (&'static str, &'static str, u64);

fn cells() -> Vec<Cell> {
    let calls =
        CALLS.iter().flat_map(|(call, errors)| errors.iter().map(move |error| (call, error)));
    calls.flat_map(|(call, error)| (1..=TIMES).map(move |time| (*call, *error, time))).collect()
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
];

/// All cells, in an order that is the run's.
fn cell(seed: Seed) -> Cell {
    let (mut cells, mut random) = (cells(), Random::new(seed.run));
    for last in (1..cells.len()).rev() {
        cells.swap(last, random.below(last as u64 + 1) as usize);
    }
    cells.sort_by_key(|cell| !ONCE_BROKEN.contains(cell));
    cells[seed.case as usize]
}

fn case(case: &mut Case) -> Figures {
    let (call, error, time) = cell(case.seed);
    let mut figures = Figures::default();
    let mut program = case.start(&mut case.command(&[]));
    program.wait_for_line("ready");
    let strace = trace(program.pid().as_raw(), call, error, time);
    program.tell("go");
    let ending = program.finish();
    drop(strace);
    let told = verdict(&ending, call);
    case.gone_within(Duration::from_secs(2));
    let problem = told.unwrap_or_else(|problem| panic!("{call} {error} {time}: {problem}"));
    figures.count("calls failed", 1);
    figures.count(if problem { "errors told" } else { "without effect" }, 1);
    figures
}

/// Attaches strace to the program, which makes a call fail in it and in all that it starts.
fn trace(pid: i32, call: &str, error: &str, time: u64) -> Program {
    let mut command = Command::new("sh");
    command.args(["-c", "exec strace \"$@\" 2>&1", "strace", "-f", "-o", "/dev/null"]);
    // A question mark: where this machine has no such call, there is nothing to fail.
    command.arg("-e").arg(format!("inject=?{call}:error={error}:when={time}"));
    let mut strace = Program::start(command.arg("-p").arg(pid.to_string()));
    strace.wait_for_line("strace: Process");
    strace
}

/// Whether the program told of an error, if all is well.
pub(super) fn verdict(ending: &Ending, call: &str) -> Result<bool, String> {
    let of_memory = ["mmap", "mremap", "munmap", "mprotect", "sigaltstack"].contains(&call);
    // Rust itself ends a program that has no memory, and says so.
    let last_words = ["memory allocation of", "failed to allocate", "failed to set up"];
    if of_memory && last_words.iter().any(|words| ending.stderr.contains(words)) {
        return Ok(true);
    }
    if ending.stderr.contains("panicked") || !ending.status.success() {
        return Err(ending.to_string());
    }
    Ok(!ending.stdout.contains("done"))
}

fn subject(_: Seed, _: &[String]) {
    // The first of everything, so that what stays open for good is open.
    warm_up().unwrap();
    let before = procfs::descriptors_of(getpid());
    println!("ready");
    let _ = stdin().lock().read_line(&mut String::new());
    match everything() {
        Ok(()) => println!("done"),
        Err(error) => println!("error: {error}"),
    }
    let after = procfs::descriptors_of(getpid());
    assert!(after <= before, "{after} descriptors instead of {before}");
}
