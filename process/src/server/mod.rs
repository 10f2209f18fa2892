//! The start server: a process of this program that forks children for it.
//!
//! A fork is several times faster than an exec, but a program must not fork itself: its other
//! threads may hold locks, and the cost grows with its memory. So the first start by
//! [`StartMethod::Server`] starts this executable once more as a server, which has one thread for
//! ever and little memory, and from which children are forked. They are children of the *program*:
//! it waits for them, signals them and reaps them as it does those that were spawned, and they
//! outlive the server.
//!
//! | file | what it is for |
//! |---|---|
//! | `client` | the program's side of one server: start it, ask it for children, end it |
//! | `main` | the server's side |
//! | `spare` | a child that was forked ahead, until it is one |
//! | `protocol` | what they say to each other |
//! | `reach` | the way to a server that a start holds |
//!
//! One spare child is always there or on its way: a start gives it its assignment, and asks for
//! the next.
//!
//! # Invariants
//!
//! 1. Whatever ends the server, at whatever moment, no child is lost: its pid is in memory that
//!    the program shares before the child runs.
//! 2. A copy of the program made by `fork` has no server; it starts one of its own.
//! 3. A server ends with its program, and with [`end_servers`].

mod client;
mod main;
mod protocol;
mod reach;
mod spare;

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use epilogue_embed::Finalizer;
use epilogue_embed::ending::{self, Ending};
use epilogue_embed::lent::PerProcess;

use crate::child::Spec;
use crate::entry::ForeignFunction;
use crate::error::StartError;
use crate::fault::Panic;
use crate::held::lock_until;
use crate::launch::Connection;
use crate::status::ExitStatus;
use crate::stdio::Prepared;
use crate::sys::image::Image;
use client::{Failed, Server};
use reach::Reach;

pub(crate) use main::{serve, threads};

/// How a process begins.
///
/// | | `Spawn` | `Server` |
/// |---|---|---|
/// | how | this executable is started again | a copy of a server that was started so |
/// | until it is up; until it is up and has ended (2 CPUs) | 0.85 ms; 1.05 ms | 0.15 ms; 0.35 ms |
/// | memory, descriptors, threads | its own only | as `Spawn`, and what [`preload`] left in memory |
///
/// Neither depends on the size of the program. All that is promised of a process holds for both.
///
/// # The server
///
/// It is started at the first use, once for each [`preload`] function, and ends with the program
/// or at [`end_servers`]. If it dies, its children go on, and the next start reaps it and brings up
/// a new one. One child more than was asked for is always forked ahead, and waits to be needed; the
/// program keeps a few descriptors open for it.
/// Environment, directory, standard output and standard error are those of the program at the
/// moment of the start, and the users and groups too: a program that has changed them gets a new
/// server. Of what else a program changes of itself (limits, priority, umask, process group,
/// namespaces, a sandbox), its children have what held when the server was started;
/// [`end_servers`] is the way to a fresh one.
///
/// Children of one server have the same layout of memory and the same stack protector: where one
/// may learn an address from another and use it against a third, `Spawn` is the choice. Handlers
/// that were registered with `pthread_atfork` do not run.
///
/// [`preload`]: crate::Builder::preload
///
/// # Examples
///
/// ```
/// use epilogue_process::{Process, StartMethod};
///
/// let method = StartMethod::Server;
/// let process = Process::builder().start_method(method).start(20u64, |n| n + 1)?;
/// assert_eq!(process.join()?, 21);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum StartMethod {
    /// This executable is started once more.
    #[default]
    Spawn,
    /// A start server, started at the first use, forks it.
    Server,
}

