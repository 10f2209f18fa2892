//! The layer that seccomp enforces: the system calls of [`calls`](super::calls).

use std::collections::BTreeMap;
use std::process;

use libc::c_long;
use seccompiler::SeccompCmpArgLen::{Dword, Qword};
use seccompiler::SeccompCmpOp::{Eq, MaskedEq, Ne};
use seccompiler::{
    BackendError, BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp,
    SeccompCondition, SeccompFilter, SeccompRule, TargetArch, apply_filter_all_threads,
};

use super::calls::{
    CLOCKS, COMPUTING, CONNECTING, FCNTL, FILES, IOCTL, LISTENING, OF_ITSELF, OLDER, OLDER_FILES,
    PRCTL, SENDING,
};
use super::{Allowed, PortUse};

/// System calls, and what has to hold for one of their arguments. Without any it always may.
type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

/// Filters the calls of all threads from now on. What files and ports take is left where some are allowed:
/// which ones, Landlock decides.
pub(super) fn install(allowed: &Allowed) -> Result<(), Error> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    // Before the list: it forbids to install another.
    let hidden = hidden()?;
    let hide = SeccompAction::Errno(libc::ENOSYS as u32);
    let hidden = SeccompFilter::new(hidden, SeccompAction::Allow, hide, arch)?;
    let forbid = SeccompAction::Errno(libc::EPERM as u32);
    let allowed = rules(allowed)?;
    let allowed = SeccompFilter::new(allowed, forbid, SeccompAction::Allow, arch)?;
    let programs = [BpfProgram::try_from(hidden)?, BpfProgram::try_from(allowed)?];
    programs.iter().try_for_each(|program| apply_filter_all_threads(program))
}

/// What looks as if this kernel did not have it.
fn hidden() -> Result<Rules, BackendError> {
    // The C library asks for a thread's processors by its number to tell where its stack is, and
    // tells that all the same where there is no such call. With another error it would not.
    let another = SeccompRule::new(vec![
        SeccompCondition::new(0, Dword, Ne, 0)?,
        SeccompCondition::new(0, Dword, Ne, process::id().into())?,
    ])?;
    Ok(Rules::from([(libc::SYS_clone3, Vec::new()), (libc::SYS_sched_getaffinity, vec![another])]))
}

fn rules(allowed: &Allowed) -> Result<Rules, BackendError> {
    let mut rules = Rules::new();
    let mut always = |calls: &[c_long]| rules.extend(calls.iter().map(|call| (*call, Vec::new())));
    always(COMPUTING);
    always(OLDER);
    if allowed.paths() {
        always(FILES);
        always(OLDER_FILES);
    }
    let (connects, listens) = (allowed.ports(PortUse::Connect), allowed.ports(PortUse::Bind));
    if connects {
        always(CONNECTING);
    }
    if listens {
        always(LISTENING);
    }
    if connects || listens {
        rules.insert(libc::SYS_socket, tcp()?);
    }
    let fast_open = libc::MSG_FASTOPEN as u64;
    for (call, flags) in SENDING {
        rules.insert(*call, vec![when(*flags, Dword, MaskedEq(fast_open), 0)?]);
    }
    rules.insert(libc::SYS_setsockopt, options()?);
    let this = u64::from(process::id());
    for call in [libc::SYS_kill, libc::SYS_tgkill, libc::SYS_rt_sigqueueinfo] {
        rules.insert(call, vec![when(0, Dword, Eq, this)?]);
    }
    rules.insert(libc::SYS_rt_tgsigqueueinfo, vec![when(0, Dword, Eq, this)?]);
    // A thread of this process, where a thread is what it makes.
    let thread = libc::CLONE_THREAD as u64;
    rules.insert(libc::SYS_clone, vec![when(0, Qword, MaskedEq(thread), thread)?]);
    for call in OF_ITSELF {
        rules.insert(*call, one_of(0, [0, this].into_iter())?);
    }
    for call in CLOCKS {
        rules.insert(*call, clocks()?);
    }
    rules.insert(libc::SYS_getpriority, vec![priority_of(0)?, priority_of(this)?]);
    rules.insert(libc::SYS_prlimit64, vec![limits_of(0)?, limits_of(this)?]);
    rules.insert(libc::SYS_sched_setaffinity, vec![when(0, Dword, Eq, 0)?]);
    rules.insert(libc::SYS_socketpair, pairs()?);
    if !allowed.paths() {
        // Of what is open: C libraries (the GNU one from 2.33 to 2.38) and Rust's ask by these, for an empty
        // path. A path that is not empty passes as well: it is in memory, which no filter sees.
        let empty = libc::AT_EMPTY_PATH as u64;
        rules.insert(libc::SYS_newfstatat, vec![when(3, Dword, MaskedEq(empty), empty)?]);
        rules.insert(libc::SYS_statx, vec![when(2, Dword, MaskedEq(empty), empty)?]);
    }
    rules.insert(libc::SYS_fcntl, one_of(1, FCNTL.iter().map(|command| *command as u64))?);
    rules.insert(libc::SYS_ioctl, one_of(1, IOCTL.iter().map(|request| *request as u64))?);
    rules.insert(libc::SYS_prctl, one_of(0, PRCTL.iter().map(|option| *option as u64))?);
    Ok(rules)
}

