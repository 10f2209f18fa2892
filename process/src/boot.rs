//! The life of a child, from the start hook to its exit.
//!
//! | step | what is true after it |
//! |---|---|
//! | summons | this process is a child; the variable that said so is gone |
//! | descriptors | 0, 1, 2 and the wire are open, nothing else |
//! | order | the parent has said what to do, and this is the build that it runs |
//! | sandbox | what the parent had it give up is given up, for good |
//! | endings | `SIGTERM` runs the finalizers; the terminal's signals do nothing |
//! | signals | unblocked: what arrived since the start is handled now |
//! | hello | the parent knows that the child is up |
//! | main | the main function serves, then the child leaves through `exit` |
//!
//! A child whose parent is gone, or that finds anything but what its parent prepared, ends at
//! once and silently. It never returns into the program's own `main`: that would be a second
//! copy of the program, which would start children of its own.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use epilogue_embed::ending::Attendant;
use epilogue_embed::{self as embed, ending};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};
use nix::sys::socket::MsgFlags;
use nix::unistd::getppid;
use serde::{Deserialize, Serialize};

use crate::child::Grandchildren;
use crate::codec::{Limits, decode, encode};
use crate::end::{Finalizer, Goodbye};
use crate::entry::MainEntry;
use crate::launch;
use crate::link::Link;
use crate::panics;
use crate::port::Port;
use crate::ring::Far;
use crate::sandbox::Sandbox;
use crate::server;
use crate::setup::{Bounds, Setup};
use crate::sys::descriptors::receive;
use crate::sys::dress;
use crate::sys::hook;
use crate::sys::image::Image;
use crate::sys::memory::SharedWords;
use crate::sys::pid;
use crate::sys::process::{self, exit_now};
use crate::sys::spawn::{self, CLAIMS_FD, FIRST_FOREIGN_FD, LIBRARY_FD, WIRE_FD};
use crate::task;
use crate::tree;
use crate::usage::{Inherited, peak_memory};
use crate::watcher::{self, Post, Watcher};
use crate::wire::{Frame, Inbox, Kind};

/// The variable that makes a process a child. Each version has its own, since each has its own
/// protocol and two may be linked into one program.
pub(crate) const VARIABLE: &str = concat!(
    "EPILOGUE_CHILD_",
    env!("CARGO_PKG_VERSION_MAJOR"),
    "_",
    env!("CARGO_PKG_VERSION_MINOR")
);

/// The exit code of a child that could not begin.
const CANNOT_BEGIN: i32 = 125;

/// The first frame: who the child is and what it shall do.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Start {
    /// The same as in the variable, which proves that wire and variable belong together.
    pub(crate) token: u64,
    pub(crate) fingerprint: u64,
    pub(crate) main: MainEntry,
    /// What `ps` shows as the name of the main thread.
    pub(crate) name: String,
    pub(crate) limits: (usize, u32, usize),
    pub(crate) finalizers: Duration,
    pub(crate) setup: Setup,
    pub(crate) bounds: Bounds,
    pub(crate) sandbox: Option<Sandbox>,
}

impl Start {
    pub(crate) fn new_limits(limits: &Limits) -> (usize, u32, usize) {
        (limits.max_bytes, limits.max_depth, limits.max_amplification)
    }

    /// Whether it may have threads before it is set up: what a thread is given, those that it
    /// starts later have, but not those that are there.
    fn may_have_threads(&self) -> bool {
        self.sandbox.is_none() && !self.setup.is_for_one_thread()
    }

    fn limits(&self) -> Limits {
        let (max_bytes, max_depth, max_amplification) = self.limits;
        Limits { max_bytes, max_depth, max_amplification }
    }
}

/// Why a child leaves without having begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Another build of the program answered than the one that asked.
    #[error("the child runs another build of this program")]
    OtherBuild,
    /// A step of its preparation failed.
    #[error("{step} failed in the child: {error}")]
    Step {
        /// Which step it was.
        step: String,
        /// What the operating system said.
        error: String,
    },
}

