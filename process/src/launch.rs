//! How a child is started: what it gets, and what of it stays with the parent.

use std::ffi::{CString, NulError, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;

use nix::errno::Errno;
use nix::sys::signal::{self, Signal};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

use crate::bell::Bell;
use crate::boot::{SERVER, VARIABLE};
use crate::child::Spec;
use crate::error::StartError;
use crate::ring::Size;
use crate::server::{self, Born, Order, StartMethod};
use crate::stdio::{Prepared, Stdio};
use crate::sys::image::Image;
use crate::sys::memory::SharedWords;
use crate::sys::pidfd::{self, AGAIN};
use crate::sys::{hook, process, random, spawn};

/// A child that was started.
#[derive(Debug)]
pub(crate) struct Launched {
    pub(crate) born: Born,
    /// What its standard output and error go to, where they are captured.
    pub(crate) captured: [Option<File>; 2],
}

/// Our end of the connection to a child.
#[derive(Debug)]
pub(crate) struct Nearby {
    pub(crate) stream: UnixStream,
    /// The same connection, for whoever ends the child if its owner cannot.
    pub(crate) second: UnixStream,
    pub(crate) ring: SharedWords,
    pub(crate) doorbell: Option<Arc<OwnedFd>>,
}

/// Both ends of a connection, before there is a child.
#[derive(Debug)]
pub(crate) struct Connection {
    near: Nearby,
    wire: UnixStream,
    claims: OwnedFd,
}

impl Connection {
    pub(crate) fn make(size: Size) -> Result<Self, StartError> {
        let (stream, wire) = UnixStream::pair().map_err(at("making a socket pair"))?;
        let second = stream.try_clone().map_err(at("sharing the wire"))?;
        let (ring, claims) =
            SharedWords::create(size.words()).map_err(at("making shared memory"))?;
        let doorbell = match size {
            Size::Once => None,
            Size::Many => Some(Arc::new(Bell::new().map_err(at("making a doorbell"))?.into())),
        };
        Ok(Self { near: Nearby { stream, second, ring, doorbell }, wire, claims })
    }

    /// Whether it is made for as many calls.
    pub(crate) fn is_for(&self, size: Size) -> bool {
        self.near.doorbell.is_some() == (size == Size::Many)
    }
}

/// Everything that a child gets, before there is one.
#[derive(Debug)]
pub(crate) struct Launch {
    /// What the child expects in its first frame.
    pub(crate) token: u64,
    wire: UnixStream,
    claims: OwnedFd,
    stdio: [Prepared; 3],
}

impl Launch {
    /// Makes the connection. All that can fail comes before the child, which has to be reaped.
    pub(crate) fn prepare(spec: &Spec) -> Result<(Self, Nearby), StartError> {
        if process::is_secure() {
            return Err(StartError::Privileged);
        }
        if !hook::works() {
            return Err(StartError::NoHook);
        }
        if hook::would_go_on_for_ever() {
            return Err(StartError::InConstructor);
        }
        if let Some(name) = spec.environment.impossible() {
            return Err(StartError::BadVariable { name: name.to_owned() });
        }
        let Connection { near, wire, claims } = match server::connection(spec) {
            Some(ready) => ready,
            None => Connection::make(spec.ring)?,
        };
        let stdio = prepare(&spec.stdio).map_err(at("preparing the standard streams"))?;
        Ok((Self { token: token()?, wire, claims, stdio }, near))
    }

    /// Starts the child. When this returns it alone has its end of the connection.
    pub(crate) fn start(self, spec: &Spec) -> Result<Launched, StartError> {
        let (token, title) = (self.token, title(&spec.name));
        let (wire, claims, stdio) = (self.wire.as_fd(), self.claims.as_fd(), &self.stdio);
        let born = match spec.start_method {
            StartMethod::Spawn => spawn(spec, title, &format!("{token:x}"), [wire, claims], stdio),
            StartMethod::Server => {
                server::fork(spec, &Order { token, title: &title, wire, claims, stdio })
            }
        }?;
        let [_, out, error] = self.stdio;
        Ok(Launched { born, captured: [out.into_captured(), error.into_captured()] })
    }
}

/// Proves to a child that its wire and what called it belong together.
pub(crate) fn token() -> Result<u64, StartError> {
    random::number().map_err(at("drawing a random number"))
}

/// Starts this executable as a start server.
pub(crate) fn spawn_server(
    token: u64,
    socket: BorrowedFd<'_>,
    slot: BorrowedFd<'_>,
) -> Result<OwnedFd, StartError> {
    /// How long a name its children can show.
    const ROOM: usize = 256;
    let mut title = title("epilogue server");
    title.resize(ROOM.max(title.len()), b' ');
    let stdio = [Prepared::Null, Prepared::Inherit, Prepared::Inherit];
    let value = format!("{SERVER}{token:x}");
    Ok(spawn(&Spec::default(), title, &value, [socket, slot], &stdio)?.pidfd)
}

fn prepare(stdio: &[Stdio; 3]) -> io::Result<[Prepared; 3]> {
    let [input, output, error] = stdio;
    Ok([input.prepare()?, output.prepare()?, error.prepare()?])
}

fn spawn(
    spec: &Spec,
    title: Vec<u8>,
    value: &str,
    [wire, claims]: [BorrowedFd<'_>; 2],
    stdio: &[Prepared; 3],
) -> Result<Born, StartError> {
    let library = Image::this().filter(|image| image.is_library()).map(open_library);
    let library = library.transpose().map_err(at("opening the library that holds epilogue"))?;
    let arguments = [CString::new(title).unwrap_or_default()];
    let environment = environment(spec, value, library.is_some())
        .map_err(|error| at("making the environment")(error.into()))?;
    let image = spawn::Image {
        program: c"/proc/self/exe",
        arguments: &arguments,
        environment: &environment,
        wire,
        claims,
        stdio,
        group: spec.group,
        library: library.as_ref().map(File::as_fd),
    };
    adopt(spawn::spawn(&image).map_err(|error| blame(error, stdio))?)
}

/// The kernel does not tell which of several files it did not find.
fn blame(error: io::Error, stdio: &[Prepared; 3]) -> StartError {
    let null = || File::options().read(true).write(true).open("/dev/null");
    let needs_null = stdio.iter().any(|stream| matches!(stream, Prepared::Null));
    match needs_null.then(null) {
        Some(Err(error)) => at("opening /dev/null for the process")(error),
        Some(Ok(_)) | None => at("starting /proc/self/exe")(error),
    }
}

/// Opens a pidfd for a child that nobody has reaped. Where that fails the child is ended, if it is one.
pub(crate) fn adopt(pid: libc::pid_t) -> Result<Born, StartError> {
    match pidfd::open(pid) {
        Ok(pidfd) => Ok(Born { pid, pidfd }),
        Err(error) => {
            end_by_number(Pid::from_raw(pid));
            Err(at("opening a pidfd")(error))
        }
    }
}

/// Kills and reaps a child for which there is no pidfd: its number is its own until it is reaped.
fn end_by_number(pid: Pid) {
    // Other code may have done that, or the kernel for who ignores `SIGCHLD`: then the number is
    // nobody's, or a stranger's. Between this look and the kill nothing can be done about it.
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    if waitid(Id::Pid(pid), look) == Err(Errno::ECHILD) {
        return;
    }
    loop {
        let flags = signal::kill(pid, Signal::SIGKILL).err().map(|_| {
            // Refused, or not there: waiting for its end could be for ever.
            thread::sleep(AGAIN);
            WaitPidFlag::WNOHANG
        });
        match waitpid(pid, flags) {
            Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) => {}
            Ok(_) | Err(_) => return,
        }
    }
}

/// What `ps` shows: the program, and what this process of it is for.
pub(crate) fn title(name: &str) -> Vec<u8> {
    let program = std::env::args_os().next().unwrap_or_default();
    let program = program.as_bytes().rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    let mut text = program.to_vec();
    text.extend_from_slice(b": ");
    text.extend_from_slice(name.as_bytes());
    text.retain(|&byte| byte != 0);
    text
}

/// The file of the library that holds this crate, open: its path may be relative to a directory
/// that was left, hold a character that separates paths, or name another file by now.
fn open_library(image: &Image) -> io::Result<File> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    let holds = |range: &&str| {
        let bound = |text| usize::from_str_radix(text, 16);
        let Some((start, end)) = range.split_once('-') else { return false };
        let (Ok(start), Ok(end)) = (bound(start), bound(end)) else { return false };
        (start..end).contains(&image.code_address())
    };
    let range = maps.lines().filter_map(|line| line.split(' ').next()).find(holds);
    let link = format!("/proc/self/map_files/{}", range.ok_or(io::ErrorKind::NotFound)?);
    // Only the privileged may follow it, which finds the file even if it was deleted. The path
    // that others read there does not exist then.
    File::open(&link).or_else(|_| File::open(fs::read_link(&link)?))
}

