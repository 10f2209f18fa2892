//! The coverage data of this process: saved from a handler, at a cleanup, on demand, and handed
//! over to the runtime at a normal exit.
//!
//! # Invariants
//! 1. What this crate saves and what the runtime writes at exit are never both there for longer than
//!    it takes to remove a file: the one goes as soon as the other is whole, or that is never written.
//! 2. The counters are never reset: lines whose counts are computed from others would be lost.
//! 3. In continuous mode (`%c`) the counters are the file already; nothing is done.

use std::env;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::FlushError;
use crate::name::decimal;
use crate::state::lock;
use crate::sys::mask::AllBlocked;
use crate::sys::once::Once;
use crate::sys::per_process::PerProcess;
use crate::sys::runtime::Runtime;
use crate::sys::snapshot::{SaveError, Snapshot, tell};
use crate::sys::{image, runtime};

/// Where rustc has the runtime write if `LLVM_PROFILE_FILE` does not say.
const DEFAULT_PATTERN: &str = "default_%m_%p.profraw";

/// The same with `-C profile-generate`, in the directory that is named there.
const GENERATED_PATTERN: &str = "default_%m.profraw";

/// Where the runtime writes when it is not to write.
const SEALED: &CStr = c"/dev/null";

/// The snapshot of this image, and what it takes to hand over to the runtime.
#[derive(Debug)]
struct Coverage {
    snapshot: Snapshot,
    runtime: Runtime,
    pattern: Vec<u8>,
    /// What the runtime made of the pattern: its file.
    name: PathBuf,
    /// The process that `pattern` was last expanded for.
    pid: u32,
}

static COVERAGE: Once<Coverage> = Once::new();

/// Held by who makes the above. Each process has its own: a copy made by `fork` meanwhile would
/// find its original's locked for ever.
static PREPARING: PerProcess<Mutex<()>> = PerProcess::new();

/// Whether the runtime's write at exit waits for [`hand_over`].
static HELD_BACK: AtomicBool = AtomicBool::new(false);

/// Whether the one line on standard error has been written.
static TOLD: AtomicBool = AtomicBool::new(false);

/// True if this image was built with `-C instrument-coverage`.
///
/// # Examples
///
/// ```
/// println!("coverage is measured: {}", epilogue_embed::is_instrumented());
/// ```
pub fn is_instrumented() -> bool {
    Runtime::linked().is_some()
}

/// Saves the coverage data as it is now. The program goes on, and goes on being measured.
///
/// When this returns, a complete file with every count so far is in the directory of
/// `LLVM_PROFILE_FILE`, in place of what this process saved before. At a normal exit the runtime's
/// own file replaces it, so nothing is counted twice. In a build without coverage, and in
/// continuous mode (`%c`), nothing is done.
///
/// # Errors
///
/// [`FlushError`] if the file cannot be written. What was saved before is still there.
///
/// # Examples
///
/// ```
/// epilogue_embed::flush()?;
/// # Ok::<(), epilogue_embed::FlushError>(())
/// ```
pub fn flush() -> Result<(), FlushError> {
    crate::exit::hook();
    let Some(coverage) = COVERAGE.get() else { return Ok(()) };
    let _blocked = AllBlocked::new();
    coverage.snapshot.save().map_err(|error| {
        let path = PathBuf::from(OsString::from_vec(coverage.snapshot.path()));
        FlushError::new(path, error)
    })
}

/// Reserves what a save needs. The first call in an image does the work.
pub(crate) fn prepare() {
    if COVERAGE.get().is_some() {
        return;
    }
    // The runtime frees one name and writes another without a lock of its own: of two threads at
    // once, one would write beyond its memory.
    let _one_at_a_time = lock(PREPARING.get_or_init(Mutex::default));
    if COVERAGE.get().is_none()
        && let Some(runtime) = Runtime::linked()
        && !runtime.is_continuous()
        && let Some(coverage) = Coverage::new(runtime)
    {
        COVERAGE.publish(coverage);
    }
}

impl Coverage {
    /// None where no file is wanted.
    fn new(runtime: Runtime) -> Option<Self> {
        let pattern = absolute_pattern(pattern(&runtime));
        expand(&runtime, &pattern);
        let name = absolute(runtime.filename()?);
        if is_no_place_for_files(&name) {
            return None;
        }
        let snapshot = Snapshot::new(runtime, &stem(&name), &tail(&runtime));
        let pid = std::process::id();
        let name = PathBuf::from(OsString::from_vec(name));
        make_directory(&name);
        Some(Self { snapshot, runtime, pattern, name, pid })
    }

