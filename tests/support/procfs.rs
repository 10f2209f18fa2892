//! Processes and threads as `/proc` shows them.

use std::fmt;
use std::fs;
use std::path::Path;

use nix::unistd::Pid;

/// The kernel's mark on a thread that is past the point of return (`PF_EXITING`).
const EXITING: u64 = 0x4;

/// One process or thread, as it was when it was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub pid: Pid,
    pub parent: Pid,
    /// The name of the thread, at most 15 bytes.
    pub name: String,
    /// `R`unning, `S`leeping, `D`isk sleep, s`T`opped, `Z`ombie.
    pub state: char,
    /// Whether it is ending. A joined thread is still listed for a moment, and is exiting.
    pub exiting: bool,
    /// The command line; empty for a zombie, a thread or a process that hides it.
    pub command: String,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, parent, name, state, command, .. } = self;
        write!(f, "{pid} ({name}, state {state}, parent {parent}) {command}")
    }
}

/// All processes that can be seen.
pub fn processes() -> Vec<Entry> {
    let mut entries = entries_below(Path::new("/proc"));
    for entry in &mut entries {
        let raw = fs::read(format!("/proc/{}/cmdline", entry.pid)).unwrap_or_default();
        let words = raw.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        entry.command = words.collect::<Vec<_>>().join(" ").trim_end().to_owned();
    }
    entries
}

/// How many timers of the kernel's `pid` has; none where the kernel does not tell.
pub fn timers_of(pid: Pid) -> Option<usize> {
    let timers = fs::read_to_string(format!("/proc/{pid}/timers")).ok()?;
    Some(timers.lines().filter(|line| line.starts_with("ID:")).count())
}

/// The threads of `pid` that are not already ending.
pub fn threads_of(pid: Pid) -> Vec<Entry> {
    let look = || entries_below(Path::new(&format!("/proc/{pid}/task")));
    let pids = |threads: &[Entry]| threads.iter().map(|thread| thread.pid).collect::<Vec<_>>();
    let mut threads = look();
    // The kernel ends the listing early if the thread that it has come to ends meanwhile.
    loop {
        let again = look();
        if pids(&again) == pids(&threads) {
            threads.retain(|thread| !thread.exiting);
            return threads;
        }
        threads = again;
    }
}

/// Whether `pid` is there, and neither a zombie nor about to be one.
pub fn lives(pid: Pid) -> bool {
    let stat = fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
    let entry = parse_stat(&String::from_utf8_lossy(&stat));
    entry.is_some_and(|entry| !entry.exiting && !matches!(entry.state, 'Z' | 'X'))
}

/// How many descriptors `pid` has open.
pub fn descriptors_of(pid: Pid) -> usize {
    let own = usize::from(pid == Pid::this());
    // The listing of one's own sees the descriptor that it is read through.
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |listing| listing.count() - own)
}

/// What `pid` has open, by number.
pub fn open_by(pid: Pid) -> Vec<String> {
    let listing = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let look = |entry: fs::DirEntry| {
        let what = fs::read_link(entry.path()).ok()?;
        Some(format!("{} {}", entry.file_name().display(), what.display()))
    };
    listing.filter_map(look).collect()
}

/// The most memory that this process ever had, in KiB.
pub fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// The children of `pid`, their children, and so on; parents before children.
pub fn descendants_of(pid: Pid) -> Vec<Entry> {
    family(pid, processes())
}

fn family(root: Pid, mut strangers: Vec<Entry>) -> Vec<Entry> {
    let mut members: Vec<Entry> = Vec::new();
    loop {
        let is_member = |entry: &Entry| {
            entry.parent == root || members.iter().any(|member| member.pid == entry.parent)
        };
        let (found, rest): (Vec<_>, Vec<_>) = strangers.into_iter().partition(is_member);
        if found.is_empty() {
            return members;
        }
        members.extend(found);
        strangers = rest;
    }
}

fn entries_below(directory: &Path) -> Vec<Entry> {
    let Ok(listing) = fs::read_dir(directory) else {
        return Vec::new();
    };
    // Whatever ends between the listing and the reading is simply not there.
    let stats = listing.flatten().filter_map(|entry| fs::read(entry.path().join("stat")).ok());
    stats.filter_map(|stat| parse_stat(&String::from_utf8_lossy(&stat))).collect()
}

/// Reads a `stat` line. The name may itself contain parentheses and blanks.
fn parse_stat(stat: &str) -> Option<Entry> {
    let (open, close) = (stat.find('(')?, stat.rfind(')')?);
    let mut fields = stat.get(close + 1..)?.split_whitespace();
    Some(Entry {
        pid: Pid::from_raw(stat[..open].trim().parse().ok()?),
        name: stat[open + 1..close].to_owned(),
        state: fields.next()?.chars().next()?,
        parent: Pid::from_raw(fields.next()?.parse().ok()?),
        exiting: fields.nth(4)?.parse::<u64>().ok()? & EXITING != 0,
        command: String::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(pid: i32, parent: i32) -> Entry {
        parse_stat(&format!("{pid} (p) S {parent} 1 1 0 -1 0 0")).unwrap()
    }

    #[test]
    fn a_name_may_look_like_the_end_of_a_name() {
        let entry = parse_stat("42 (a) Z 1 (b)) T 7 42 42 0 -1 4194564 99").unwrap();
        assert_eq!(entry.name, "a) Z 1 (b)");
        assert_eq!((entry.state, entry.parent), ('T', Pid::from_raw(7)));
    }

    #[test]
    fn a_thread_that_is_ending_says_so() {
        assert!(parse_stat("1 (x) R 0 1 1 0 -1 4194308 0").unwrap().exiting);
        assert!(!parse_stat("1 (x) R 0 1 1 0 -1 4194560 0").unwrap().exiting);
    }

    #[test]
    fn a_torn_line_is_no_entry() {
        assert_eq!(parse_stat(""), None);
        assert_eq!(parse_stat("12 (x) S"), None);
    }

    #[test]
    fn a_family_is_found_at_any_depth_and_in_any_order() {
        let found =
            family(Pid::from_raw(1), vec![entry(4, 3), entry(3, 2), entry(2, 1), entry(9, 8)]);
        assert_eq!(found, [entry(2, 1), entry(3, 2), entry(4, 3)]);
    }
}
