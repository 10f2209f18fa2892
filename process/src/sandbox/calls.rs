//! Which system calls a computation needs, and with which arguments.
//!
//! What has a number here is left, all else is not: a call that the kernel gets later is forbidden.
//! It holds what Rust's standard library, the C library's allocator and threads, and this crate's
//! own watcher, ring, channels and finalizers call. Left out on purpose: all that makes a process
//! or looks into another one, that names a file (but for what `stat` tells of it, see `filter`), that
//! makes a socket of a kind that can be given an address later, and `io_uring`, whose calls no filter
//! sees.

use libc::{c_int, c_long};

/// Left whatever their arguments are.
pub(super) const COMPUTING: &[c_long] = &[
    // Memory.
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_memfd_create,
    libc::SYS_mincore,
    libc::SYS_mlock,
    libc::SYS_mlock2,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_msync,
    libc::SYS_munlock,
    libc::SYS_munmap,
    // Threads. Another filter has `clone3` look as if it did not exist: its flags are in memory.
    libc::SYS_clone3,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getcpu,
    libc::SYS_gettid,
    libc::SYS_membarrier,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    // The other filter has it look likewise for another process.
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    // Timers.
    libc::SYS_getitimer,
    libc::SYS_gettimeofday,
    libc::SYS_nanosleep,
    libc::SYS_setitimer,
    libc::SYS_timer_delete,
    libc::SYS_timer_getoverrun,
    libc::SYS_timer_gettime,
    libc::SYS_timer_settime,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_gettime,
    libc::SYS_timerfd_settime,
    // Signals of its own.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigsuspend,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sigaltstack,
    libc::SYS_signalfd4,
    // What it has open, and what has no name.
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
    libc::SYS_fallocate,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_ftruncate,
    libc::SYS_lseek,
    libc::SYS_pipe2,
    libc::SYS_ppoll,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_pselect6,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    // The wire and its channels, which are connected. How they send, and which options they set, is said
    // below and in `filter`.
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_shutdown,
    // What it is.
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_getuid,
    libc::SYS_sysinfo,
    libc::SYS_times,
    libc::SYS_uname,
];

/// Left without `MSG_FASTOPEN` among the flags, which are the argument of this number: with it, what
/// is sent to an address connects to that first, and Landlock is not asked about the port.
pub(super) const SENDING: &[(c_long, u8)] = &[(libc::SYS_sendmsg, 2), (libc::SYS_sendto, 3)];

/// Left with the caller's own number, or 0, as their first argument: they look into any process.
/// The threads of this one have numbers, too, which no filter knows.
pub(super) const OF_ITSELF: &[c_long] = &[
    libc::SYS_get_robust_list,
    libc::SYS_getpgid,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
];

/// Left with a clock of everybody's, or of the caller's own, as their first argument.
pub(super) const CLOCKS: &[c_long] = &[
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_timer_create,
];

/// As [`COMPUTING`], where the architecture has the older calls as well.
#[cfg(target_arch = "x86_64")]
pub(super) const OLDER: &[c_long] = &[
    libc::SYS_alarm,
    libc::SYS_arch_prctl,
    libc::SYS_dup2,
    libc::SYS_epoll_create,
    libc::SYS_epoll_wait,
    libc::SYS_eventfd,
    libc::SYS_getpgrp,
    libc::SYS_getrlimit,
    libc::SYS_pause,
    libc::SYS_pipe,
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_time,
];
#[cfg(not(target_arch = "x86_64"))]
pub(super) const OLDER: &[c_long] = &[];

/// What files need besides, where Landlock decides on each. None of them changes rights, owners or
/// dates of a file, which Landlock does not decide on.
pub(super) const FILES: &[c_long] = &[
    libc::SYS_copy_file_range,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fadvise64,
    libc::SYS_flock,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_linkat,
    libc::SYS_mkdirat,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_readlinkat,
    libc::SYS_renameat2,
    libc::SYS_sendfile,
    libc::SYS_splice,
    libc::SYS_statfs,
    libc::SYS_statx,
    libc::SYS_symlinkat,
    libc::SYS_sync_file_range,
    libc::SYS_truncate,
    libc::SYS_unlinkat,
];

/// As [`FILES`], where the architecture has the older calls as well.
#[cfg(target_arch = "x86_64")]
pub(super) const OLDER_FILES: &[c_long] = &[
    libc::SYS_access,
    libc::SYS_creat,
    libc::SYS_link,
    libc::SYS_lstat,
    libc::SYS_mkdir,
    libc::SYS_open,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_rmdir,
    libc::SYS_stat,
    libc::SYS_symlink,
    libc::SYS_unlink,
];
#[cfg(not(target_arch = "x86_64"))]
pub(super) const OLDER_FILES: &[c_long] = &[];

/// What TCP sockets need besides to connect, where Landlock decides on each port.
pub(super) const CONNECTING: &[c_long] = &[libc::SYS_connect];

/// What they need besides to listen, where Landlock decides on each port that is asked for. It is not asked
/// about a socket that listens and has none yet.
pub(super) const LISTENING: &[c_long] = &[libc::SYS_accept4, libc::SYS_bind, libc::SYS_listen];

/// What may be asked of `fcntl`: not who gets a signal when there is something to read.
pub(super) const FCNTL: &[c_int] = &[
    libc::F_DUPFD,
    libc::F_DUPFD_CLOEXEC,
    libc::F_GETFD,
    libc::F_SETFD,
    libc::F_GETFL,
    libc::F_SETFL,
    libc::F_ADD_SEALS,
    libc::F_GET_SEALS,
    libc::F_GETPIPE_SZ,
    libc::F_SETPIPE_SZ,
    libc::F_GETLK,
    libc::F_SETLK,
    libc::F_SETLKW,
    libc::F_OFD_GETLK,
    libc::F_OFD_SETLK,
    libc::F_OFD_SETLKW,
];

/// What may be asked of `ioctl`: not to type into the terminal (`TIOCSTI`, `TIOCLINUX`).
pub(super) const IOCTL: &[c_int] = &[
    libc::TCGETS as c_int,
    libc::TIOCGWINSZ as c_int,
    libc::FIOCLEX as c_int,
    libc::FIONCLEX as c_int,
    libc::FIONBIO as c_int,
    libc::FIONREAD as c_int,
];

/// `PR_SET_VMA`: names for the parts of its memory, which the C library's allocator gives.
const PR_SET_VMA: c_int = 0x5356_4d41;

/// What may be asked of `prctl`.
pub(super) const PRCTL: &[c_int] = &[
    libc::PR_GET_NAME,
    libc::PR_SET_NAME,
    libc::PR_GET_DUMPABLE,
    libc::PR_GET_PDEATHSIG,
    libc::PR_GET_NO_NEW_PRIVS,
    libc::PR_GET_SECCOMP,
    libc::PR_SET_TIMERSLACK,
    libc::PR_GET_TIMERSLACK,
    PR_SET_VMA,
];