    /// What the runtime is to expand before it writes. None where it cannot be told: it would take the
    /// per cent sign in the name, or in the directory at start, for a pattern.
    fn pattern_at_exit(&self) -> Option<Vec<u8>> {
        if !self.pattern.starts_with(b"/") {
            return None;
        }
        // The runtime expanded the pattern in the original of this copy. Where the name is shared on
        // purpose (`%m` without `%p`), it locks and merges; else two processes would write one file.
        let is_copy = self.pid != std::process::id();
        let is_renamed = is_copy && (has(&self.pattern, b'p') || !has(&self.pattern, b'm'));
        if !is_renamed {
            return Some(self.pattern.clone());
        }
        let _blocked = AllBlocked::new();
        let own = self.snapshot.path();
        // Beside what has been saved, which stays until this one is whole.
        let stem = own.strip_suffix(b".profraw").unwrap_or(&own);
        (!own.contains(&b'%')).then(|| [stem, b"-exit.profraw"].concat())
    }
}

/// Saves from a handler: every signal is blocked. Async-signal-safe.
pub(crate) fn save_in_handler() {
    if let Some(coverage) = COVERAGE.get()
        && let Err(error) = coverage.snapshot.save()
        && !TOLD.swap(true, Ordering::Relaxed)
    {
        tell_of(error);
    }
}

/// Saves on a thread, with a line on standard error if that fails.
pub(crate) fn save() {
    let _blocked = AllBlocked::new();
    save_in_handler();
}

/// Saves no more, right before this process dies or leaves at once. Async-signal-safe.
pub(crate) fn conclude() {
    if let Some(coverage) = COVERAGE.get() {
        let _blocked = AllBlocked::new();
        coverage.snapshot.keep();
    }
}

/// Saves nothing while `work` replaces the program: whoever is in the middle of a file would be cut off.
/// No signal is blocked meanwhile, for the new program would be deaf to it. If `work` returns, what was left
/// out is saved.
pub(crate) fn conclude_for<R>(work: impl FnOnce() -> R) -> R {
    let Some(coverage) = COVERAGE.get() else { return work() };
    let was_open = {
        let _blocked = AllBlocked::new();
        coverage.snapshot.keep()
    };
    let result = work();
    if was_open {
        coverage.snapshot.reopen();
        save();
    }
    result
}

/// Has the runtime's own write, which comes in a hook of this normal exit, wait for [`hand_over`].
///
/// It writes in place. What has been saved could only be taken away before, while older hooks have yet
/// to run, or after, behind destructors: a process that is killed, crashes or leaves at once in between
/// would have lost all its data, or have it twice.
pub(crate) fn hold_back() {
    let Some(coverage) = COVERAGE.get() else { return };
    let name = coverage.runtime.filename();
    if name.as_deref() == Some(SEALED.to_bytes()) {
        // Another copy of this crate keeps the runtime from writing: what is saved must stay.
        return;
    }
    if coverage.pattern_at_exit().is_none() {
        // What has been saved stays.
        return keep_from_writing(coverage);
    }
    let is_own = coverage.pid == std::process::id();
    if is_own && name.as_deref() != Some(coverage.name.as_os_str().as_bytes()) {
        // The program has told it of another file since, whose pattern nobody knows.
        return close(coverage);
    }
    coverage.runtime.set_filename(SEALED);
    HELD_BACK.store(true, Ordering::Release);
}

/// Leaves the data to the runtime at the very end of a normal exit: it writes, and what has been saved
/// is taken away. If it cannot write, that stays.
pub(crate) fn hand_over() {
    if let Some(coverage) = COVERAGE.get()
        && HELD_BACK.swap(false, Ordering::AcqRel)
        && let Some(pattern) = coverage.pattern_at_exit()
    {
        expand(&coverage.runtime, &pattern);
        if coverage.runtime.write_file() {
            close(coverage);
        }
    }
}

fn close(coverage: &Coverage) {
    let _blocked = AllBlocked::new();
    coverage.snapshot.close();
}

/// What `LLVM_PROFILE_FILE` is to be in a process that this one starts, where it is `value` here.
pub(crate) fn file_of_child(value: OsString) -> OsString {
    prepare();
    let Some(coverage) = COVERAGE.get() else { return value };
    let mut pattern = value.into_vec();
    if pattern.is_empty() || is_no_place_for_files(&pattern) {
        return OsString::from_vec(pattern);
    }
    if !pattern.starts_with(b"/") {
        // As it was meant in our directory at start.
        pattern.clone_from(&coverage.pattern);
    }
    if !has(&pattern, b'p') && !has(&pattern, b'm') {
        // The runtime appends without a lock: two that exit at once would spoil the file.
        let stem = pattern.strip_suffix(b".profraw").unwrap_or(&pattern);
        pattern = [stem, b"-%p.profraw"].concat();
    }
    OsString::from_vec(pattern)
}

/// Keeps the runtime from writing at exit: what has been saved is the last word.
pub(crate) fn seal() {
    if let Some(coverage) = COVERAGE.get() {
        keep_from_writing(coverage);
    }
    dump_gcov();
}

fn keep_from_writing(coverage: &Coverage) {
    coverage.runtime.set_filename(SEALED);
    remove_placeholder(coverage);
}

/// Takes away the empty file that the runtime makes at start under a name with this process's pid:
/// some tools stumble over it.
fn remove_placeholder(coverage: &Coverage) {
    let is_own = coverage.pid == std::process::id() && has(&coverage.pattern, b'p');
    if is_own && fs::metadata(&coverage.name).is_ok_and(|file| file.len() == 0) {
        // If it stays, it does no harm but that.
        let _ = fs::remove_file(&coverage.name);
    }
}

