//! Saves the coverage profile from anywhere, a signal handler included.
//!
//! # Invariants
//! 1. A file that a merge would read is always whole: written beside, renamed when complete.
//! 2. From [`Snapshot::save`] to its return nothing allocates, takes a lock of libc or prints.
//! 3. The lock's holder has every signal blocked, so a handler that waits for it never waits for
//!    the thread it interrupted. A holder that stayed behind in a `fork`'s original is ignored.
//! 4. Each process writes its own file: the pid is put into the name when it is saved.

use std::cell::UnsafeCell;
use std::ffi::{CStr, c_int};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use nix::errno::Errno;

use super::mask;
use super::runtime::Runtime;
use crate::name::FileName;

/// What could not be done, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SaveError {
    pub(crate) step: &'static str,
    pub(crate) errno: Errno,
}

/// Everything a save needs, reserved beforehand.
#[derive(Debug)]
pub(crate) struct Snapshot {
    runtime: Runtime,
    /// The process that is using `reserved`, or zero.
    holder: AtomicU32,
    reserved: UnsafeCell<Reserved>,
    /// Nothing is saved from here on: the runtime's own write at exit has the counts, or nobody will.
    closed: AtomicBool,
}

#[derive(Debug)]
struct Reserved {
    buffer: Box<[u8]>,
    part: FileName,
    whole: FileName,
}

// SAFETY: `reserved` is only reached through `exclusively`, which lets one thread in at a time.
unsafe impl Sync for Snapshot {}

impl Snapshot {
    /// Reserves the memory; `stem` and `tail` go before and after the pid in the file's name.
    pub(crate) fn new(runtime: Runtime, stem: &[u8], tail: &[u8]) -> Self {
        let buffer = vec![0; runtime.size()].into_boxed_slice();
        let part = FileName::new(stem, &[tail, b".tmp"].concat());
        let whole = FileName::new(stem, &[tail, b".profraw"].concat());
        Self {
            runtime,
            holder: AtomicU32::new(0),
            reserved: UnsafeCell::new(Reserved { buffer, part, whole }),
            closed: AtomicBool::new(false),
        }
    }

    /// Writes the counts as they are now, in place of what this process saved before.
    ///
    /// Every signal must be blocked in this thread. Async-signal-safe.
    pub(crate) fn save(&self) -> Result<(), SaveError> {
        // Before the lock, too: else who closes might wait for as long as signals come.
        if self.closed.load(Ordering::Acquire) {
            return Ok(());
        }
        self.exclusively(|reserved| {
            if self.closed.load(Ordering::Acquire) {
                return Ok(());
            }
            if !self.runtime.write(&mut reserved.buffer) {
                return Err(SaveError { step: "copy the counters", errno: Errno::ENOBUFS });
            }
            let pid = std::process::id();
            let part = reserved.part.with_pid(pid);
            let saved = write_file(part, &reserved.buffer)
                .and_then(|()| rename(part, reserved.whole.with_pid(pid)));
            saved.inspect_err(|_| remove(part))
        })
    }

    /// Takes away what this process saved, and saves no more: the runtime's own write takes over.
    ///
    /// Every signal must be blocked in this thread. Async-signal-safe.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.exclusively(|reserved| remove(reserved.whole.with_pid(std::process::id())));
    }

    /// Saves no more: what this process has saved is the last word. Whoever was saving is done when this
    /// returns, so that the death that follows leaves no part of a file. Tells whether more was saved before.
    ///
    /// Every signal must be blocked in this thread. Async-signal-safe.
    pub(crate) fn keep(&self) -> bool {
        let was_closed = self.closed.swap(true, Ordering::AcqRel);
        self.exclusively(|_| ());
        !was_closed
    }

    /// Saves again after [`Snapshot::keep`]: no death followed.
    pub(crate) fn reopen(&self) {
        self.closed.store(false, Ordering::Release);
    }

    /// This process's file. Every signal must be blocked in this thread. Allocates.
    pub(crate) fn path(&self) -> Vec<u8> {
        let path = |name: &CStr| name.to_bytes().to_vec();
        self.exclusively(|reserved| path(reserved.whole.with_pid(std::process::id())))
    }

    fn exclusively<R>(&self, work: impl FnOnce(&mut Reserved) -> R) -> R {
        let me = std::process::id();
        loop {
            let holder = self.holder.load(Ordering::Relaxed);
            let is_free = holder != me;
            let take =
                |from| self.holder.compare_exchange(from, me, Ordering::Acquire, Ordering::Relaxed);
            if is_free && take(holder).is_ok() {
                break;
            }
            // The holder is on its way: it writes one file and lets nothing interrupt it.
            yield_now();
        }
        // SAFETY: `holder` names this process, set by this thread just now; every other thread
        // waits above until the store below.
        let result = work(unsafe { &mut *self.reserved.get() });
        self.holder.store(0, Ordering::Release);
        result
    }
}

