//! What a child sets up in itself before any code of the user's runs.
//!
//! All that `posix_spawn` can do is done by it (descriptors, signals, the process group). The
//! rest is here: it travels in the first frame, and a step that fails is a refusal by its name.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use epilogue_embed as embed;
use nix::errno::Errno;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::boot::{Refusal, step};
use crate::child::Grandchildren;
use crate::entry::ForeignFunction;
use crate::panics::{self, Backtraces};
use crate::sys::image::Image;
use crate::sys::process;

/// 0, 1, 2 and the wire.
const OWN_DESCRIPTORS: u64 = 4;

/// What the kernel shall hold a process to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Limited {
    /// Its address space, in bytes.
    Memory,
    /// Its CPU time, in seconds.
    Cpu,
    /// Its open descriptors.
    Descriptors,
    /// The size of files that it writes, in bytes.
    FileSize,
    /// The size of its core file, in bytes.
    Core,
}

/// What a child sets up in itself.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Setup {
    pub(crate) directory: Option<OsString>,
    pub(crate) limits: Vec<(Limited, u64)>,
    pub(crate) nice: Option<i32>,
    pub(crate) cpus: Option<Vec<usize>>,
    pub(crate) grandchildren: Grandchildren,
    pub(crate) backtraces: Backtraces,
    /// How many bytes it may take until it tells so.
    pub(crate) growth: Option<u64>,
}

/// The user's functions that begin and end a child.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Bounds {
    initializer: Option<Named>,
    finalizer: Option<Named>,
}

/// A function without arguments, by its offset.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Named(u64);

impl Named {
    fn new(function: fn()) -> Result<Self, ForeignFunction> {
        let image = Image::this().ok_or(ForeignFunction)?;
        image.offset_of(function as usize).map(Self).ok_or(ForeignFunction)
    }

    fn resolve(self) -> Result<fn(), Refusal> {
        Image::this().and_then(|image| image.initializer(self.0)).ok_or(Refusal::OtherBuild)
    }
}

impl Bounds {
    pub(crate) fn new(
        initializer: Option<fn()>,
        finalizer: Option<fn()>,
    ) -> Result<Self, ForeignFunction> {
        let initializer = initializer.map(Named::new).transpose()?;
        Ok(Self { initializer, finalizer: finalizer.map(Named::new).transpose()? })
    }

    /// Runs the initializer, then registers the finalizer: what was not set up is not taken down.
    pub(crate) fn begin(&self) -> Result<(), Refusal> {
        if let Some(initializer) = self.initializer {
            step("the initializer", panics::catch(initializer.resolve()?))?;
        }
        if let Some(finalizer) = self.finalizer {
            embed::finalizer("finalizer", finalizer.resolve()?);
        }
        Ok(())
    }
}

impl Setup {
    /// Whether a part of it holds for the calling thread, and for those alone that it starts.
    pub(crate) fn is_for_one_thread(&self) -> bool {
        self.nice.is_some() || self.cpus.is_some()
    }

    /// All that needs no watcher.
    pub(crate) fn apply(&self) -> Result<(), Refusal> {
        if let Some(directory) = &self.directory {
            let name = format!("changing to the directory {}", Path::new(directory).display());
            step(&name, std::env::set_current_dir(OsStr::from_bytes(directory.as_bytes())))?;
        }
        for &(limited, value) in &self.limits {
            let (name, resource) = limited.resource();
            let set = match limited {
                // `poll` takes no more than the limit at once: the watcher could not watch.
                Limited::Descriptors if value < OWN_DESCRIPTORS => Err(Errno::EINVAL),
                _ => setrlimit(resource, value, value),
            };
            step(name, set)?;
        }
        if let Some(nice) = self.nice {
            step("setting the nice value", process::set_nice(nice))?;
        }
        if let Some(cpus) = &self.cpus {
            step("setting the CPU affinity", set_affinity(cpus))?;
        }
        Ok(())
    }
}

impl Limited {
    fn resource(self) -> (&'static str, Resource) {
        match self {
            Self::Memory => ("limiting memory", Resource::RLIMIT_AS),
            Self::Cpu => ("limiting CPU time", Resource::RLIMIT_CPU),
            Self::Descriptors => ("limiting descriptors", Resource::RLIMIT_NOFILE),
            Self::FileSize => ("limiting the size of files", Resource::RLIMIT_FSIZE),
            Self::Core => ("limiting core files", Resource::RLIMIT_CORE),
        }
    }
}

fn set_affinity(cpus: &[usize]) -> nix::Result<()> {
    let mut set = CpuSet::new();
    cpus.iter().try_for_each(|&cpu| set.set(cpu))?;
    sched_setaffinity(Pid::from_raw(0), &set)
}