/// The clocks of everybody, whose numbers are not negative, and those of CPU time of this process,
/// by 0 or its number, or of a thread, of which the kernel asks that it is the caller's process's.
fn clocks() -> Result<Vec<SeccompRule>, BackendError> {
    // The number of a process is all but the lowest three bits, inverted.
    let of = |process: u32| when(0, Dword, MaskedEq(!0b111), u64::from(!process << 3));
    let thread = 0b100;
    Ok(vec![
        when(0, Dword, MaskedEq(1 << 31), 0)?,
        when(0, Dword, MaskedEq(thread), thread)?,
        of(0)?,
        of(process::id())?,
    ])
}

/// A look at the priority of `process`, of which 0 is the caller: neither of a group nor of a user.
fn priority_of(process: u64) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(vec![
        SeccompCondition::new(0, Dword, Eq, libc::PRIO_PROCESS as u64)?,
        SeccompCondition::new(1, Dword, Eq, process)?,
    ])
}

/// TCP over IPv4 and IPv6.
fn tcp() -> Result<Vec<SeccompRule>, BackendError> {
    let kind = |family: i32, protocol: i32| {
        SeccompRule::new(vec![
            SeccompCondition::new(0, Dword, Eq, family as u64)?,
            SeccompCondition::new(1, Dword, MaskedEq(SOCKET_TYPE), libc::SOCK_STREAM as u64)?,
            SeccompCondition::new(2, Dword, Eq, protocol as u64)?,
        ])
    };
    let families = [libc::AF_INET, libc::AF_INET6];
    families
        .iter()
        .flat_map(|family| [kind(*family, 0), kind(*family, libc::IPPROTO_TCP)])
        .collect()
}

/// All options but the one that has a TCP socket speak another protocol: of SMC Landlock is not asked.
fn options() -> Result<Vec<SeccompRule>, BackendError> {
    let (level, protocol) = (libc::SOL_TCP as u64, libc::TCP_ULP as u64);
    Ok(vec![when(1, Dword, Ne, level)?, when(2, Dword, Ne, protocol)?])
}

/// The part of a socket's type that is not a flag.
const SOCKET_TYPE: u64 = 0xf;

/// Pairs of sockets, for channels. Not of datagrams: one of those sends to any address.
fn pairs() -> Result<Vec<SeccompRule>, BackendError> {
    let kind = |kind: i32| {
        SeccompRule::new(vec![
            SeccompCondition::new(0, Dword, Eq, libc::AF_UNIX as u64)?,
            SeccompCondition::new(1, Dword, MaskedEq(SOCKET_TYPE), kind as u64)?,
        ])
    };
    [libc::SOCK_STREAM, libc::SOCK_SEQPACKET].into_iter().map(kind).collect()
}

/// A look at the limits of `process`, of which 0 is the caller: they are set before the filter is. With
/// new ones, root would lift what it was given.
fn limits_of(process: u64) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(vec![
        SeccompCondition::new(0, Dword, Eq, process)?,
        SeccompCondition::new(2, Qword, Eq, 0)?,
    ])
}

fn one_of(
    argument: u8,
    values: impl Iterator<Item = u64>,
) -> Result<Vec<SeccompRule>, BackendError> {
    values.map(|value| when(argument, Dword, Eq, value)).collect()
}

fn when(
    argument: u8,
    length: SeccompCmpArgLen,
    comparison: SeccompCmpOp,
    value: u64,
) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(argument, length, comparison, value)?])
}