/// Writes the counts of code that gcc instrumented, if there is any. They count no further.
pub(crate) fn dump_gcov() {
    runtime::dump_gcov();
}

/// One line, without allocating: the save may have been in a handler.
fn tell_of(error: SaveError) {
    let mut line = [0; 128];
    let mut length = 0;
    let mut digits = [0; 10];
    let errno = decimal((error.errno as i32).unsigned_abs(), &mut digits);
    let parts: [&[u8]; 5] = [
        b"epilogue: coverage data not saved: cannot ",
        error.step.as_bytes(),
        b" the file (errno ",
        errno,
        b")\n",
    ];
    for part in parts {
        if let Some(room) = line.get_mut(length..length + part.len()) {
            room.copy_from_slice(part);
            length += part.len();
        }
    }
    tell(&line[..length]);
}

fn pattern(runtime: &Runtime) -> Vec<u8> {
    match env::var_os("LLVM_PROFILE_FILE") {
        Some(pattern) if !pattern.is_empty() => pattern.into_vec(),
        _ => generated_pattern(runtime).unwrap_or_else(|| DEFAULT_PATTERN.into()),
    }
}

/// The pattern of `-C profile-generate`, if it is that of which the runtime has made its name. The pattern
/// itself cannot be read: each crate that is instrumented defines that symbol, and a weak reference beside
/// a definition does not assemble.
fn generated_pattern(runtime: &Runtime) -> Option<Vec<u8>> {
    let name = runtime.filename()?;
    let directory = Path::new(OsStr::from_bytes(&name)).parent()?;
    let pattern = directory.join(GENERATED_PATTERN).into_os_string().into_vec();
    expand(runtime, &pattern);
    (runtime.filename()? == name).then_some(pattern)
}

/// A relative name means the directory at start, wherever the program goes later.
fn absolute(name: Vec<u8>) -> Vec<u8> {
    match env::current_dir() {
        Ok(directory) => {
            let path = directory.join(Path::new(&OsString::from_vec(name)));
            path.into_os_string().into_vec()
        }
        Err(_) => name,
    }
}

/// The same for what the runtime expands. It would take a per cent sign in the directory for a
/// part of the pattern, so there the pattern stays as it is.
fn absolute_pattern(pattern: Vec<u8>) -> Vec<u8> {
    let path = absolute(pattern.clone());
    let directory = path.len().saturating_sub(pattern.len());
    if path[..directory].contains(&b'%') { pattern } else { path }
}

/// Has the runtime expand `pattern` for this process: the same pattern again would be ignored.
fn expand(runtime: &Runtime, pattern: &[u8]) {
    if let Ok(pattern) = CString::new(pattern) {
        runtime.set_filename(SEALED);
        runtime.set_filename(&pattern);
    }
}

/// The runtime makes it only in the first instrumented process of a tree.
fn make_directory(name: &Path) {
    if let Some(directory) = name.parent() {
        // If that fails, so does the save, which says so.
        let _ = fs::create_dir_all(directory);
    }
}

/// Whether `name` is something else than a file: `/dev/null` says that no data is wanted, a pipe or
/// `/dev/stdout` leaves no name beside which another could be put.
fn is_no_place_for_files(name: &[u8]) -> bool {
    let kind = fs::metadata(OsStr::from_bytes(name)).map(|found| found.file_type());
    kind.is_ok_and(|kind| !kind.is_file() && !kind.is_dir())
}

/// Keeps the directory and the start of the name, so that a tool's glob finds the file.
fn stem(name: &[u8]) -> Vec<u8> {
    let stem = name.strip_suffix(b".profraw").unwrap_or(name);
    [stem, b".embed-"].concat()
}

/// Tells this image in this execution from every other one that has had or will have this pid. Two
/// copies of this crate in one image get the same, and so replace each other's file.
fn tail(runtime: &Runtime) -> Vec<u8> {
    let mut hasher = DefaultHasher::new();
    (image::random(), runtime.image()).hash(&mut hasher);
    format!("-{:016x}", hasher.finish()).into_bytes()
}

fn has(pattern: &[u8], letter: u8) -> bool {
    let mut rest = pattern;
    while let Some(at) = rest.iter().position(|byte| *byte == b'%') {
        rest = &rest[at + 1..];
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if rest.get(digits) == Some(&letter) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_searched_for_a_letter_behind_digits() {
        assert!(has(b"/tmp/x-%p-%4m.profraw", b'm'));
        assert!(has(b"%p", b'p'));
        assert!(!has(b"/tmp/mp-%4m", b'p'));
        assert!(!has(b"100%", b'm'));
    }

    #[test]
    fn a_file_keeps_its_directory_and_prefix() {
        assert_eq!(stem(b"/t/ws-7-1.profraw"), b"/t/ws-7-1.embed-");
        assert_eq!(stem(b"/t/plain"), b"/t/plain.embed-");
    }
}
