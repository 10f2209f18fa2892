//! The standard streams of a child.

use std::fs::File;
use std::io;
use std::sync::Arc;

use nix::sys::memfd::{MFdFlags, memfd_create};

/// Where a standard stream of a process leads.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Stdio {
    /// The same as that of this process. The default for output and errors.
    Inherit,
    /// `/dev/null`. The default for input: a process that reads a terminal would be stopped by it
    /// as soon as it is in the background.
    Null,
    /// This file.
    File(Arc<File>),
    /// Memory, which [`Process::join_output`](crate::Process::join_output) gives back. For input
    /// it is empty.
    ///
    /// It grows with what is written. A child never waits for a reader, so nobody has to read
    /// while it runs.
    Capture,
}

impl From<File> for Stdio {
    fn from(file: File) -> Self {
        Self::File(Arc::new(file))
    }
}

/// A stream with what it needs to be handed over.
#[derive(Debug)]
pub(crate) enum Prepared {
    Inherit,
    Null,
    Given(Arc<File>),
    Captured(File),
}

impl Stdio {
    pub(crate) fn prepare(&self) -> io::Result<Prepared> {
        Ok(match self {
            Self::Inherit => Prepared::Inherit,
            Self::Null => Prepared::Null,
            Self::File(file) => Prepared::Given(Arc::clone(file)),
            Self::Capture => {
                let memory = memfd_create(c"epilogue-output", MFdFlags::MFD_CLOEXEC)?;
                Prepared::Captured(append_only(memory.into())?)
            }
        })
    }
}

/// All who inherit the stream write at its end, whatever each thinks its position is; and the
/// position that they share with us is not theirs.
fn append_only(memory: File) -> io::Result<File> {
    let flags = nix::fcntl::OFlag::O_APPEND;
    nix::fcntl::fcntl(&memory, nix::fcntl::FcntlArg::F_SETFL(flags))?;
    Ok(memory)
}

impl Prepared {
    /// The file that the child's descriptor is to be, if it is one.
    pub(crate) fn file(&self) -> Option<&File> {
        match self {
            Self::Inherit | Self::Null => None,
            Self::Given(file) => Some(file),
            Self::Captured(file) => Some(file),
        }
    }

    pub(crate) fn into_captured(self) -> Option<File> {
        match self {
            Self::Captured(file) => Some(file),
            Self::Inherit | Self::Null | Self::Given(_) => None,
        }
    }
}
