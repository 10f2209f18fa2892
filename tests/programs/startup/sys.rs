//! Constructors that misbehave, and settings that a start must not pass on. Each block holds one
//! call.
#![expect(unsafe_code, reason = "fixtures must do what safe code cannot")]

use std::ffi::{CStr, OsString, c_char, c_int};
use std::os::fd::IntoRawFd;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use epilogue::embed;
use nix::libc;
use nix::sys::signal::{SigHandler, Signal, raise, signal};
use support::Marks;

type Constructor = extern "C" fn(c_int, *const *const c_char, *const *const c_char);

// SAFETY: a constructor of the type that the section holds, which neither unwinds nor returns
// anything. The number makes it come before every constructor without one, our hook included.
#[used]
#[unsafe(link_section = ".init_array.00200")]
static CONSTRUCTOR: Constructor = constructor;

/// In a child, which bears the name of what it is to do: `program: abort`, `program: abort-1`.
extern "C" fn constructor(_argc: c_int, argv: *const *const c_char, _envp: *const *const c_char) {
    // SAFETY: the loader passes the arguments; a program has at least its own name.
    let first = unsafe { *argv };
    // SAFETY: a zero-terminated string that lives as long as the process.
    let name = unsafe { CStr::from_ptr(first) }.to_string_lossy();
    let Some((_, role)) = name.split_once(": ") else { return };
    match role.split('-').next().unwrap_or_default() {
        "hang" => loop {
            std::thread::sleep(Duration::MAX);
        },
        "abort" => std::process::abort(),
        "thread" => drop(std::thread::spawn(|| support::park_for_ever())),
        "exit" => support::sys::exit_now(3),
        "mark" => mark(),
        "term" => {
            mark();
            // Every signal is blocked now: it stays pending until the child can handle it.
            raise(Signal::SIGTERM).unwrap();
        }
        _ => {}
    }
}

fn mark() {
    Marks::from_env().leave("constructor");
    let _ = embed::finalizer("mark", || Marks::from_env().leave("finalizer"));
}

/// Ignores `which`, as a shell's `nohup` or `trap '' TERM` does for what it starts.
pub fn ignore(which: Signal) {
    // SAFETY: ignoring a signal installs no code.
    unsafe { signal(which, SigHandler::SigIgn) }.unwrap();
}

/// Opens a file that is not closed on exec, and never closed here.
pub fn leak(path: &str) -> i32 {
    let fd = std::fs::File::open(path).unwrap().into_raw_fd();
    // SAFETY: an integer that names an open descriptor of ours.
    assert_eq!(unsafe { libc::fcntl(fd, libc::F_SETFD, 0) }, 0);
    fd
}

/// Closes what every process has.
pub fn close_standard_descriptors() {
    for fd in 0..3 {
        // SAFETY: nobody owns these, and this program does not use them afterwards.
        unsafe { libc::close(fd) };
    }
}

/// Sets a variable to bytes that are no text, as a test cannot in its own process.
pub fn set_variable(name: &str, value: &[u8]) {
    let value = OsString::from_vec(value.to_vec());
    // SAFETY: called by `main` before it starts a thread.
    unsafe { std::env::set_var(name, value) };
}
