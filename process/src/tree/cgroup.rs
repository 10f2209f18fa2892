//! A cgroup of a child's own.
//!
//! What it takes to look into it, and to kill all in it, is opened as it is made: later this program may
//! have no descriptor to spare.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// How the names of cgroups begin; the parent's pid and a number follow.
const PREFIX: &str = "epilogue-";

/// A cgroup that was made for one child, and goes with it.
#[derive(Debug)]
pub(crate) struct Cgroup {
    path: PathBuf,
    /// Who is in it, without those in what was made below it.
    procs: File,
    /// Since Linux 5.14, and only for who made it.
    kill: Option<File>,
}

impl Cgroup {
    /// Makes a cgroup below our own.
    pub(super) fn make() -> io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}", std::process::id());
        let own = own_cgroup().ok_or(io::ErrorKind::NotFound)?;
        sweep(&own);
        let path = own.join(name);
        fs::create_dir(&path)?;
        match File::open(path.join("cgroup.procs")) {
            Ok(procs) => {
                let kill = File::options().write(true).open(path.join("cgroup.kill")).ok();
                Ok(Self { path, procs, kill })
            }
            Err(error) => {
                remove(&path);
                Err(error)
            }
        }
    }

    /// The one that this process was put into by its parent, if it was.
    pub(super) fn own(parent: libc::pid_t) -> Option<Self> {
        let path = own_cgroup()?;
        let name = path.file_name()?.to_str()?;
        if !name.starts_with(&format!("{PREFIX}{parent}-")) {
            return None;
        }
        let procs = File::open(path.join("cgroup.procs")).ok()?;
        Some(Self { path, procs, kill: None })
    }

    pub(super) fn add(&self, pid: libc::pid_t) -> io::Result<()> {
        fs::write(self.path.join("cgroup.procs"), pid.to_string())
    }

    /// The processes in it and in what was made below it. Zombies are not listed.
    pub(super) fn members(&self) -> io::Result<BTreeSet<libc::pid_t>> {
        let mut found = BTreeSet::new();
        let mut procs = &self.procs;
        list(procs.rewind().map(|()| procs), &mut found)?;
        collect_below(&self.path, &mut found)?;
        Ok(found)
    }

    /// Kills all that is in it, whoever they are by now; whether that could be done.
    pub(super) fn kill_all(&self) -> bool {
        self.kill.as_ref().is_some_and(|mut kill| kill.write_all(b"1").is_ok())
    }
}

fn list(procs: io::Result<impl Read>, found: &mut BTreeSet<libc::pid_t>) -> io::Result<()> {
    let mut text = String::new();
    match procs.and_then(|mut procs| procs.read_to_string(&mut text)) {
        Ok(_) => found.extend(text.lines().filter_map(|line| line.parse::<libc::pid_t>().ok())),
        // Those of one for threads are listed by the one above it.
        Err(error) if is_gone(&error) || error.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

fn collect_below(path: &Path, found: &mut BTreeSet<libc::pid_t>) -> io::Result<()> {
    match fs::metadata(path) {
        // Its own two links, and one for each that is below: mostly none, and then there is nothing to open.
        Ok(directory) if directory.nlink() <= 2 => return Ok(()),
        Err(error) if is_gone(&error) => return Ok(()),
        _ => {}
    }
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            list(File::open(entry.path().join("cgroup.procs")), found)?;
            collect_below(&entry.path(), found)?;
        }
    }
    Ok(())
}

/// Whether this cgroup has been removed, which the kernel allows if nobody is in it.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV))
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// Removes what a process left here that was killed before it could do so itself. Its number may
/// come again, and then its name would be taken.
fn sweep(own: &Path) {
    for entry in fs::read_dir(own).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let maker = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split_once('-'));
        if let Some((pid, _)) = maker
            && !Path::new("/proc").join(pid).exists()
        {
            // Not one in which something still runs: the kernel refuses that.
            remove(&entry.path());
        }
    }
}

/// Removes a cgroup from the bottom up. One that is not empty stays, which only happens if its
/// child was not waited for, or this program may not end what is in it.
fn remove(path: &Path) {
    let below = fs::read_dir(path).into_iter().flatten().flatten();
    for entry in below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove(&entry.path());
    }
    let _ = fs::remove_dir(path);
}

/// The directory of the cgroup that this process is in, if there is a hierarchy of version 2.
fn own_cgroup() -> Option<PathBuf> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
        .iter()
        .map(|root| Path::new(root).join(path))
        .find(|directory| directory.join("cgroup.procs").exists())
}