/// The proof that this process was started as a child.
#[derive(Debug)]
pub(crate) struct Summons {
    pub(crate) token: u64,
    role: Role,
    inherited: Inherited,
    ahead: Option<Ahead>,
    /// Whether the descriptors are what they have to be.
    pub(crate) descriptors: Result<(), Refusal>,
}

impl Summons {
    /// What a child that a start server forked would have found in its environment.
    pub(crate) fn child(token: u64, ahead: Option<Ahead>) -> Self {
        let descriptors = match (0..=2).all(dress::is_open) {
            true => Ok(()),
            false => step("opening the standard descriptors", open_standard_descriptors()),
        };
        Self { token, role: Role::Child, inherited: Inherited::NOTHING, ahead, descriptors }
    }
}

/// What a child can have before it knows what it shall be.
#[derive(Debug)]
pub(crate) struct Ahead {
    attendant: Attendant,
    post: Post,
}

impl Ahead {
    pub(crate) fn new() -> io::Result<Self> {
        // Each looks up, at its first call, what it needs from then on.
        pid::own();
        task::now();
        task::begin(0);
        Ok(Self { attendant: ending::attendant(), post: Post::open()? })
    }
}

/// What this process was started as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Child,
    /// It forks children.
    Server,
}

/// How the variable says that a process is a start server.
pub(crate) const SERVER: &str = "server-";

/// Whether this process was started as a child. The variable that says so is gone afterwards,
/// so that no program the child starts takes itself for one, and so is what it inherited.
pub(crate) fn summons() -> Option<Summons> {
    let value = std::env::var_os(VARIABLE)?;
    // A program with raised privileges takes no orders from its environment.
    if process::is_secure() {
        return None;
    }
    process::set_variable(VARIABLE, None);
    if Image::this().is_some_and(Image::is_library) {
        launch::restore_preload();
    }
    let (role, token) = match value.to_str().map(|text| (text, text.strip_prefix(SERVER))) {
        Some((_, Some(token))) => (Role::Server, u64::from_str_radix(token, 16).ok()),
        Some((token, None)) => (Role::Child, u64::from_str_radix(token, 16).ok()),
        None => (Role::Child, None),
    };
    match token {
        Some(token) => {
            let (inherited, descriptors) = (Inherited::by_exec(), set_descriptors());
            Some(Summons { token, role, inherited, ahead: None, descriptors })
        }
        None => exit_now(CANNOT_BEGIN),
    }
}

/// Serves, and ends this process.
pub(crate) fn serve(summons: Summons) -> ! {
    if summons.role == Role::Server {
        server::serve(&summons);
    }
    // Nothing may unwind into the C code that called the start hook.
    let code = match panics::catch(|| begin(summons)) {
        Ok(Some(Begun::Up(main, link))) => match panics::catch(|| main(*link)) {
            Ok(()) => 0,
            Err(_) => 101,
        },
        Ok(Some(Begun::Uninitialized)) => CANNOT_BEGIN,
        Ok(None) | Err(_) => exit_now(CANNOT_BEGIN),
    };
    ending::leave_here(code, ending::Cause::Exit)
}

/// How far a child got before its main function.
enum Begun {
    Up(fn(Link), Box<Link>),
    /// The user's initializer failed: the finalizers that it has registered have to run.
    Uninitialized,
}

