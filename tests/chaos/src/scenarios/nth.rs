//! The n-th system call of a kind fails, counted over a program and all that it starts, from the
//! first on: no hang, no leak, no panic; a clear error or no effect, and all works again.
//!
//! The kernel asks for each call (`man 2 seccomp_unotify`). One that fails is not done at all, so only
//! those errors are here with which the kernel itself leaves a call undone, chosen as in `syscalls`. It
//! does not matter which process makes the call.

use std::array;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::{Once, OnceLock};
use std::time::Duration;

use nix::errno::Errno::{
    self, EACCES, EAGAIN, EBUSY, EINTR, EINVAL, EMFILE, ENFILE, ENOBUFS, ENOENT, ENOMEM,
    ENOPROTOOPT, ENOSPC, EPERM, ETOOMANYREFS,
};
use support::{Program, Random};

use super::Scenario;
use super::outcome::{self, MOST_NAME_IT, Told, nothing_left, say, verdict};
use super::workload::everything_and_more;
use crate::answers::{Answers, Fault, ask_for, listener};
use crate::case::Case;
use crate::figures::Figures;
use crate::seed::Seed;

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "nth",
    story: "the n-th system call of a whole tree of processes x errors of its own, by seccomp",
    cases: |extent| extent.either(200, cells(0).len() as u64),
    patience: |_| Duration::from_secs(30),
    least: Some(MOST_NAME_IT),
    case,
    subject,
};

/// A kind of call: its name and number, how it may fail, and how often a tree makes it (`strace -f -c`).
type Kind = (&'static str, libc::c_long, &'static [Errno], u64);

const KINDS: &[Kind] = &[
    ("chdir", libc::SYS_chdir, &[EACCES, ENOMEM], 2),
    ("clone3", libc::SYS_clone3, &[EAGAIN, ENOMEM], 73),
    ("dup2", libc::SYS_dup2, &[EBUSY, EINTR], 75),
    ("eventfd2", libc::SYS_eventfd2, &[EMFILE, ENFILE, ENOMEM], 19),
    ("execve", libc::SYS_execve, &[EAGAIN, ENFILE, ENOMEM], 33),
    ("fallocate", libc::SYS_fallocate, &[EINTR, ENOMEM, ENOSPC], 7),
    ("fchdir", libc::SYS_fchdir, &[EACCES], 4),
    ("fcntl", libc::SYS_fcntl, &[EMFILE], 75),
    ("fstatfs", libc::SYS_fstatfs, &[ENOMEM], 12),
    ("ftruncate", libc::SYS_ftruncate, &[ENOMEM], 37),
    ("futex", libc::SYS_futex, &[EAGAIN, EINTR], 140),
    ("getdents64", libc::SYS_getdents64, &[ENOENT, ENOMEM], 58),
    ("getrusage", libc::SYS_getrusage, &[EPERM], 77),
    ("getsockname", libc::SYS_getsockname, &[ENOBUFS], 3),
    ("getsockopt", libc::SYS_getsockopt, &[EMFILE, ENOPROTOOPT], 27),
    ("ioctl", libc::SYS_ioctl, &[EACCES], 2),
    ("landlock_add_rule", libc::SYS_landlock_add_rule, &[ENOMEM], 3),
    ("landlock_create_ruleset", libc::SYS_landlock_create_ruleset, &[EINVAL, ENOMEM], 2),
    ("landlock_restrict_self", libc::SYS_landlock_restrict_self, &[ENOMEM, EPERM], 1),
    ("madvise", libc::SYS_madvise, &[EAGAIN, ENOMEM], 92),
    ("memfd_create", libc::SYS_memfd_create, &[EMFILE, ENFILE, ENOMEM], 39),
    ("mkdir", libc::SYS_mkdir, &[EACCES, ENOMEM], 2),
    ("mmap", libc::SYS_mmap, &[ENOMEM], 570),
    ("mprotect", libc::SYS_mprotect, &[ENOMEM], 168),
    ("munmap", libc::SYS_munmap, &[ENOMEM], 128),
    ("newfstatat", libc::SYS_newfstatat, &[ENOMEM], 213),
    ("openat", libc::SYS_openat, &[EMFILE, ENFILE, ENOMEM], 256),
    ("pidfd_open", libc::SYS_pidfd_open, &[EMFILE, ENFILE, ENOMEM], 27),
    ("pidfd_send_signal", libc::SYS_pidfd_send_signal, &[EPERM], 12),
    ("poll", libc::SYS_poll, &[EINTR, ENOMEM], 156),
    ("ppoll", libc::SYS_ppoll, &[EINTR, ENOMEM], 34),
    ("prctl", libc::SYS_prctl, &[EINVAL, EPERM], 117),
    ("pread64", libc::SYS_pread64, &[EINTR, ENOMEM], 51),
    ("prlimit64", libc::SYS_prlimit64, &[EPERM], 239),
    ("pwrite64", libc::SYS_pwrite64, &[EINTR, ENOSPC], 2),
    ("read", libc::SYS_read, &[EINTR], 316),
    ("recvfrom", libc::SYS_recvfrom, &[EINTR, ENOMEM], 19),
    ("recvmsg", libc::SYS_recvmsg, &[EINTR, ENOMEM], 223),
    ("rmdir", libc::SYS_rmdir, &[EBUSY, ENOMEM], 4),
    ("sched_setaffinity", libc::SYS_sched_setaffinity, &[EINVAL, EPERM], 2),
    ("seccomp", libc::SYS_seccomp, &[EINVAL, ENOMEM], 4),
    ("sendmsg", libc::SYS_sendmsg, &[EINTR, ENOBUFS, ENOMEM, ETOOMANYREFS], 38),
    ("sendmsg", libc::SYS_sendmsg, &[EAGAIN], 24),
    ("sendto", libc::SYS_sendto, &[EINTR, ENOBUFS, ENOMEM], 184),
    ("sendto", libc::SYS_sendto, &[EAGAIN], 110),
    ("setpgid", libc::SYS_setpgid, &[EPERM], 4),
    ("setpriority", libc::SYS_setpriority, &[EACCES, EPERM], 2),
    ("setsockopt", libc::SYS_setsockopt, &[ENOMEM], 6),
    ("signalfd4", libc::SYS_signalfd4, &[EMFILE, ENFILE, ENOMEM], 3),
    ("socketpair", libc::SYS_socketpair, &[EMFILE, ENFILE, ENOMEM], 40),
    ("statx", libc::SYS_statx, &[ENOMEM], 57),
    ("tgkill", libc::SYS_tgkill, &[EAGAIN, EPERM], 6),
    ("timer_create", libc::SYS_timer_create, &[EAGAIN, ENOMEM], 28),
    ("unshare", libc::SYS_unshare, &[EINVAL, EPERM], 1),
    ("waitid", libc::SYS_waitid, &[EINTR], 59),
    ("write", libc::SYS_write, &[EINTR], 57),
];

