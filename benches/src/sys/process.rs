//! Processes by the bare system calls: what any way of starting them is measured against.
#![expect(unsafe_code, reason = "these calls have no safe wrapper")]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid};

/// A forked child, to be waited for.
#[must_use]
pub(crate) struct Forked(Pid);

impl Forked {
    pub(crate) fn wait(self) {
        let status = waitpid(self.0, None).expect("our own child");
        assert!(matches!(status, WaitStatus::Exited(_, 0)), "a forked child ended by {status:?}");
    }
}

/// Runs `f` in a fork, which then ends at once.
pub(crate) fn fork(f: impl FnOnce()) -> Forked {
    require_one_thread();
    // SAFETY: there is no other thread, so nothing in the copy is locked for ever.
    match unsafe { nix::unistd::fork() }.expect("a fork") {
        ForkResult::Parent { child } => Forked(child),
        ForkResult::Child => {
            // A panic must not unwind into a second copy of whoever called.
            let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).is_err();
            exit_now(i32::from(code))
        }
    }
}

/// Makes a child of this process's parent, which ends at once; gives its pid.
pub(crate) fn fork_sibling() -> Pid {
    require_one_thread();
    let flags = libc::CLONE_PARENT as libc::c_ulong;
    // SAFETY: without CLONE_VM the child has its own memory and stack; it makes one call, that of
    // its end.
    match unsafe { libc::syscall(libc::SYS_clone, flags, 0usize, 0usize, 0usize, 0usize) } {
        0 => exit_now(0),
        -1 => panic!("clone: {}", io::Error::last_os_error()),
        pid => Pid::from_raw(pid as libc::pid_t),
    }
}

/// Ends this process: no handler, no destructor, no flush.
fn exit_now(code: i32) -> ! {
    // SAFETY: always sound; that nothing is cleaned up is what a fork's end is.
    unsafe { libc::_exit(code) }
}

fn require_one_thread() {
    let threads = std::fs::read_dir("/proc/self/task").expect("/proc").count();
    assert_eq!(threads, 1, "a process with threads is not forked");
}

/// Runs `handler` when this process leaves through `exit`.
pub(crate) fn at_exit(handler: extern "C" fn()) {
    // SAFETY: `handler` is a function of this program, which is never unloaded.
    let refused = unsafe { libc::atexit(handler) };
    assert_eq!(refused, 0, "atexit has no room left");
}

/// Sets a variable of the environment, which the processes that are started later inherit.
pub(crate) fn set_variable(name: &str, value: &std::ffi::OsStr) {
    require_one_thread();
    // SAFETY: no other thread exists that could read the environment.
    unsafe { std::env::set_var(name, value) };
}

/// Has `command` begin a session of its own, by which all that it starts is found. It can be
/// interrupted there, also where whoever started us in the background cannot.
pub(crate) fn in_new_session(command: &mut Command) {
    let begin = || {
        nix::unistd::setsid().map_err(io::Error::from)?;
        // SAFETY: the default action is no code of ours.
        unsafe { signal(Signal::SIGINT, SigHandler::SigDfl) }.map_err(io::Error::from)?;
        Ok(())
    };
    // SAFETY: between fork and exec this makes two system calls, and allocates nothing.
    unsafe { command.pre_exec(begin) };
}
