//! Facts of this process that only C knows, and the few things a child sets before it serves.

#![expect(unsafe_code, reason = "libc calls without a safe wrapper")]

use std::ffi::{OsStr, OsString, c_int, c_uint};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::{fs, io};

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// Whether this process runs with more rights than its caller has (setuid, capabilities).
pub(crate) fn is_secure() -> bool {
    // SAFETY: reads one value of the auxiliary vector; 0 where there is none.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// Fails with `EFBIG` if this process may not make a file of that size. To try is to be ended by
/// `SIGXFSZ`: files in memory count as well.
pub(crate) fn check_file_size(bytes: usize) -> io::Result<()> {
    let limit = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_FSIZE);
    match limit {
        Ok((soft, _)) if soft < bytes as u64 => Err(io::Error::from_raw_os_error(libc::EFBIG)),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Takes ownership of a descriptor that this process was started with.
///
/// Called for the wire and the claims only, once, before any other code could have seen them.
pub(crate) fn inherited(fd: c_int) -> io::Result<OwnedFd> {
    // SAFETY: asks for the flags of a descriptor, open or not.
    if unsafe { libc::fcntl(fd, libc::F_GETFD) } == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and the parent put it there for us alone.
    let owned = unsafe { OwnedFd::from_raw_fd(fd) };
    let flag = nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC);
    nix::fcntl::fcntl(&owned, flag)?;
    Ok(owned)
}

/// Closes every descriptor from `first` on.
///
/// Only for a child that the C library could not start so; see `spawn`.
pub(crate) fn close_from(first: c_uint) -> io::Result<()> {
    // SAFETY: the caller is a child before its first thread, and owns none of these.
    match unsafe { libc::syscall(libc::SYS_close_range, first, c_uint::MAX, 0) } {
        0 => Ok(()),
        _ => match Errno::last() {
            // Linux has it since 5.9, and a filter may know it even less.
            Errno::ENOSYS | Errno::EPERM => close_listed_from(first as c_int),
            error => Err(error.into()),
        },
    }
}

/// The same where the kernel does not close many at once.
fn close_listed_from(first: c_int) -> io::Result<()> {
    // Before the listing, which needs a number: a parent may have used all up that there are.
    close_foreign(first);
    listed_descriptors()?.into_iter().filter(|fd| *fd >= first).for_each(close_foreign);
    Ok(())
}

/// The numbers of all descriptors that are open, and of the one through which they were read: nothing has
/// that any more when this returns.
pub(crate) fn listed_descriptors() -> io::Result<Vec<RawFd>> {
    let number = |name: &OsStr| name.to_str()?.parse().ok();
    // Of no entry more than its number: each would keep the listing open.
    let numbers = fs::read_dir("/proc/self/fd")?.map(|entry| Ok(number(&entry?.file_name())));
    Ok(numbers.collect::<io::Result<Vec<_>>>()?.into_iter().flatten().collect())
}

fn close_foreign(fd: c_int) {
    // SAFETY: as in `close_from`. One that is not open is an error, and nothing else.
    unsafe { libc::close(fd) };
}

/// Sets a variable of the environment, or removes it, before any other thread exists.
pub(crate) fn set_variable(name: &str, value: Option<Vec<u8>>) {
    match value.map(OsString::from_vec) {
        // SAFETY: constructors run on the only thread; nobody reads the environment meanwhile.
        Some(value) => unsafe { std::env::set_var(name, value) },
        // SAFETY: as above.
        None => unsafe { std::env::remove_var(name) },
    }
}

/// Makes `signal` do nothing, by a handler: an ignored signal would stay so across `exec`.
pub(crate) fn swallow(signal: Signal) -> nix::Result<()> {
    extern "C" fn nothing(_signal: c_int) {}
    let action = SigAction::new(SigHandler::Handler(nothing), SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler does nothing, so it is async-signal-safe.
    unsafe { sigaction(signal, &action) }.map(drop)
}

/// Ignores `SIGPIPE`, as Rust's own start-up does, which a child does not run.
pub(crate) fn ignore_sigpipe() -> nix::Result<()> {
    let action = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    // SAFETY: ignoring a signal installs no code.
    unsafe { sigaction(Signal::SIGPIPE, &action) }.map(drop)
}

/// Sets the nice value of this process.
pub(crate) fn set_nice(nice: c_int) -> io::Result<()> {
    // SAFETY: three integers; 0 means this process.
    match unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Ends the process at once: no handlers, no finalizers. For a child that must not go on.
pub(crate) fn exit_now(code: c_int) -> ! {
    // SAFETY: does not return, and runs no code of this process.
    unsafe { libc::_exit(code) }
}
