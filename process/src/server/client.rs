//! The program's side of one start server.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::{ResGid, ResUid, getresgid, getresuid};

use super::protocol::{
    Answer, Assignment, Opened, Opening, Request, Stream, TEXT, UP, Unable, pack, unpack,
};
use super::reach::{Reach, hang_up};
use super::{Born, Order, ServerError, lock};
use crate::boot::VARIABLE;
use crate::child::{Group, Spec, wait_for};
use crate::error::StartError;
use crate::launch::{self, Connection, at};
use crate::ring::Size;
use crate::status::ExitStatus;
use crate::stdio::Prepared;
use crate::sys::image::Image;
use crate::sys::memory::SharedWords;
use crate::sys::passing::{self, Message};
use crate::sys::pidfd::{self, Wait};
use crate::sys::process::check_file_size;

/// Why a server has not forked.
#[derive(Debug)]
pub(super) enum Failed {
    /// It said so, or could not be asked. It goes on.
    Refused(StartError),
    /// It has ended, or is about to.
    Dead,
    /// It did not answer in time.
    Silent,
}

/// A server of this process.
#[derive(Debug)]
pub(super) struct Server {
    pidfd: Arc<OwnedFd>,
    socket: Arc<OwnedFd>,
    /// Its first word is where the kernel leaves the pid of the child that was forked last.
    slot: SharedWords,
    /// Who this process was when it was started.
    identity: Identity,
    /// The environment that it was told of last.
    environment: Vec<u8>,
    next: Next,
    /// For the next child: made while this process would only wait for the last one to be up.
    connection: Option<Connection>,
    reaped: bool,
}

/// The spare child of a server.
#[derive(Debug)]
enum Next {
    Nobody,
    /// It was asked for, and the answer has not been received.
    Asked,
    Ready(Spare),
}

/// A child that waits for its assignment.
#[derive(Debug)]
struct Spare {
    born: Born,
    socket: OwnedFd,
}

type Identity = (ResUid, ResGid);

fn identity() -> io::Result<Identity> {
    Ok((getresuid()?, getresgid()?))
}

impl Server {
    /// Starts a server. When this returns, it has loaded what it shall, and waits for orders. Meanwhile
    /// it can be ended through `reach`.
    pub(super) fn start(
        reach: &Mutex<Reach>,
        preload: Option<u64>,
        deadline: Instant,
        patience: Duration,
    ) -> Result<Self, StartError> {
        let token = launch::token()?;
        let (socket, far) = passing::pair().map_err(at("making a socket pair"))?;
        let (slot, slot_fd) = SharedWords::create(1).map_err(at("making shared memory"))?;
        let identity = identity().map_err(at("reading the user's id"))?;
        let environment = environment(&Spec::default());
        let pidfd = Arc::new(launch::spawn_server(token, far.as_fd(), slot_fd.as_fd())?);
        let socket = Arc::new(socket);
        lock(reach).publish(&pidfd, &socket);
        drop((far, slot_fd));
        let (next, connection, reaped) = (Next::Nobody, None, false);
        let mut server =
            Self { pidfd, socket, slot, identity, environment, next, connection, reaped };
        let opening = Opening {
            token,
            fingerprint: Image::this().map_or(0, Image::fingerprint),
            preload,
            title: cut(launch::title("epilogue server")),
        };
        let opened = match pack(&opening) {
            // Should it be gone already, there is no answer either.
            Some(bytes) => match passing::send(server.socket.as_fd(), &bytes, &[]) {
                Ok(()) | Err(_) => server.receive(deadline),
            },
            None => Err(Failed::Dead),
        };
        match opened.map(|(bytes, _)| unpack::<Opened>(&bytes)) {
            Ok(Some(Ok(()))) => Ok(server),
            Ok(Some(Err(unable))) => Err(StartError::Server(unable.into())),
            Ok(None) | Err(Failed::Dead) => {
                Err(StartError::Server(ServerError::Lost(server.reap())))
            }
            Err(Failed::Silent) => {
                Err(StartError::Server(ServerError::Silent { deadline: patience }))
            }
            Err(Failed::Refused(error)) => Err(error),
        }
    }

    /// Whether this process is still who it was when it started the server.
    pub(super) fn is_current(&self) -> bool {
        identity().is_ok_and(|identity| identity == self.identity)
    }

    /// The connection that is ready, if this process may still use it.
    pub(super) fn connection(&mut self, size: Size) -> Option<Connection> {
        self.connection.take_if(|connection| connection.is_for(size)).filter(|_| self.is_current())
    }

