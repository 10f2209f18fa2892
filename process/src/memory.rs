//! Whether the kernel ended a process because there was no memory left.
//!
//! The kernel says so only as a count: how often that happened in a cgroup. A child is in the
//! cgroup of its parent, so a count that has grown since it was last looked at explains a child
//! that was killed by nobody we know.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use epilogue_embed::lent::PerProcess;

/// What the counter was when it was last looked at; none before the first child. Files are read
/// meanwhile: a copy made by `fork` would often find its original's locked, for ever.
static SEEN: PerProcess<Mutex<Option<u64>>> = PerProcess::new();

fn seen() -> MutexGuard<'static, Option<u64>> {
    SEEN.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes where the counter stands, before the first child can be ended.
pub(crate) fn note() {
    let mut seen = seen();
    if seen.is_none() {
        *seen = Some(kills().unwrap_or(0));
    }
}

/// Whether the kernel has ended a process of this cgroup since this was last asked.
pub(crate) fn has_run_out() -> bool {
    let mut seen = seen();
    let Some(now) = kills() else { return false };
    let before = seen.replace(now).unwrap_or(now);
    now > before
}

fn kills() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    groups.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let path = path.trim_start_matches('/');
        match controllers {
            "" => ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
                .iter()
                .find_map(|root| count(&Path::new(root).join(path).join("memory.events"))),
            _ if controllers.split(',').any(|name| name == "memory") => {
                let group: PathBuf = Path::new("/sys/fs/cgroup/memory").join(path);
                count(&group.join("memory.oom_control"))
            }
            _ => None,
        }
    })
}

fn count(file: &Path) -> Option<u64> {
    parse(&fs::read_to_string(file).ok()?)
}

/// Both versions of cgroups have a line `oom_kill N`.
fn parse(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::{has_run_out, note, parse, seen};
    use crate::sys::copy::ends_well_in_a_copy;

    #[test]
    fn a_copy_that_is_made_during_a_look_looks_for_itself() {
        let _looking = seen();
        assert!(ends_well_in_a_copy(|| {
            note();
            has_run_out();
        }));
    }

    #[test]
    fn the_count_is_found_in_both_versions_of_cgroups() {
        assert_eq!(parse("low 0\nhigh 0\nmax 3\noom 2\noom_kill 1\noom_group_kill 0\n"), Some(1));
        assert_eq!(parse("oom_kill_disable 0\nunder_oom 0\noom_kill 7\n"), Some(7));
        assert_eq!(parse("oom_kill_disable 0\nunder_oom 0\n"), None);
    }
}
