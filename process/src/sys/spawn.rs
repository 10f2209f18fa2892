//! `posix_spawn` of this same executable: every signal blocked, no descriptor but its own.
//!
//! Signals stay blocked until the child has its handlers: one that arrives in between is
//! pending, not deadly. posix_spawn shares the parent's memory until the exec, so its cost does
//! not grow with the parent, which a fork's does (15 ms a GiB).

#![expect(unsafe_code, reason = "posix_spawn, with the file actions that nix does not wrap")]

use std::ffi::{CStr, CString, c_char, c_int};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::{io, mem, ptr};

use crate::child::Group;
use crate::stdio::Prepared;

/// The descriptor of the wire in a child.
pub(crate) const WIRE_FD: c_int = 3;
/// The descriptor of the claim words in a child, which closes it once they are mapped.
pub(crate) const CLAIMS_FD: c_int = 4;
/// The descriptor of the library that holds this crate, where it is not the executable that does.
/// The child closes it: it is for the loader.
pub(crate) const LIBRARY_FD: c_int = 5;
/// The first descriptor that every child closes, if the C library did not.
pub(crate) const FIRST_FOREIGN_FD: c_int = 5;

/// What a child is started with.
#[derive(Debug)]
pub(crate) struct Image<'a> {
    pub(crate) program: &'a CStr,
    pub(crate) arguments: &'a [CString],
    pub(crate) environment: &'a [CString],
    pub(crate) wire: BorrowedFd<'a>,
    pub(crate) claims: BorrowedFd<'a>,
    pub(crate) stdio: &'a [Prepared; 3],
    pub(crate) group: Group,
    pub(crate) library: Option<BorrowedFd<'a>>,
}

/// Whether [`spawn`] itself closes foreign descriptors; where not, the child does so first.
pub(crate) fn closes_descriptors() -> bool {
    close_from_action().is_some()
}

/// Starts a child. Until it is reaped, the pid that is returned means it and no other process.
pub(crate) fn spawn(image: &Image<'_>) -> io::Result<libc::pid_t> {
    // The actions run in order, so a source must not be a target: it would be replaced first.
    let wire = above_targets(image.wire)?;
    let claims = above_targets(image.claims)?;
    let mut actions = FileActions::new()?;
    let standard = standard_streams(image.stdio)?;
    for (fd, stream) in (0..).zip(&standard) {
        match stream {
            Stream::Kept => {}
            Stream::Null => actions.open_null(fd)?,
            Stream::Copy(copy) => actions.duplicate(copy.as_raw_fd(), fd)?,
        }
    }
    actions.duplicate(wire.as_raw_fd(), WIRE_FD)?;
    actions.duplicate(claims.as_raw_fd(), CLAIMS_FD)?;
    let library = image.library.map(above_targets).transpose()?;
    if let Some(library) = &library {
        actions.duplicate(library.as_raw_fd(), LIBRARY_FD)?;
    }
    actions.close_from(LIBRARY_FD + c_int::from(library.is_some()))?;
    let attributes = Attributes::all_signals_blocked(image.group)?;
    let arguments = pointers(image.arguments);
    let environment = pointers(image.environment);
    let mut pid = 0;
    // SAFETY: all pointers are to initialised data that outlives the call; both arrays end in a
    // null pointer.
    check(unsafe {
        libc::posix_spawn(
            &mut pid,
            image.program.as_ptr(),
            &actions.0,
            &attributes.0,
            arguments.as_ptr(),
            environment.as_ptr(),
        )
    })?;
    Ok(pid)
}

/// What becomes of a standard stream.
enum Stream {
    Kept,
    Null,
    Copy(OwnedFd),
}

fn standard_streams(stdio: &[Prepared; 3]) -> io::Result<Vec<Stream>> {
    let stream = |prepared: &Prepared| {
        Ok(match (prepared, prepared.file()) {
            (_, Some(file)) => Stream::Copy(above_targets(file.as_fd())?),
            (Prepared::Null, None) => Stream::Null,
            (Prepared::Inherit | Prepared::Given(_) | Prepared::Captured(_), None) => Stream::Kept,
        })
    };
    stdio.iter().map(stream).collect()
}