/// What names libraries for the loader to bring along. Blanks and colons separate them.
const PRELOAD: &str = "LD_PRELOAD";

/// The environment of a child: that of this process, and what makes it a child.
fn environment(spec: &Spec, value: &str, preload: bool) -> Result<Vec<CString>, NulError> {
    let own = (OsString::from(VARIABLE), OsString::from(value));
    let variables = spec.environment.apply(std::env::vars_os());
    // The executable does not know of us: a library that the program loads itself comes too
    // late, so the loader has to bring it along.
    let library = preload.then(|| {
        let mut all = OsString::from(format!("/proc/self/fd/{}", spawn::LIBRARY_FD));
        // What the user preloads in the child, which may be another thing than in this process.
        if let Some((_, users)) = variables.iter().find(|(name, _)| name == PRELOAD) {
            all.push(":");
            all.push(users);
        }
        (OsString::from(PRELOAD), all)
    });
    variables
        .into_iter()
        // Of two variables of one name the first would count.
        .filter(|(name, _)| name != VARIABLE && !(preload && name == PRELOAD))
        .chain(library)
        .chain([own])
        .map(|(mut name, value)| {
            name.push("=");
            name.push(value);
            CString::new(name.into_vec())
        })
        .collect()
}

/// Undoes, in a child, what [`environment`] did for the loader: its own children must not get our
/// library, but still what the user preloads.
pub(crate) fn restore_preload() {
    let Some(all) = std::env::var_os(PRELOAD) else { return };
    let users = all.as_bytes().iter().position(|&byte| byte == b':');
    let users = users.map(|colon| all.as_bytes()[colon + 1..].to_vec());
    process::set_variable(PRELOAD, users);
}

pub(crate) fn at(step: &'static str) -> impl FnOnce(io::Error) -> StartError {
    move |source| StartError::System { step, source }
}