/// Makes the file with these bytes, all of them or an error.
fn write_file(path: &CStr, mut bytes: &[u8]) -> Result<(), SaveError> {
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC | libc::O_CLOEXEC | libc::O_NOFOLLOW;
    let mode: libc::c_uint = 0o666;
    // SAFETY: a C string and plain integers.
    let file = check("open", || unsafe { libc::open(path.as_ptr(), flags, mode) } as isize)?;
    let file = above_standard(c_int::try_from(file).unwrap_or(-1))?;
    let mut written = Ok(());
    while !bytes.is_empty() && written.is_ok() {
        // SAFETY: `file` is open, and the pointer and length are those of a live slice.
        let write = || unsafe { libc::write(file, bytes.as_ptr().cast(), bytes.len()) };
        written = check("write", write).map(|n| bytes = bytes.get(n..).unwrap_or_default());
    }
    // SAFETY: `file` was opened above and is closed once. On some file systems, only closing tells
    // that there was no room.
    let closed = check("close", || unsafe { libc::close(file) } as isize);
    let saved = written.and(closed.map(drop));
    if saved.is_err_and(|error| error.errno == Errno::EFBIG) {
        // The kernel has sent it to this thread, where it waits: it would end the process.
        mask::take_pending(libc::SIGXFSZ);
    }
    saved
}

/// Moves `file` away from the numbers of the standard streams. Where the program has closed those,
/// what other threads still print would end up in the file.
fn above_standard(file: c_int) -> Result<c_int, SaveError> {
    if file > libc::STDERR_FILENO {
        return Ok(file);
    }
    let first = libc::STDERR_FILENO + 1;
    // SAFETY: plain integers.
    let moved = unsafe { libc::fcntl(file, libc::F_DUPFD_CLOEXEC, first) };
    let errno = Errno::last();
    // SAFETY: `file` was opened by the caller, who goes on with the other number.
    unsafe { libc::close(file) };
    if moved < 0 {
        return Err(SaveError { step: "open", errno });
    }
    // What was printed meanwhile is taken out again.
    // SAFETY: plain integers. It does not fail for a file that has just been opened.
    unsafe { libc::ftruncate(moved, 0) };
    // SAFETY: as above.
    unsafe { libc::lseek(moved, 0, libc::SEEK_SET) };
    Ok(moved)
}

fn rename(from: &CStr, to: &CStr) -> Result<(), SaveError> {
    // SAFETY: two C strings.
    check("rename", || unsafe { libc::rename(from.as_ptr(), to.as_ptr()) } as isize).map(drop)
}

fn remove(path: &CStr) {
    // SAFETY: a C string. If nothing is there, nothing is to be done.
    unsafe { libc::unlink(path.as_ptr()) };
}

/// Calls until no signal interrupts, and turns -1 into an error.
fn check(step: &'static str, mut call: impl FnMut() -> isize) -> Result<usize, SaveError> {
    loop {
        match usize::try_from(call()) {
            Ok(result) => return Ok(result),
            Err(_) if Errno::last() == Errno::EINTR => {}
            Err(_) => return Err(SaveError { step, errno: Errno::last() }),
        }
    }
}

/// `sched_yield`, which is a plain system call.
fn yield_now() {
    // SAFETY: no precondition.
    unsafe { libc::sched_yield() };
}

/// Writes `line` to standard error in one call. Async-signal-safe.
pub(crate) fn tell(line: &[u8]) {
    // SAFETY: the pointer and length are those of a live slice. Nobody is left to tell if it fails.
    unsafe { libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), line.len()) };
}
