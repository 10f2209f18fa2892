//! The standard streams of a child.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::sys::process::check_file_size;

/// Where a standard stream of a process leads.
///
/// # Examples
///
/// ```
/// use epilogue_process::{Process, Stdio};
///
/// let quiet = Process::builder().stdout(Stdio::Capture).stderr(Stdio::Null);
/// let output = quiet.start((), |()| println!("out"))?.join_output();
/// assert_eq!((output.stdout, output.stderr), (b"out\n".to_vec(), Vec::new()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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
    /// It grows with what is written, without an end: for what cannot be trusted to end there is
    /// [`Stdio::CaptureAtMost`]. A child never waits for a reader, so nobody has to read while it
    /// runs.
    Capture,
    /// As [`Stdio::Capture`], up to so many bytes, rounded up to whole pages of 4 KiB. What is
    /// written beyond fails in the child with `EPERM`, which makes `println!` panic; what came
    /// before is given back.
    ///
    /// It has to be written through the stream that was inherited: a program that opens
    /// `/dev/stdout` anew is refused.
    ///
    /// # Examples
    ///
    /// ```
    /// use epilogue_process::{Process, Stdio};
    ///
    /// let builder = Process::builder().stdout(Stdio::CaptureAtMost(10_000));
    /// let process = builder.start((), |()| while std::io::Write::flush(&mut std::io::stdout()).is_ok() {
    ///     println!("again and again");
    /// })?;
    /// let output = process.join_output();
    /// assert!(output.result.is_err() && output.stdout.starts_with(b"again and again\n"));
    /// assert!(output.stdout.len() <= 12_288);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    CaptureAtMost(u64),
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
            Self::CaptureAtMost(bytes) => Prepared::Captured(bounded(*bytes)?),
        })
    }
}

/// All who inherit the stream write at its end, whatever each thinks its position is; and the
/// position that they share with us is not theirs.
fn append_only(memory: File) -> io::Result<File> {
    fcntl(&memory, FcntlArg::F_SETFL(OFlag::O_APPEND))?;
    Ok(memory)
}

/// A file of that many zeroes, of which none takes up memory before it is written, and that cannot
/// grow.
fn bounded(bytes: u64) -> io::Result<File> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let memory = File::from(memfd_create(c"epilogue-output", flags)?);
    let size = bytes.checked_next_multiple_of(PAGE).ok_or(io::ErrorKind::FileTooLarge)?;
    check_file_size(usize::try_from(size).unwrap_or(usize::MAX))?;
    memory.set_len(size)?;
    let seals = SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
    fcntl(&memory, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(memory)
}

/// The kernel refuses a write that crosses the end for the page in which it does.
const PAGE: u64 = 4096;

/// What was written to captured memory. Memory that cannot be read gives what could be: the process
/// has ended well all the same.
pub(crate) fn read_captured(memory: &File) -> Vec<u8> {
    // Its size is not asked for: the kernel may have no memory for that answer.
    let written = match is_bounded(memory) {
        // All who inherited it share our position, which may lie beyond the end.
        true => (&*memory).stream_position(),
        // They write at the end, wherever our position is.
        false => (&*memory).seek(SeekFrom::End(0)),
    };
    let written = written.map_or(0, |len| usize::try_from(len).unwrap_or(usize::MAX));
    let mut bytes = Vec::new();
    let (mut done, mut tries) = (0, TRIES);
    // No further: what the process started may still be writing.
    while done < written {
        let step = STEP.min(written - done);
        if bytes.try_reserve(step).is_err() {
            break;
        }
        bytes.resize(done + step, 0);
        match memory.read_at(&mut bytes[done..], done as u64) {
            Ok(0) => break,
            Ok(some) => done += some,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::OutOfMemory && tries > 0 => {
                tries -= 1;
                thread::sleep(MOMENT);
            }
            Err(_) => break,
        }
    }
    bytes.truncate(done);
    bytes
}

/// How much is read at once.
const STEP: usize = 1 << 20;

/// How often, and after what time, it is tried again where the kernel has no memory for it.
const TRIES: u32 = 100;
const MOMENT: Duration = Duration::from_millis(1);

fn is_bounded(memory: &File) -> bool {
    let seals = fcntl(memory, FcntlArg::F_GET_SEALS).unwrap_or(0);
    SealFlag::from_bits_retain(seals).contains(SealFlag::F_SEAL_GROW)
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