/// Each of the first times, and so many of those after them, come before all others.
const FIRST: u64 = 5;
const LATER: usize = 3;

/// Not every call of a kind may fail in its ways.
fn counts(call: libc::c_long, error: Errno) -> fn(&[u64; 6]) -> bool {
    match call {
        // One that waits is never told to come again. What receives is told so where there is nothing,
        // which is not for us to say.
        libc::SYS_sendmsg if error == EAGAIN => |[_, _, flags, ..]| is_without_a_wait(*flags),
        libc::SYS_sendto if error == EAGAIN => |[_, _, _, flags, ..]| is_without_a_wait(*flags),
        // One that wakes only fails where it is wrong.
        libc::SYS_futex => |[_, operation, ..]| {
            let plain = *operation as libc::c_int & libc::FUTEX_CMD_MASK;
            [libc::FUTEX_WAIT, libc::FUTEX_WAIT_BITSET].contains(&plain)
        },
        libc::SYS_fcntl => |[_, command, ..]| *command as libc::c_int == libc::F_DUPFD_CLOEXEC,
        libc::SYS_getsockopt => |[_, _, name, ..]| *name as libc::c_int == libc::SO_PEERPIDFD,
        _ => |_| true,
    }
}

fn is_without_a_wait(flags: u64) -> bool {
    flags as libc::c_int & libc::MSG_DONTWAIT != 0
}

type Cell = (Kind, Errno, u64);

/// What once broke a promise, which every run tries first.
const ONCE_BROKEN: &[(&str, Errno, u64)] = &[
    ("statx", ENOMEM, 19),
    ("pidfd_send_signal", EPERM, 4),
    ("write", EINTR, 5),
    ("getdents64", ENOMEM, 1),
    ("sendmsg", ENOMEM, 3),
    ("sendmsg", ENOBUFS, 13),
    ("sendto", EINTR, 58),
    ("sendto", EAGAIN, 104),
];

