//! The system calls that neither std nor nix offers. Each block holds one call.
#![expect(unsafe_code, reason = "these calls have no safe wrapper in std or nix")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::{mem, ptr};

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::Signal;
use nix::time::ClockId;
use nix::unistd::Pid;

/// Opens a descriptor that names the process `pid` for good, or fails if there is none.
pub fn pidfd_open(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: takes two integers and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made `fd` for this call; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Sends `signal` to the process behind `pidfd`, or fails if it has been reaped.
pub fn pidfd_signal(pidfd: BorrowedFd<'_>, signal: Signal) -> io::Result<()> {
    let (fd, signal) = (pidfd.as_raw_fd(), signal as libc::c_int);
    let info = ptr::null::<libc::siginfo_t>();
    // SAFETY: `fd` is borrowed, so it stays open during the call; a null `info` is allowed.
    match unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, info, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether this process may send signals through whatever `fd` is: it sends none.
pub fn may_signal_by_pidfd(fd: RawFd) -> io::Result<()> {
    let info = ptr::null::<libc::siginfo_t>();
    // SAFETY: `fd` is a number, which the kernel looks up; a null `info` is allowed.
    done(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, 0, info, 0) })
}

/// Whether this process may have the standard input of the process that `fd` names, if it names one.
pub fn may_take_descriptor(fd: RawFd) -> io::Result<()> {
    // SAFETY: three integers; what comes of it is closed with this process, or when it executes another.
    done(unsafe { libc::syscall(libc::SYS_pidfd_getfd, fd, 0, 0) })
}

/// Lets any process of this user trace this one, which Yama otherwise forbids to all but its ancestors.
/// Without Yama nobody has to be asked.
pub fn let_all_trace() {
    // SAFETY: takes integers and touches no memory of ours.
    unsafe { libc::prctl(libc::PR_SET_PTRACER, libc::PR_SET_PTRACER_ANY, 0, 0, 0) };
}

/// Whether this process may send signals to the main thread of `pid`: it sends none.
pub fn may_signal_thread(pid: Pid) -> io::Result<()> {
    // SAFETY: takes three integers and touches no memory of ours.
    done(unsafe { libc::syscall(libc::SYS_tgkill, pid.as_raw(), pid.as_raw(), 0) })
}

/// Whether this process may queue signals for `pid`: it queues none.
pub fn may_queue_signal(pid: Pid) -> io::Result<()> {
    let (pid, info) = (pid.as_raw(), queued());
    // SAFETY: the kernel reads one such structure, which lives through the call.
    done(unsafe { libc::syscall(libc::SYS_rt_sigqueueinfo, pid, 0, &raw const info) })
}

/// Whether this process may queue signals for the main thread of `pid`: it queues none.
pub fn may_queue_signal_for_thread(pid: Pid) -> io::Result<()> {
    let (pid, info) = (pid.as_raw(), queued());
    // SAFETY: the kernel reads one such structure, which lives through the call.
    done(unsafe { libc::syscall(libc::SYS_rt_tgsigqueueinfo, pid, pid, 0, &raw const info) })
}

/// What is queued with a signal for another process: the kernel lets nobody pretend to be itself.
fn queued() -> libc::siginfo_t {
    // SAFETY: all of its fields are numbers and pointers, which may be zero.
    let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
    info.si_code = libc::SI_QUEUE;
    info
}

/// Whether this process may look at the limits of `pid`, which is what it takes to change them.
pub fn may_see_limits(pid: Pid) -> io::Result<()> {
    let mut found = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    let (resource, new) = (libc::RLIMIT_NOFILE, ptr::null());
    // SAFETY: a null limit sets nothing; the other one lives through the call.
    done(unsafe { libc::prlimit(pid.as_raw(), resource, new, &raw mut found) }.into())
}

/// Whether this process may look where the main thread of `pid` keeps its list of locks, an address in its memory.
pub fn may_see_locks(pid: Pid) -> io::Result<()> {
    let (mut head, mut length) = (ptr::null_mut::<libc::c_void>(), 0_usize);
    let (pid, head, length) = (pid.as_raw(), &raw mut head, &raw mut length);
    // SAFETY: the kernel writes two words, for which there is room during the call.
    done(unsafe { libc::syscall(libc::SYS_get_robust_list, pid, head, length) })
}

/// Whether this process may look by which policy `pid` is scheduled.
pub fn may_see_policy(pid: Pid) -> io::Result<()> {
    // SAFETY: takes an integer and touches no memory of ours.
    done(unsafe { libc::syscall(libc::SYS_sched_getscheduler, pid.as_raw()) })
}

/// Whether this process may look how urgent `pid` is for that policy.
pub fn may_see_urgency(pid: Pid) -> io::Result<()> {
    let mut found = 0 as libc::c_int;
    // SAFETY: the kernel writes one such number, all that there is of the structure.
    done(unsafe { libc::syscall(libc::SYS_sched_getparam, pid.as_raw(), &raw mut found) })
}

