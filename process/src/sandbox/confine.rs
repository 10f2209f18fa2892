//! The layer that Landlock enforces: files, TCP ports, signals, abstract sockets.

use std::ffi::OsStr;
use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, PathBeneath,
    PathFd, RestrictSelfAttr, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
    RulesetStatus, Scope, make_bitflags,
};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{SFlag, fstat};

use super::{Allowed, Enforcement, PathUse, PortUse};
use crate::boot::{Refusal, step};

/// What "all of it" means: Linux 6.12, the first that confines signals.
const WHOLE: ABI = ABI::V6;

/// What is forbidden besides where a newer kernel can: sockets with a path, UDP.
const NEWEST: ABI = ABI::V10;

/// Confines the calling thread, and what it starts from now on.
pub(super) fn confine(allowed: &Allowed) -> Result<Enforcement, Refusal> {
    let paths = open_all(allowed)?;
    // Either all that is asked for or an error, first; then as much as there is.
    let whole = restrict(&paths, allowed, CompatLevel::HardRequirement);
    let (is_whole, restricted) = match whole {
        Ok(restricted) => (true, Ok(restricted)),
        Err(_) => (false, restrict(&paths, allowed, CompatLevel::BestEffort)),
    };
    let (status, all_threads) = match restricted {
        Ok(restricted) => restricted,
        Err(error) => return Ok(Enforcement::Absent(error.to_string())),
    };
    Ok(match status {
        RulesetStatus::NotEnforced => {
            Enforcement::Absent("the kernel has no Landlock, or it is switched off".to_owned())
        }
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced if !is_whole => {
            Enforcement::Partial("the kernel's Landlock is older than Linux 6.12".to_owned())
        }
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => {
            match all_threads || is_alone() {
                true => Enforcement::Full,
                false => Enforcement::Partial(
                    "a thread that a constructor started is not confined".to_owned(),
                ),
            }
        }
    })
}

type Opened = (PathFd, BitFlags<AccessFs>);

/// `/dev/null`, where there is one, is as good as nothing: what has written its coverage data lets
/// the runtime write there as it ends.
fn open_all(allowed: &Allowed) -> Result<Vec<Opened>, Refusal> {
    let null = open(PathUse::Write, OsStr::new("/dev/null")).ok().map(Ok);
    let paths = allowed.paths.iter().map(|(path_use, path)| open(*path_use, path));
    paths.chain(null).collect()
}

/// A path that is not there is no matter of the kernel's version: it is refused in any case.
fn open(path_use: PathUse, path: &OsStr) -> Result<Opened, Refusal> {
    let name = format!("allowing {}", Path::new(path).display());
    let fd = step(&name, PathFd::new(path))?;
    let kind = SFlag::from_bits_truncate(step(&name, fstat(&fd))?.st_mode & SFlag::S_IFMT.bits());
    let rights = match path_use {
        PathUse::Read => make_bitflags!(AccessFs::{ReadFile | ReadDir}),
        PathUse::Execute => make_bitflags!(AccessFs::{ReadFile | ReadDir | Execute}),
        // All but to make devices and to command them.
        PathUse::Write => make_bitflags!(AccessFs::{
            ReadFile | ReadDir | WriteFile | Truncate | RemoveDir | RemoveFile | MakeDir | MakeReg
                | MakeSym | MakeFifo | Refer
        }),
    };
    match kind {
        SFlag::S_IFDIR => Ok((fd, rights)),
        _ => Ok((fd, rights & AccessFs::from_file(WHOLE))),
    }
}

/// Whether it is enforced, and whether for all threads.
fn restrict(
    paths: &[Opened],
    allowed: &Allowed,
    level: CompatLevel,
) -> Result<(RulesetStatus, bool), RulesetError> {
    let ruleset = Ruleset::default()
        .set_compatibility(level)
        .handle_access(AccessFs::from_all(WHOLE))?
        .handle_access(AccessNet::from_all(WHOLE))?
        .scope(Scope::from_all(WHOLE))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?;
    let mut ruleset = ruleset.create()?;
    for (path, rights) in paths {
        ruleset = ruleset.add_rule(PathBeneath::new(path, *rights))?;
    }
    for (port_use, port) in &allowed.ports {
        let right = match port_use {
            PortUse::Bind => AccessNet::BindTcp,
            PortUse::Connect => AccessNet::ConnectTcp,
        };
        ruleset = ruleset.add_rule(NetPort::new(*port, right))?;
    }
    let status = ruleset.all_threads(true)?.restrict_self()?;
    Ok((status.ruleset, status.all_threads))
}

/// Whether this is the only thread. To leave the others is allowed, and does nothing, where there
/// are none.
fn is_alone() -> bool {
    unshare(CloneFlags::CLONE_THREAD).is_ok()
}

#[cfg(test)]
mod tests {
    use super::is_alone;

    #[test]
    fn a_thread_that_is_not_alone_is_seen() {
        let other = std::thread::spawn(std::thread::park);
        assert!(!is_alone());
        other.thread().unpark();
        assert!(other.join().is_ok());
    }
}
