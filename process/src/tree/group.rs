//! A process group of a child's own.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;

use nix::dir::Dir;
use nix::unistd::{Pid, getpgid};

/// A process group, of which nobody but `/proc` tells who is in it.
#[derive(Debug)]
pub(crate) struct Group {
    leader: libc::pid_t,
    /// `/proc`, opened in time: later this program may have no descriptor to spare.
    all: Option<Dir>,
}

impl Group {
    pub(super) fn new(leader: libc::pid_t) -> Self {
        Self { leader, all: open().ok() }
    }

    /// Those in it that run.
    pub(super) fn members(&mut self) -> io::Result<BTreeSet<libc::pid_t>> {
        let group = Pid::from_raw(self.leader);
        let all = match &mut self.all {
            Some(all) => all,
            all => all.insert(open()?),
        };
        let mut found = BTreeSet::new();
        for entry in all.iter() {
            let pid = entry?.file_name().to_str().ok().and_then(|name| name.parse().ok());
            // This asks for nothing to be opened, and most are out of it.
            let is_in_it = |&pid: &libc::pid_t| getpgid(Some(Pid::from_raw(pid))) == Ok(group);
            found.extend(pid.filter(is_in_it).filter(|&pid| runs(pid)));
        }
        Ok(found)
    }
}

fn open() -> io::Result<Dir> {
    Ok(Dir::from_fd(OwnedFd::from(File::open("/proc")?))?)
}

/// Whether that process runs: a zombie has ended already.
fn runs(pid: libc::pid_t) -> bool {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        // The name may hold anything, parentheses included; the state follows the last of them.
        Ok(stat) => stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X'])),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => false,
        // There is no descriptor to be had. What has ended has no program any more, and to read that
        // name takes none.
        Err(_) => {
            let program = fs::read_link(format!("/proc/{pid}/exe"));
            !program.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
        }
    }
}