/// Whether this process may look at the priority of `whose`, a process or a user.
pub fn may_see_priority(which: libc::c_int, whose: libc::id_t) -> io::Result<()> {
    // SAFETY: takes two integers and touches no memory of ours.
    done(unsafe { libc::syscall(libc::SYS_getpriority, which, whose) })
}

/// Whether this process may read the clock of the CPU time that `pid` has used.
pub fn may_see_cpu_time(pid: Pid) -> io::Result<()> {
    // The kernel's number for it: the process's, inverted, and the kind of time in the last three bits.
    let clock = ClockId::from_raw(!pid.as_raw() << 3 | 0b10);
    Ok(clock.now().map(drop)?)
}

/// Whether the C library can tell where the stack of this thread is.
pub fn may_see_stack_of_this_thread() -> io::Result<()> {
    let mut found = mem::MaybeUninit::<libc::pthread_attr_t>::uninit();
    // SAFETY: always sound.
    let this = unsafe { libc::pthread_self() };
    // SAFETY: this thread is there, and there is room for what is told of it.
    let refused = unsafe { libc::pthread_getattr_np(this, found.as_mut_ptr()) };
    if refused != 0 {
        return Err(io::Error::from_raw_os_error(refused));
    }
    // SAFETY: it was told, as there was no error, and nobody looks at it any more.
    unsafe { libc::pthread_attr_destroy(found.as_mut_ptr()) };
    Ok(())
}

/// A socket of Multipath TCP, of which nix does not know.
pub fn multipath_socket() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
    // SAFETY: takes three integers and touches no memory of ours.
    let fd = unsafe { libc::socket(libc::AF_INET, kind, libc::IPPROTO_MPTCP) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made `fd` for this call; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// How `landlock_create_ruleset` is asked for the version, rather than for a ruleset.
pub(crate) const CREATE_RULESET_VERSION: u64 = 1;

/// Asks the kernel for the version of its Landlock.
pub(crate) fn landlock_version() -> Result<i64, Errno> {
    let (nothing, size, flags) = (ptr::null::<libc::c_void>(), 0_usize, CREATE_RULESET_VERSION);
    // SAFETY: for the version the kernel reads nothing, and wants a null and no length.
    Errno::result(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, nothing, size, flags) })
}

/// Sets a limit of this process by the older system call, which C libraries do not make any more.
pub fn set_limit_by_the_older_call(resource: u32, value: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: value, rlim_max: value };
    // SAFETY: the kernel reads one such structure, which lives through the call.
    done(unsafe { libc::syscall(libc::SYS_setrlimit, resource, &raw const limit) })
}

fn done(result: libc::c_long) -> io::Result<()> {
    Errno::result(result).map(drop).map_err(io::Error::from)
}

/// Turns an option of a socket on.
pub fn turn_on(socket: RawFd, option: libc::c_int) -> io::Result<()> {
    let (on, length) = (1 as libc::c_int, size_of::<libc::c_int>() as libc::socklen_t);
    let (level, on) = (libc::SOL_SOCKET, (&raw const on).cast());
    // SAFETY: the kernel reads one integer, which lives through the call.
    done(unsafe { libc::setsockopt(socket, level, option, on, length) }.into())
}

/// Ends this process with `code` at once: no `atexit` handler, no destructor, no flush.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: always sound; that nothing is cleaned up is what a fixture asks for.
    unsafe { libc::_exit(code) }
}

/// Gives `signal` its default action: a shell that starts us in the background has us ignore some,
/// which our programs would inherit.
pub fn reset(signal: Signal) {
    // SAFETY: the default action is no code of ours.
    unsafe { libc::signal(signal as libc::c_int, libc::SIG_DFL) };
}

/// Runs `handler` when this process leaves through `exit`.
pub fn at_exit(handler: extern "C" fn()) {
    // SAFETY: `handler` is a function of this program, which is never unloaded.
    let refused = unsafe { libc::atexit(handler) };
    assert_eq!(refused, 0, "atexit has no room left");
}

/// Sets a limit of another process, both the soft and the hard one.
pub fn limit(pid: Pid, resource: nix::sys::resource::Resource, limit: u64) -> io::Result<()> {
    let new = libc::rlimit { rlim_cur: limit, rlim_max: limit };
    // SAFETY: reads `new`, which lives through the call; a null `old` is allowed.
    match unsafe { libc::prlimit(pid.as_raw(), resource as _, &new, ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sets an environment variable of this process, which has one thread.
pub fn set_variable(name: &str, value: &str) {
    // SAFETY: the fixture has no other thread that reads the environment.
    unsafe { std::env::set_var(name, value) };
}