/// Everything up to the main function. None if the parent is not there, the wire is not ours, or
/// none of the user's code has run.
fn begin(summons: Summons) -> Option<Begun> {
    let wire = UnixStream::from(process::inherited(WIRE_FD).ok()?);
    let claims = process::inherited(CLAIMS_FD).ok()?;
    let parent = watcher::parent(wire.as_fd())?;
    let mut inbox = Inbox::new(usize::MAX);
    let (start, doorbell) = first_frame(&wire, &mut inbox)?;
    if start.token != summons.token {
        return None;
    }
    let port = Arc::new(Port::new(wire, SharedWords::map(claims).ok()?, doorbell));
    let far = Far::new(Arc::clone(port.ring())).ok()?;
    task::serve(Arc::clone(port.ring()));
    let (attendant, post) = match summons.ahead {
        Some(Ahead { attendant, post }) if start.may_have_threads() => (attendant, Some(post)),
        Some(Ahead { attendant, post }) => {
            post.close();
            (attendant, None)
        }
        None => (ending::attendant(), None),
    };
    let (descriptors, inherited) = (summons.descriptors, summons.inherited);
    let prepared = prepare(&start, &port, descriptors, inherited).and_then(|main| {
        // The last of what it needs is open, and its first thread, which Landlock would miss, is yet
        // to come.
        let hello = put_on_sandbox(&start)?;
        let (orders, link) = crossbeam_channel::unbounded();
        let (port, grace) = (Arc::clone(&port), start.finalizers / 2);
        let grandchildren = start.setup.grandchildren;
        let watcher = Watcher::new(parent, Arc::clone(&port), inbox, orders, grace, grandchildren);
        handle_signals(watcher, attendant, post)?;
        let mut link = Link::new(far, link, port, start.limits());
        link.watch_growth(start.setup.growth);
        Ok((main, link, hello))
    });
    let failed = prepared.is_ok().then_some(Begun::Uninitialized);
    match prepared.and_then(|served| start.bounds.begin().map(|()| served)) {
        Ok((main, link, hello)) => {
            // Signals are handled by now: the goodbye of finalizers that run already may be in the
            // middle of the wire, and must not make this look like a failure. Where the parent is
            // gone, the watcher sees to the end.
            let _ = port.send(&Frame::control(Kind::Hello, hello));
            Some(Begun::Up(main, Box::new(link)))
        }
        Err(refusal) => {
            let mut payload = Vec::new();
            encode(&refusal, &mut payload, &Limits::default()).ok()?;
            port.try_send(&Frame::control(Kind::Refusal, payload), Duration::ZERO);
            failed
        }
    }
}

/// What the child shall do, and what it rings if it is told to.
fn first_frame(wire: &UnixStream, inbox: &mut Inbox) -> Option<(Start, Option<Arc<OwnedFd>>)> {
    loop {
        if let Some(frame) = inbox.next().ok()? {
            if frame.kind != Kind::Start {
                return None;
            }
            let start = decode(&frame.payload, &Limits::default()).ok()?;
            return Some((start, frame.descriptors.into_iter().next()));
        }
        let read = inbox.fill(|room| receive(wire.as_fd(), room, MsgFlags::empty()));
        match read {
            Ok(0) => return None,
            Ok(_) => {}
            Err(_) => return None,
        }
    }
}

/// Makes this process what a child has to be before any code of the user's runs.
fn prepare(
    start: &Start,
    port: &Arc<Port>,
    descriptors: Result<(), Refusal>,
    inherited: Inherited,
) -> Result<fn(Link), Refusal> {
    let image = Image::this().ok_or(Refusal::OtherBuild)?;
    if image.fingerprint() != start.fingerprint {
        return Err(Refusal::OtherBuild);
    }
    let main = start.main.resolve().ok_or(Refusal::OtherBuild)?;
    descriptors?;
    step("naming the process", set_name(&start.name))?;
    step("ignoring SIGPIPE", process::ignore_sigpipe())?;
    // The terminal's signals reach parent and children alike. The parent decides what they mean.
    for signal in [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP] {
        step("handling the terminal's signals", process::swallow(signal))?;
    }
    panics::remember(start.setup.backtraces);
    start.setup.apply()?;
    register_goodbye(start, port, inherited);
    embed::set_deadline(start.finalizers);
    Ok(main)
}