/// Why a start server could not start a process. Nothing of the process is left.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The preload function panicked. The server has ended.
    #[error("its preload function {0}")]
    Preload(Panic),
    /// Other threads run in the server, started by the preload function or by a constructor:
    /// what they have locked would stay so in every child. The server has ended.
    #[error("{count} threads run in it before the first fork, where only one may")]
    Threads {
        /// How many there are.
        count: usize,
    },
    /// The preload function left files or sockets open, which children cannot share. The server
    /// has ended.
    #[error("its preload function left descriptors open, which children do not get: {0:?}")]
    Descriptors(Vec<i32>),
    /// The server could not prepare itself. It has ended.
    #[error("{step} failed in it: {error}")]
    Step {
        /// Which step it was.
        step: String,
        /// What the operating system said.
        error: String,
    },
    /// The server is another build of this program. It has ended.
    #[error("it runs another build of this program")]
    OtherBuild,
    /// The server did not answer in time: its preload function takes longer, it was stopped, or
    /// the machine is overloaded. It was killed, and the next start brings up a new one.
    #[error("it did not answer within {deadline:?} and was killed; start_deadline sets the time")]
    Silent {
        /// The time that it had.
        deadline: Duration,
    },
    /// The server ended while it started up; or it ended during this start, and so did the one that
    /// was started in its place.
    #[error("it ended during the start: {0}")]
    Lost(ExitStatus),
    /// This program ends, and the server was killed for that: a start waited for it for too long. It is
    /// not replaced.
    #[error("it was killed, since this program ends and a start waited for it for too long")]
    ProgramEnds,
}

/// A child to be forked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Order<'a> {
    pub(crate) token: u64,
    pub(crate) title: &'a [u8],
    pub(crate) wire: BorrowedFd<'a>,
    pub(crate) claims: BorrowedFd<'a>,
    pub(crate) stdio: &'a [Prepared; 3],
}

/// A child that was forked.
#[derive(Debug)]
pub(crate) struct Born {
    pub(crate) pid: libc::pid_t,
    pub(crate) pidfd: OwnedFd,
}

/// The servers of one process, by what they have loaded.
#[derive(Debug, Default)]
struct Servers {
    places: Mutex<Vec<(Option<u64>, Arc<Place>)>>,
    /// The hook that ends them with the program, if it is registered.
    hook: Mutex<Option<Finalizer>>,
}

/// Where a server is, or will be.
#[derive(Debug, Default)]
struct Place {
    /// Held for a whole exchange: one start at a time asks a server.
    server: Mutex<Option<Server>>,
    /// The same server, for who must not wait for that.
    reach: Mutex<Reach>,
}

static SERVERS: PerProcess<Servers> = PerProcess::new();

/// How long a server has to end where nobody says otherwise.
const GRACE: Duration = Duration::from_secs(5);

/// A connection for a child of the server for `spec`, if there is one ready.
pub(crate) fn connection(spec: &Spec) -> Option<Connection> {
    if spec.start_method != StartMethod::Server {
        return None;
    }
    let place = SERVERS.get()?.place(preload(spec).ok()?);
    // Another start may have it, and for long.
    let mut place = place.server.try_lock().ok()?;
    place.as_mut()?.connection(spec.ring)
}

fn preload(spec: &Spec) -> Result<Option<u64>, ForeignFunction> {
    let offset = |function| Image::this()?.offset_of(function as usize);
    spec.preload.map(|function: fn()| offset(function).ok_or(ForeignFunction)).transpose()
}