    /// Gives the order to a child that was forked ahead, and has the next one forked.
    pub(super) fn fork(
        &mut self,
        spec: &Spec,
        order: &Order<'_>,
        deadline: Instant,
    ) -> Result<Born, Failed> {
        let environment = environment(spec);
        // Again, once: somebody may have ended the first before it was needed.
        for _ in 0..2 {
            // Whoever kills a server wants a new one.
            if pidfd::has_ended(self.pidfd.as_fd()) {
                return Err(Failed::Dead);
            }
            let spare = self.spare(&environment, deadline)?;
            match self.assign(&spare, spec, order, &environment) {
                Ok(true) => {
                    // Should that fail, the next start finds the same trouble.
                    let _ = self.ask(&environment);
                    self.connection = Connection::make(spec.ring).ok();
                    return Ok(spare.born);
                }
                Ok(false) => spare.end(),
                Err(failed) => {
                    self.next = Next::Ready(spare);
                    return Err(failed);
                }
            }
        }
        Err(Failed::Dead)
    }

    /// The spare child, forked now if there is none.
    fn spare(&mut self, environment: &[u8], deadline: Instant) -> Result<Spare, Failed> {
        match std::mem::replace(&mut self.next, Next::Nobody) {
            Next::Ready(spare) => return Ok(spare),
            Next::Nobody => {}
            Next::Asked => {
                self.next = Next::Asked;
                match self.announced(deadline) {
                    // That was then.
                    Err(Failed::Refused(_)) => {}
                    announced => return announced,
                }
            }
        }
        self.ask(environment)?;
        self.announced(deadline)
    }

    /// The spare child that was asked for.
    fn announced(&mut self, deadline: Instant) -> Result<Spare, Failed> {
        let (bytes, fds) = self.receive(deadline)?;
        match (unpack::<Answer>(&bytes), <[OwnedFd; 2]>::try_from(fds)) {
            (Some(Ok(pid)), Ok([pidfd, socket])) => {
                self.next = Next::Nobody;
                Ok(Spare { born: Born { pid, pidfd }, socket })
            }
            (Some(Err(number)), _) => {
                self.next = Next::Nobody;
                let error = io::Error::from_raw_os_error(number);
                Err(refused("forking in the start server")(error))
            }
            _ => Err(Failed::Dead),
        }
    }

    /// Asks for a spare child, and does not wait for it.
    fn ask(&mut self, environment: &[u8]) -> Result<(), Failed> {
        if let Some(word) = self.slot.words().first() {
            word.store(0, Ordering::Release);
        }
        let changed = environment != self.environment;
        let file = changed.then(|| memfd(environment)).transpose();
        let file = file.map_err(refused("writing the environment"))?;
        let bytes = pack(&Request { environment: changed }).ok_or(Failed::Dead)?;
        let fds: Vec<_> = file.iter().map(AsFd::as_fd).collect();
        match passing::send(self.socket.as_fd(), &bytes, &fds) {
            Ok(()) => {}
            Err(error) if is_gone(&error) => return Err(Failed::Dead),
            Err(error) => return Err(refused("asking the start server")(error)),
        }
        self.next = Next::Asked;
        if changed {
            self.environment = environment.to_vec();
        }
        Ok(())
    }

