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

use super::Least;
use crate::figures::Figures;

const DONE: &str = "done";
const ERROR: &str = "error: ";

/// Says what came of it, each error in a line of its own, for [`verdict`].
pub(super) fn say<E: Display>(result: &Result<(), Vec<E>>) {
    match result {
        Ok(()) => println!("{DONE}"),
        Err(errors) => {
            errors.iter().for_each(|error| {
                println!("{ERROR}{}", error.to_string().replace('\n', " "));
            });
        }
    }
}

/// What a program told of the call that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// Nothing: all went well without it.
    Nothing,
    /// The very error that the kernel gave.
    Cause,
    /// What went wrong by it. A child that dies of it before it can tell takes the cause along.
    Effect,
    /// Nothing of the library's: it had no memory, and Rust ended it, whose last words say so.
    Abort,
}

impl Told {
    /// Counts the case.
    pub(super) fn figures(self) -> Figures {
        let mut figures = Figures::default();
        figures.count("calls failed", 1);
        match self {
            Self::Nothing => figures.count("without effect", 1),
            Self::Abort => figures.count("ended by Rust, without memory", 1),
            Self::Cause | Self::Effect => {
                figures.count("errors told", 1);
                figures.count(NAMING, u64::from(self == Self::Cause));
            }
        }
        figures
    }
}

const NAMING: &str = "of them naming the error number";

/// How many of those that tell of an error have to name its number.
pub(super) const MOST_NAME_IT: Least = Least { what: NAMING, of: "errors told" };

/// Rust itself ends a program that has no memory, and says so.
const LAST_WORDS: [&str; 3] = ["memory allocation of", "failed to allocate", "failed to set up"];

/// What the program told of, if all is well. `fault` is the call that failed, and how.
pub(super) fn verdict(ending: &Ending, fault: Option<(&str, Errno)>) -> Result<Told, String> {
    let call = fault.map_or("", |(call, _)| call);
    let of_memory = ["mmap", "mremap", "munmap", "mprotect", "sigaltstack"].contains(&call);
    // Those of a process that it started are no excuse: that has an owner, who tells.
    let died_of_it = of_memory && ending.signal() == Some(Signal::SIGABRT);
    if died_of_it && LAST_WORDS.iter().any(|words| ending.stderr.contains(words)) {
        return Ok(Told::Abort);
    }
    if ending.stderr.contains("panicked") || !ending.status.success() {
        return Err(ending.to_string());
    }
    let is_done = ending.stdout.lines().any(|line| line == DONE);
    let errors: Vec<_> =
        ending.stdout.lines().filter_map(|line| line.strip_prefix(ERROR.trim_end())).collect();
    if is_done != errors.is_empty() {
        return Err(format!("neither or both: {ending}"));
    }
    if let Some(error) = errors.iter().find(|error| !is_clear(error)) {
        return Err(format!("not a clear error: {error:?}: {ending}"));
    }
    let names = |error: &&str| fault.is_some_and(|(_, number)| names(error, number));
    Ok(match errors.iter().any(names) {
        true => Told::Cause,
        false if is_done => Told::Nothing,
        false => Told::Effect,
    })
}

/// Whether an error is one to a reader: it names an error number, or is a sentence of what went wrong. No
/// text, or a mere value as `Debug` shows it, is none.
fn is_clear(error: &str) -> bool {
    let is_word = |word: &&str| word.len() > 1 && word.chars().all(|c| c.is_ascii_lowercase());
    let words = error.split(|c: char| c.is_whitespace() || ":;,.".contains(c)).filter(is_word);
    words.count() >= WORDS || numbers().any(|number| names(error, number))
}

/// Of how many plain words a sentence is at least: the shortest of the library's has more.
const WORDS: usize = 4;

/// Whether an error names an error number, as the standard library or nix do.
fn names(error: &str, number: Errno) -> bool {
    error.contains(&format!("(os error {})", number as i32))
        || error.contains(&format!("{number:?}: {}", number.desc()))
}