/// Has a child forked by the server for `spec`, which is started if there is none.
pub(crate) fn fork(spec: &Spec, order: &Order<'_>) -> Result<Born, StartError> {
    let preload = preload(spec)?;
    let servers = SERVERS.get_or_init(Servers::default);
    let shared = servers.place(preload);
    let mut place = lock(&shared.server);
    // Only now: a server that another start has kept busy is not silent, and must not be killed for that.
    let deadline = Instant::now() + spec.start_deadline;
    let mut lost = ExitStatus::Unknown;
    // Again, once: a server that was killed, or asked to end, was not broken by this order.
    for _ in 0..2 {
        if let Some(old) = place.take_if(|server| !server.is_current()) {
            old.end(Instant::now() + GRACE);
        }
        let server = match &mut *place {
            Some(server) => server,
            // It was killed as the program ends, which waits for nothing more to be loaded.
            None if lock(&shared.reach).has_ended() => {
                return Err(StartError::Server(ServerError::ProgramEnds));
            }
            empty => {
                servers.end_with_program();
                let server = Server::start(&shared.reach, preload, deadline, spec.start_deadline)?;
                // An ending that came before it was within reach has used up the hook.
                servers.end_with_program();
                empty.insert(server)
            }
        };
        match server.fork(spec, order, deadline) {
            Ok(born) => return Ok(born),
            Err(Failed::Refused(error)) => return Err(error),
            Err(Failed::Dead) => lost = place.take().map_or(ExitStatus::Unknown, Server::bury),
            Err(Failed::Silent) => {
                drop(place.take());
                let silent = ServerError::Silent { deadline: spec.start_deadline };
                return Err(StartError::Server(silent));
            }
        }
    }
    Err(StartError::Server(ServerError::Lost(lost)))
}

/// Ends the start servers of this program, if there are any. Their children go on.
///
/// When this returns, they have been reaped, and the memory that they had preloaded is free. It
/// waits for starts that use one; a server that has not ended five seconds after the call is
/// killed. The next start by [`StartMethod::Server`] brings up a new one.
///
/// # Examples
///
/// ```
/// use epilogue_process::{Process, StartMethod, end_servers};
///
/// let process = Process::builder().start_method(StartMethod::Server).start((), |()| 7)?;
/// end_servers();
/// assert_eq!(process.join()?, 7);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn end_servers() {
    if let Some(servers) = SERVERS.get() {
        if let Some(hook) = lock(&servers.hook).take() {
            hook.cancel();
        }
        servers.end_all(Instant::now() + GRACE);
    }
}

impl Servers {
    fn place(&self, preload: Option<u64>) -> Arc<Place> {
        let mut places = lock(&self.places);
        if let Some((_, place)) = places.iter().find(|(key, _)| *key == preload) {
            return Arc::clone(place);
        }
        let place = Arc::<Place>::default();
        places.push((preload, Arc::clone(&place)));
        place
    }

    /// Sees to it that no server outlives the program, nor is left as its zombie.
    fn end_with_program(&self) {
        let mut hook = lock(&self.hook);
        if hook.is_none() {
            let end = |ending: &Ending| {
                if let Some(servers) = SERVERS.get() {
                    // A server that is started later needs a hook again.
                    let _ = lock(&servers.hook).take();
                    let left = ending.remaining().map_or(GRACE, |left| left * 4 / 5);
                    servers.end_within(left, ending.may_go_on());
                }
            };
            *hook = Some(ending::register("epilogue: end the start server", end));
        }
    }

    fn end_all(&self, kill_at: Instant) {
        for place in self.all() {
            let server = lock(&place.server).take();
            if let Some(server) = server {
                server.end(kill_at);
            }
        }
    }

    /// As [`Servers::end_all`], but no start is waited for as long as it likes: it may be in a preload
    /// of the user's that never ends, while the time of the finalizers after this one does.
    fn end_within(&self, time: Duration, may_go_on: bool) {
        let begin = Instant::now();
        let (patience, kill_at) = (begin + time / 2, begin + time);
        for place in self.all() {
            let held = lock_until(&place.server, patience).or_else(|| {
                lock(&place.reach).end(may_go_on);
                // The start is to reap it before the program ends.
                let held = lock_until(&place.server, kill_at);
                if held.is_none() {
                    // It may be within reach only since then.
                    lock(&place.reach).end(may_go_on);
                }
                held
            });
            if let Some(server) = held.and_then(|mut server| server.take()) {
                server.end(kill_at);
            }
        }
    }

    fn all(&self) -> Vec<Arc<Place>> {
        lock(&self.places).iter().map(|(_, place)| Arc::clone(place)).collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