/// A close-on-exec copy that no file action overwrites.
fn above_targets(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let action = nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(LIBRARY_FD + 1);
    let copy = nix::fcntl::fcntl(fd, action)?;
    // SAFETY: the kernel just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { std::os::fd::FromRawFd::from_raw_fd(copy) })
}

fn pointers(strings: &[CString]) -> Vec<*mut c_char> {
    let pointers = strings.iter().map(|string| string.as_ptr().cast_mut());
    pointers.chain([ptr::null_mut()]).collect()
}

/// posix_spawn's family returns the error instead of setting `errno`.
fn check(error: c_int) -> io::Result<()> {
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
}

struct FileActions(libc::posix_spawn_file_actions_t);

impl FileActions {
    fn new() -> io::Result<Self> {
        let mut actions = MaybeUninit::uninit();
        // SAFETY: initialises the memory it is given.
        check(unsafe { libc::posix_spawn_file_actions_init(actions.as_mut_ptr()) })?;
        // SAFETY: initialised by the call above, which succeeded.
        Ok(Self(unsafe { actions.assume_init() }))
    }

    fn open_null(&mut self, fd: c_int) -> io::Result<()> {
        let path = c"/dev/null".as_ptr();
        // SAFETY: initialised actions; the path is copied.
        check(unsafe {
            libc::posix_spawn_file_actions_addopen(&mut self.0, fd, path, libc::O_RDWR, 0)
        })
    }

    fn duplicate(&mut self, from: c_int, to: c_int) -> io::Result<()> {
        // SAFETY: initialised actions, two integers.
        check(unsafe { libc::posix_spawn_file_actions_adddup2(&mut self.0, from, to) })
    }

    fn close_from(&mut self, first: c_int) -> io::Result<()> {
        let Some(add) = close_from_action() else {
            return Ok(());
        };
        // SAFETY: initialised actions, an integer.
        check(unsafe { add(&mut self.0, first) })
    }
}

impl Drop for FileActions {
    fn drop(&mut self) {
        // SAFETY: initialised, and not used again.
        unsafe { libc::posix_spawn_file_actions_destroy(&mut self.0) };
    }
}

type AddCloseFrom = unsafe extern "C" fn(*mut libc::posix_spawn_file_actions_t, c_int) -> c_int;

/// glibc has it since 2.34; a direct reference would not link with an older one.
fn close_from_action() -> Option<AddCloseFrom> {
    let name = c"posix_spawn_file_actions_addclosefrom_np".as_ptr();
    // SAFETY: looks a name up among the libraries that are loaded already.
    let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name) };
    // SAFETY: null is none; else the C library's function, whose documented type this is.
    unsafe { mem::transmute::<*mut libc::c_void, Option<AddCloseFrom>>(address) }
}

struct Attributes(libc::posix_spawnattr_t);

impl Attributes {
    /// Every signal blocked, and every one at its default action whatever the parent does.
    fn all_signals_blocked(group: Group) -> io::Result<Self> {
        let mut attributes = MaybeUninit::uninit();
        // SAFETY: initialises the memory it is given.
        check(unsafe { libc::posix_spawnattr_init(attributes.as_mut_ptr()) })?;
        // SAFETY: initialised by the call above, which succeeded.
        let mut attributes = Self(unsafe { attributes.assume_init() });
        let all = nix::sys::signal::SigSet::all();
        let mut flags = libc::POSIX_SPAWN_SETSIGMASK | libc::POSIX_SPAWN_SETSIGDEF;
        if group == Group::Own {
            // The group that is set is 0, which means one of its own.
            flags |= libc::POSIX_SPAWN_SETPGROUP;
        }
        let it = &mut attributes.0;
        // SAFETY: initialised attributes, an integer.
        check(unsafe { libc::posix_spawnattr_setflags(it, flags as libc::c_short) })?;
        // SAFETY: initialised attributes and signal set; the set is copied.
        check(unsafe { libc::posix_spawnattr_setsigmask(it, all.as_ref()) })?;
        // SAFETY: as above.
        check(unsafe { libc::posix_spawnattr_setsigdefault(it, all.as_ref()) })?;
        Ok(attributes)
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: initialised, and not used again.
        unsafe { libc::posix_spawnattr_destroy(&mut self.0) };
    }
}