/// All error numbers.
fn numbers() -> impl Iterator<Item = Errno> {
    (1..=133).map(Errno::from_raw)
}

/// The error number of that name.
pub(super) fn number_of(name: &str) -> Errno {
    let number = numbers().find(|number| format!("{number:?}") == name);
    number.unwrap_or_else(|| panic!("no error number is called {name}"))
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

    fn judge(status: i32, stdout: &str, stderr: &str, call: &str) -> Option<Told> {
        let status = ExitStatus::from_raw(status);
        let (stdout, stderr) = (stdout.to_owned(), stderr.to_owned());
        verdict(&Ending { status, stdout, stderr }, Some((call, Errno::ENOMEM))).ok()
    }

    #[test]
    fn a_program_says_that_it_is_done_or_what_the_error_is_and_not_neither() {
        assert_eq!(judge(GOOD, "ready\ndone\n", "", "read"), Some(Told::Nothing));
        let told = "ready\nerror: the child ended too early\nleft: 3\n";
        assert_eq!(judge(GOOD, told, "", "read"), Some(Told::Effect));
        for neither in ["", "ready\n", "undone\n", "done with\n", "an error: none\n"] {
            assert_eq!(judge(GOOD, neither, "", "read"), None, "{neither}");
        }
        let both = "error: the child ended too early\ndone\n";
        assert_eq!(judge(GOOD, both, "", "read"), None);
    }

    #[test]
    fn an_error_is_a_sentence_or_names_a_number_and_that_of_the_fault_is_its_cause() {
        let told = |error: &str| judge(GOOD, &format!("error: {error}\n"), "", "read");
        assert_eq!(told("the child ended too early"), Some(Told::Effect));
        assert_eq!(told("Too many open files (os error 24)"), Some(Told::Effect));
        assert_eq!(told("Cannot allocate memory (os error 12)"), Some(Told::Cause));
        assert_eq!(told("ENOMEM: Out of memory"), Some(Told::Cause));
        let second = "the child ended too early\nerror: no luck (os error 12)";
        assert_eq!(told(second), Some(Told::Cause));
        let empty = ["", " ", "()", "None", "Some(\"\")", "[]", "Broken { cause: None }", "failed"];
        for error in empty {
            assert_eq!(told(error), None, "{error}");
            assert_eq!(told(&format!("{second}\nerror: {error}")), None, "{error}");
        }
        assert_eq!(judge(GOOD, "error:\n", "", "read"), None);
        assert_eq!((number_of("EAGAIN"), number_of("EOPNOTSUPP") as i32), (Errno::EAGAIN, 95));
    }

    #[test]
    fn a_panic_or_a_bad_end_is_none_whatever_was_said() {
        assert_eq!(judge(GOOD, "done\n", "thread 'x' panicked at y", "read"), None);
        assert_eq!(judge(FAILED, "done\n", "", "read"), None);
        assert_eq!(judge(ABORTED, "error: there was no room left\n", "", "mmap"), None);
    }

    #[test]
    fn last_words_excuse_the_program_that_died_of_them_and_no_other() {
        let words = "memory allocation of 8 bytes failed\n";
        let died = "error: it died of something\n";
        assert_eq!(judge(ABORTED, "", words, "mmap"), Some(Told::Abort));
        let figures = Told::Abort.figures();
        assert_eq!((figures.counted("calls failed"), figures.counted("errors told")), (1, 0));
        assert_eq!(judge(ABORTED, "", words, "read"), None);
        assert_eq!(judge(FAILED, "", words, "mmap"), None);
        assert_eq!(judge(GOOD, "", words, "mmap"), None);
        assert_eq!(judge(GOOD, "done\n", words, "mmap"), Some(Told::Nothing));
        assert_eq!(judge(GOOD, died, words, "mmap"), Some(Told::Effect));
        let panicked = format!("{words}thread 'x' panicked at y\n");
        assert_eq!(judge(GOOD, died, &panicked, "mmap"), None);
    }
}