    /// Tells a spare child what it shall be; false if it has ended.
    fn assign(
        &self,
        spare: &Spare,
        spec: &Spec,
        order: &Order<'_>,
        environment: &[u8],
    ) -> Result<bool, Failed> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        // Who may not even look its own directory up has children in that of the server.
        let directory = open(".", flags, Mode::empty()).ok();
        let (input, output, error) = (io::stdin(), io::stdout(), io::stderr());
        let streams = [input.as_fd(), output.as_fd(), error.as_fd()];
        let streams = [0, 1, 2].map(|at| match (&order.stdio[at], order.stdio[at].file()) {
            (_, Some(file)) => (Stream::Given, Some(file.as_fd())),
            (Prepared::Null, None) => (Stream::Null, None),
            (_, None) if is_open(streams[at]) => (Stream::Given, Some(streams[at])),
            (_, None) => (Stream::Closed, None),
        });
        // What the spare child has is what the server was told last.
        let changed = environment != self.environment;
        let file = changed.then(|| memfd(environment)).transpose();
        let file = file.map_err(refused("writing the environment"))?;
        let assignment = Assignment {
            token: order.token,
            title: cut(order.title.to_vec()),
            own_group: spec.group == Group::Own,
            streams: streams.map(|(stream, _)| stream),
            directory: directory.is_some(),
            environment: changed,
        };
        let mut fds = vec![order.wire, order.claims];
        fds.extend(streams.iter().filter_map(|(_, fd)| *fd));
        fds.extend(directory.as_ref().map(AsFd::as_fd));
        fds.extend(file.as_ref().map(AsFd::as_fd));
        let bytes = pack(&assignment).ok_or(Failed::Dead)?;
        match passing::send(spare.socket.as_fd(), &bytes, &fds) {
            Ok(()) => Ok(true),
            Err(error) if is_gone(&error) => Ok(false),
            Err(error) => Err(refused("giving an order to a process")(error)),
        }
    }

    /// The next message, if it comes in time and before the server's end.
    fn receive(&self, deadline: Instant) -> Result<Message, Failed> {
        loop {
            let mut fds = [
                PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
                // A copy of the server may hold its end of the socket for a moment longer.
                PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN),
            ];
            let ended = match wait_for(&mut fds, Some(deadline)) {
                true => fds[1].any().unwrap_or(true),
                false => pidfd::has_ended(self.pidfd.as_fd()),
            };
            match passing::receive::<UP>(self.socket.as_fd()) {
                Ok(Some(message)) => return Ok(message),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && !ended => {
                    if deadline <= Instant::now() {
                        return Err(Failed::Silent);
                    }
                }
                // Or its answer could not be received whole: then it is not asked again either.
                Ok(None) | Err(_) => return Err(Failed::Dead),
            }
        }
    }

    /// Asks it to end, and ends it at `kill_at`.
    pub(super) fn end(mut self, kill_at: Instant) {
        hang_up(&self.socket);
        // One that was stopped cannot see it.
        let _ = pidfd::send_signal(self.pidfd.as_fd(), Signal::SIGCONT as i32);
        while Instant::now() < kill_at && !pidfd::has_ended(self.pidfd.as_fd()) {
            let mut fds = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
            wait_for(&mut fds, Some(kill_at));
        }
        self.reap();
    }

    /// Kills it if it is there, and reaps it, with the child that nobody needs.
    fn reap(&mut self) -> ExitStatus {
        self.reaped = true;
        hang_up(&self.socket);
        pidfd::end(self.pidfd.as_fd());
        let status = pidfd::wait(self.pidfd.as_fd(), Wait::Block);
        match std::mem::replace(&mut self.next, Next::Nobody) {
            Next::Nobody => {}
            Next::Ready(spare) => spare.end(),
            Next::Asked => self.end_unannounced(),
        }
        status.map_or(ExitStatus::Unknown, |reaped| reaped.status)
    }

    /// Ends the spare child that was asked for, if it was forked, whether or not the server came to
    /// say so. Nobody writes its pid any more.
    fn end_unannounced(&mut self) {
        // The server has ended, so what it said is here. A number may mean another process by now:
        // the spare waits for days, maybe, and other code may reap whatever has ended.
        match self.announced(Instant::now()) {
            Ok(spare) => return spare.end(),
            Err(Failed::Refused(_)) => return,
            Err(Failed::Dead | Failed::Silent) => {}
        }
        // It was killed between the fork and the message, or that could not be received.
        let pid = self.slot.words().first().map_or(0, |word| word.load(Ordering::Acquire));
        // The kernel wrote four bytes of the eight, in its own order.
        let [a, b, c, d, ..] = pid.to_ne_bytes();
        let pid = libc::pid_t::from_ne_bytes([a, b, c, d]);
        if pid != 0
            && let Ok(Born { pidfd, .. }) = launch::adopt(pid)
            && pidfd::is_child(pidfd.as_fd())
        {
            end(&pidfd);
        }
    }

    /// Kills and reaps it, and tells how it ended.
    pub(super) fn bury(mut self) -> ExitStatus {
        self.reap()
    }
}

impl Spare {
    fn end(self) {
        hang_up(&self.socket);
        end(&self.born.pidfd);
    }
}

/// Ends a child that has not become anything yet.
fn end(pidfd: &OwnedFd) {
    pidfd::end(pidfd.as_fd());
    let _ = pidfd::wait(pidfd.as_fd(), Wait::Block);
}

fn refused(step: &'static str) -> impl FnOnce(io::Error) -> Failed {
    move |error| Failed::Refused(at(step)(error))
}

/// Whether the other end is closed.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

impl Drop for Server {
    fn drop(&mut self) {
        if !self.reaped {
            self.reap();
        }
    }
}

impl From<Unable> for ServerError {
    fn from(unable: Unable) -> Self {
        match unable {
            Unable::OtherBuild => Self::OtherBuild,
            Unable::Preload(panic) => Self::Preload(panic),
            Unable::Threads(count) => Self::Threads { count },
            Unable::Descriptors(numbers) => Self::Descriptors(numbers),
            Unable::Step { step, error } => Self::Step { step, error },
        }
    }
}

/// The variables of a child, as `name=value`, each with a zero at its end. None holds another:
/// those that were set have been looked at.
fn environment(spec: &Spec) -> Vec<u8> {
    let mut block = Vec::with_capacity(4096);
    let variables = spec.environment.apply(std::env::vars_os()).into_iter();
    for (name, value) in variables.filter(|(name, _)| name != VARIABLE) {
        block.extend_from_slice(name.as_bytes());
        block.push(b'=');
        block.extend_from_slice(value.as_bytes());
        block.push(0);
    }
    block
}

fn memfd(bytes: &[u8]) -> io::Result<OwnedFd> {
    check_file_size(bytes.len())?;
    let mut file = File::from(memfd_create(c"epilogue-environment", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(bytes)?;
    Ok(file.into())
}

fn cut(mut title: Vec<u8>) -> Vec<u8> {
    title.truncate(TEXT);
    title
}

fn is_open(fd: BorrowedFd<'_>) -> bool {
    nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_GETFD).is_ok()
}
