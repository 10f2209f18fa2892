//! A cgroup for a case: nothing that it starts can leave it, and the kernel kills it whole.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

static COUNT: AtomicU64 = AtomicU64::new(0);

/// A cgroup of version 2, or nothing where this user may make none.
#[derive(Debug)]
pub(crate) struct Group(Option<PathBuf>);

impl Group {
    pub(crate) fn make() -> Self {
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let own = groups.lines().find_map(|line| line.strip_prefix("0::/"));
        // Alone, or beside the controllers of version 1.
        let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("chaos-{}-{number}", std::process::id());
        let made = own.and_then(|own| {
            roots.iter().map(|root| Path::new(root).join(own).join(&name)).find(|path| {
                fs::create_dir(path).is_ok() && {
                    let is_one = path.join("cgroup.kill").exists();
                    is_one || fs::remove_dir(path).is_err()
                }
            })
        });
        Self(made)
    }

    /// Whether there is one.
    pub(crate) fn is_made(&self) -> bool {
        self.0.is_some()
    }

    /// The file into which a process writes its pid to enter it.
    pub(crate) fn entrance(&self) -> PathBuf {
        let entrance = self.0.as_ref().map(|path| path.join("cgroup.procs"));
        entrance.unwrap_or_else(|| "/dev/null".into())
    }

    /// Whether anybody runs in it, zombies not counted.
    ///
    /// # Panics
    ///
    /// If nobody can tell, though it was made.
    pub(crate) fn is_populated(&self) -> bool {
        self.0.as_ref().is_some_and(|path| {
            let events = fs::read_to_string(path.join("cgroup.events"));
            let events = events.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            events.contains("populated 1")
        })
    }

    /// The cgroups that were made below it, and are still there.
    ///
    /// # Panics
    ///
    /// If nobody can tell, though it was made.
    pub(crate) fn below(&self) -> Vec<PathBuf> {
        self.0.as_ref().map_or_else(Vec::new, |path| {
            directories(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        })
    }

    /// Kills all that are in it.
    pub(crate) fn kill(&self) {
        if let Some(path) = &self.0 {
            let _ = fs::write(path.join("cgroup.kill"), "1");
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            remove(path);
        }
    }
}

/// What a process of the case made below goes first.
fn remove(path: &Path) {
    directories(path).unwrap_or_default().iter().for_each(|below| remove(below));
    let _ = fs::remove_dir(path);
}

fn directories(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut directories = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            directories.push(entry.path());
        }
    }
    Ok(directories)
}

/// A cgroup with a limit, for a case to enter.
#[derive(Debug)]
pub(crate) struct Limit(PathBuf);

impl Limit {
    /// Makes one for `controller`, of either version, with `file` set to `value`; why the case cannot
    /// be tried where this user may make none.
    pub(crate) fn make(controller: &str, file: &str, value: u64) -> Result<Self, String> {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("chaos-{}-{controller}-{number}", std::process::id());
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap();
        let made = groups.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            let root = match controllers {
                "" => "/sys/fs/cgroup".to_owned(),
                one if one == controller => format!("/sys/fs/cgroup/{controller}"),
                _ => return None,
            };
            let group = Path::new(&root).join(path.trim_start_matches('/')).join(&name);
            fs::create_dir(&group).ok()?;
            if fs::write(group.join(file), value.to_string()).is_ok() {
                return Some(group);
            }
            let _ = fs::remove_dir(&group);
            None
        });
        made.map(Self).ok_or_else(|| format!("no cgroup can be made that limits {controller}"))
    }

    /// Where it is, for the program of a case.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Has this process enter it.
    pub(crate) fn enter(path: &Path) {
        fs::write(path.join("cgroup.procs"), std::process::id().to_string()).unwrap();
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        // Those who have ended leave it a moment after they were reaped.
        for _ in 0..100 {
            if fs::remove_dir(&self.0).is_ok() {
                break;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}