/// Puts on the sandbox, if there is one, and returns what the hello says of it.
fn put_on_sandbox(start: &Start) -> Result<Vec<u8>, Refusal> {
    let level = start.sandbox.as_ref().map(Sandbox::put_on).transpose()?;
    let mut hello = Vec::new();
    step("encoding the hello", encode(&level, &mut hello, &Limits::default()))?;
    Ok(hello)
}

/// Lets signals in, once there is who hears of them. The watcher itself blocks all of them, but
/// where it waits: it takes none that the program wants on its own threads.
fn handle_signals(
    watcher: Watcher,
    attendant: Attendant,
    post: Option<Post>,
) -> Result<(), Refusal> {
    step("handling SIGTERM", embed::cleanup_on_sigterm())?;
    match post {
        Some(post) => post.fill(watcher, attendant),
        None => step("starting the watcher", Post::open_and_fill(watcher, attendant))?,
    }
    let none = SigSet::empty();
    step("unblocking signals", pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&none), None))
}

/// The last finalizer: it ends what this process has started, if it shall, and tells the parent of that
/// and of the other finalizers.
fn register_goodbye(start: &Start, port: &Arc<Port>, inherited: Inherited) {
    let (parent, port, time) = (getppid(), Arc::clone(port), start.finalizers);
    let ends_tree = start.setup.grandchildren == Grandchildren::Ended;
    ending::register_last("epilogue: goodbye", move |ending| {
        let tree = ends_tree.then(|| ending.remaining().unwrap_or(time));
        let tree = tree.and_then(|time| tree::end_own(parent, &port, time));
        let finalizers = ending::finished().iter().map(Finalizer::from).collect();
        let goodbye = Goodbye { finalizers, peak_memory: peak_memory(inherited), tree };
        if let Some(payload) = goodbye.into_bytes() {
            // A part of the time that is left: whoever writes may be stuck.
            let patience = ending.remaining().map_or(Duration::from_secs(1), |left| left / 2);
            port.try_send(&Frame::control(Kind::Goodbye, payload), patience);
        }
    });
}

/// Leaves this process 0, 1, 2, the wire and the claims.
///
/// Before this process opens any, even in a constructor: it would be closed again, or become the
/// standard output that the parent had closed.
fn set_descriptors() -> Result<(), Refusal> {
    if Image::this().is_some_and(Image::is_library) {
        // The loader has no more use for it.
        drop(process::inherited(LIBRARY_FD));
    }
    if !spawn::closes_descriptors() {
        step("closing inherited descriptors", process::close_from(FIRST_FOREIGN_FD as u32))?;
    }
    step("opening the standard descriptors", open_standard_descriptors())
}

/// What the parent had closed of 0, 1 and 2 is `/dev/null` here: else the first file that user
/// code opens would become its standard output.
fn open_standard_descriptors() -> io::Result<()> {
    loop {
        let null = File::options().read(true).write(true).open("/dev/null")?;
        if null.as_raw_fd() > 2 {
            return Ok(());
        }
        std::mem::forget(null);
    }
}

fn set_name(name: &str) -> nix::Result<()> {
    // What `ps` shows of the program has none either.
    let mut name = name.replace('\0', "");
    // The kernel keeps 15 bytes.
    name.truncate(name.floor_char_boundary(15));
    let name = CString::new(name).map_err(|_| nix::errno::Errno::EINVAL)?;
    nix::sys::prctl::set_name(&name)
}

pub(crate) fn step<T, E: ToString>(step: &str, result: Result<T, E>) -> Result<T, Refusal> {
    result.map_err(|error| Refusal::Step { step: step.to_owned(), error: error.to_string() })
}

/// The documented fallback where the start hook cannot run: call it first in `main`.
///
/// In a child that the hook did not catch, this serves and never returns. In every other process
/// it returns at once, and from then on children can be started although the hook did not run.
/// Where the hook works, which is everywhere it was tried, there is no need to call it.
///
/// ```
/// epilogue_process::init();
/// // the program
/// ```
pub fn init() {
    hook::note_init();
    if let Some(summons) = summons() {
        serve(summons);
    }
}
