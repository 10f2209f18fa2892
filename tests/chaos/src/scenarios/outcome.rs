//! How a program ends to which something is refused: what it says, what it must not leave, and the
//! verdict on it.

use std::fmt::Display;
use std::fs;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::getpid;
use support::{Ending, procfs};

const DONE: &str = "done";
const ERROR: &str = "error: ";

/// Says what came of it, for [`verdict`].
pub(super) fn say<E: Display>(result: &Result<(), E>) {
    match result {
        Ok(()) => println!("{DONE}"),
        Err(error) => println!("{ERROR}{error}"),
    }
}

/// Rust itself ends a program that has no memory, and says so.
const LAST_WORDS: [&str; 3] = ["memory allocation of", "failed to allocate", "failed to set up"];

/// Whether the program told of an error, if all is well.
pub(super) fn verdict(ending: &Ending, call: &str) -> Result<bool, String> {
    let of_memory = ["mmap", "mremap", "munmap", "mprotect", "sigaltstack"].contains(&call);
    // Those of a process that it started are no excuse: that has an owner, who tells.
    let died_of_it = of_memory && ending.signal() == Some(Signal::SIGABRT);
    if died_of_it && LAST_WORDS.iter().any(|words| ending.stderr.contains(words)) {
        return Ok(true);
    }
    if ending.stderr.contains("panicked") || !ending.status.success() {
        return Err(ending.to_string());
    }
    let is_done = ending.stdout.lines().any(|line| line == DONE);
    let is_told = ending.stdout.lines().any(|line| line.starts_with(ERROR));
    if is_done == is_told { Err(format!("neither or both: {ending}")) } else { Ok(is_told) }
}

/// How many descriptors this process has open, with the one that shows them. The fault may hit the
/// look, and only once.
pub(super) fn descriptors() -> usize {
    let count = || fs::read_dir("/proc/self/fd")?.collect::<io::Result<Vec<_>>>();
    count().or_else(|_| count()).unwrap().len()
}

/// Within what those are gone for whom nobody waits.
const SOON: Duration = Duration::from_secs(5);

/// Asserts that this process has no child, not even a zombie, and no thread of the library's.
pub(super) fn nothing_left() {
    gone_soon(|| [threads(), children()].concat());
}

/// The same of threads alone.
pub(super) fn no_thread_left() {
    gone_soon(threads);
}

/// Threads that have nothing more to do end soon. The fault may hit a look, and only one: what two in
/// a row say is so.
fn gone_soon(left: fn() -> Vec<String>) {
    let (deadline, mut looks) = (Instant::now() + SOON, 0);
    while looks < 2 {
        let left = left();
        looks = if left.is_empty() { looks + 1 } else { 0 };
        assert!(looks > 0 || Instant::now() < deadline, "left behind: {left:#?}");
        thread::yield_now();
    }
}

fn threads() -> Vec<String> {
    let mut threads = procfs::threads_of(getpid());
    threads.retain(|thread| thread.name.starts_with("epilogue"));
    threads.iter().map(|thread| format!("thread {thread}")).collect()
}

fn children() -> Vec<String> {
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    let children = waitid(Id::All, look | WaitPidFlag::__WALL);
    if children == Err(Errno::ECHILD) {
        return Vec::new();
    }
    let first = format!("children: {children:?}");
    let all = procfs::descendants_of(getpid());
    std::iter::once(first).chain(all.iter().map(ToString::to_string)).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    const GOOD: i32 = 0;
    const FAILED: i32 = 101 << 8;
    const ABORTED: i32 = Signal::SIGABRT as i32;

    fn judge(status: i32, stdout: &str, stderr: &str, call: &str) -> Option<bool> {
        let status = ExitStatus::from_raw(status);
        let (stdout, stderr) = (stdout.to_owned(), stderr.to_owned());
        verdict(&Ending { status, stdout, stderr }, call).ok()
    }

    #[test]
    fn a_program_says_that_it_is_done_or_what_the_error_is_and_not_neither() {
        assert_eq!(judge(GOOD, "ready\ndone\n", "", "read"), Some(false));
        assert_eq!(judge(GOOD, "ready\nerror: no room\nleft: 3\n", "", "read"), Some(true));
        for neither in ["", "ready\n", "undone\n", "done with\n", "an error: none\n"] {
            assert_eq!(judge(GOOD, neither, "", "read"), None, "{neither}");
        }
        assert_eq!(judge(GOOD, "error: no room\ndone\n", "", "read"), None);
    }

    #[test]
    fn a_panic_or_a_bad_end_is_none_whatever_was_said() {
        assert_eq!(judge(GOOD, "done\n", "thread 'x' panicked at y", "read"), None);
        assert_eq!(judge(FAILED, "done\n", "", "read"), None);
        assert_eq!(judge(ABORTED, "error: no room\n", "", "mmap"), None);
    }

    #[test]
    fn last_words_excuse_the_program_that_died_of_them_and_no_other() {
        let words = "memory allocation of 8 bytes failed\n";
        assert_eq!(judge(ABORTED, "", words, "mmap"), Some(true));
        assert_eq!(judge(ABORTED, "", words, "read"), None);
        assert_eq!(judge(FAILED, "", words, "mmap"), None);
        assert_eq!(judge(GOOD, "", words, "mmap"), None);
        assert_eq!(judge(GOOD, "done\n", words, "mmap"), Some(false));
        assert_eq!(judge(GOOD, "error: it died\n", words, "mmap"), Some(true));
        let panicked = format!("{words}thread 'x' panicked at y\n");
        assert_eq!(judge(GOOD, "error: it died\n", &panicked, "mmap"), None);
    }
}