/// All cells of a run, in an order that is the run's: first what of each kind a short run has to try.
fn cells(run: u64) -> Vec<Cell> {
    let (mut early, mut others, mut random) = (Vec::new(), Vec::new(), Random::new(run));
    for &kind in KINDS {
        let (_, _, errors, most) = kind;
        for &error in errors {
            let later: [_; LATER] = array::from_fn(|_| 1 + random.below(most));
            for time in 1..=most {
                let is_early = time <= FIRST || later.contains(&time);
                let cells = if is_early { &mut early } else { &mut others };
                cells.push((kind, error, time));
            }
        }
    }
    for cells in [&mut early, &mut others] {
        for last in (1..cells.len()).rev() {
            cells.swap(last, random.below(last as u64 + 1) as usize);
        }
    }
    let kind = |name| KINDS.iter().find(|kind| kind.0 == name).copied();
    let first =
        ONCE_BROKEN.iter().flat_map(|&(name, error, time)| Some((kind(name)?, error, time)));
    first.chain(early).chain(others).collect()
}

fn cell(seed: Seed) -> Cell {
    cells(seed.run)[seed.case as usize]
}

/// Within what everything must be gone once the program is: the grace period of its parts, and more.
const BOUND: Duration = Duration::from_secs(2);

fn case(case: &mut Case) -> Figures {
    let ((name, call, ..), error, time) = cell(case.seed);
    let usual = usual_descriptors(case);
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("listener");
    let socket = UnixDatagram::bind(&place).unwrap();
    let program = case.start(&mut case.command(&[place.to_str().unwrap()]));
    let Some(listener) = listener(&socket, program.pid()) else {
        return skipped(program);
    };
    let answers = Answers::start(listener, Fault { time, error, counts: counts(call, error) });
    let ending = case.ends_within(program, BOUND);
    case.may_leave_cgroups = name == "rmdir" || !ending.status.success();
    let failed = answers.end();
    let what = format!("{name} {error:?} {time}");
    let told = verdict(&ending, Some((name, error)));
    let told = told.unwrap_or_else(|problem| panic!("{what}: {problem}"));
    assert!(failed || told == Told::Nothing, "{what}: nothing failed: {ending}");
    match descriptors(&ending) {
        Some(left) => assert!(left <= usual, "{what}: {left} instead of {usual}: {ending}"),
        // It had no memory to go on.
        None => assert!(!ending.status.success(), "{what}: no word of descriptors: {ending}"),
    }
    if !failed {
        return Figures::not_reached();
    }
    told.figures()
}

/// What a kernel that refuses leaves to do.
fn skipped(program: Program) -> Figures {
    static ONCE: Once = Once::new();
    let ending = program.finish();
    let [why] = ending.after(REFUSED)[..] else { panic!("{ending}") };
    ONCE.call_once(|| eprintln!("nth: SKIPPED, this kernel gives no listener: {why}"));
    Figures::not_tried("this kernel gives no listener")
}

/// How many descriptors a program has open that nothing was refused.
fn usual_descriptors(case: &Case) -> u64 {
    static USUAL: OnceLock<u64> = OnceLock::new();
    *USUAL.get_or_init(|| {
        let ending = case.ends_within(Program::start(&mut case.command(&[])), BOUND);
        descriptors(&ending).unwrap_or_else(|| panic!("{ending}"))
    })
}

const REFUSED: &str = "refused:";
const DESCRIPTORS: &str = "descriptors:";

fn descriptors(ending: &support::Ending) -> Option<u64> {
    ending.after(DESCRIPTORS).first()?.parse().ok()
}

/// Whatever was refused, it was refused once.
fn subject(seed: Seed, arguments: &[String]) {
    let ((_, call, ..), ..) = cell(seed);
    let asked = arguments.first().map_or(Ok(()), |place| ask_for(call, Path::new(place)));
    if let Err(error) = asked {
        return println!("{REFUSED} {error}");
    }
    let result = everything_and_more();
    say(&result);
    if result.is_err() {
        everything_and_more().unwrap_or_else(|error| panic!("no recovery: {error:?}"));
    }
    println!("{DESCRIPTORS} {}", outcome::descriptors());
    nothing_left();
}
