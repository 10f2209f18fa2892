//! The server itself: a process of this program that only forks.
//!
//! # Invariants
//!
//! 1. It has one thread from before the first fork on, so no lock is ever held by another one.
//! 2. Every signal is blocked, as in a child that is about to begin: what a child inherits is what
//!    one that was spawned has.
//! 3. It knows every descriptor that it opened since it began, so a child can close them all.
//! 4. It shares no memory with a child that either can write to, nor do two of its children.

use std::fs;
use std::hint;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::thread;
use std::time::Duration;

use epilogue_embed::ending::{self, Cause};
use epilogue_embed::lent::Thread;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::protocol::{Answer, DOWN, Opening, Request, UP, Unable, pack, unpack};
use super::spare;
use crate::boot::{Refusal, Summons};
use crate::panics::{self, Backtraces};
use crate::sys::dress;
use crate::sys::fork::{self, Side};
use crate::sys::image::Image;
use crate::sys::memory::SharedWords;
use crate::sys::pages::Variables;
use crate::sys::passing;
use crate::sys::process::{self, exit_now};
use crate::sys::spawn::{CLAIMS_FD, WIRE_FD};
use crate::sys::title::Title;
use crate::watcher;

/// The exit code of a server that could not begin.
const CANNOT_BEGIN: i32 = 125;

/// Serves, and ends this process.
pub(crate) fn serve(summons: &Summons) -> ! {
    // Nothing may unwind into the C code that called the start hook.
    match panics::catch(|| Server::begin(summons)) {
        Ok(Some(mut server)) => {
            // A panic in here would be ours; what it leaves is a server that ends.
            let _ = panics::catch(|| while server.turn() {});
            ending::leave(0, Cause::Parent)
        }
        Ok(None) | Err(_) => exit_now(CANNOT_BEGIN),
    }
}

pub(super) struct Server {
    pub(super) socket: OwnedFd,
    pub(super) parent: OwnedFd,
    pub(super) signals: SignalFd,
    /// Where the kernel leaves the pid of the child that was made last, for the parent to see. It is in
    /// no child, and a child never drops this.
    slot: SharedWords,
    /// Keeps the number of the claims taken: what is received must not get it.
    _slot: OwnedFd,
    pub(super) title: Option<Title>,
    pub(super) variables: Variables,
    /// What the children's environment is, where that is not this process's own.
    pub(super) environment: Option<Vec<u8>>,
}

impl Server {
    fn begin(summons: &Summons) -> Option<Self> {
        let socket = process::inherited(WIRE_FD).ok()?;
        let slot_fd = process::inherited(CLAIMS_FD).ok()?;
        let parent = watcher::parent(socket.as_fd())?;
        wait_for(&socket, &parent)?;
        let (bytes, _) = passing::receive::<DOWN>(socket.as_fd()).ok()??;
        let opening: Opening = unpack(&bytes)?;
        if opening.token != summons.token {
            return None;
        }
        let slot = SharedWords::map(&slot_fd).ok()?;
        let title = Title::find();
        // The parent ends whom it names: that is no word for a child to say.
        let hidden = step("keeping a page from the children", slot.keep_from_copies());
        let prepared = summons.descriptors.clone().map_err(Unable::from).and(hidden);
        let prepared = prepared.and_then(|()| prepare(&opening, title, &parent));
        passing::send(socket.as_fd(), &pack(&prepared)?, &[]).ok()?;
        prepared.ok()?;
        let mask = SigSet::from(Signal::SIGTERM);
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let signals = SignalFd::with_flags(&mask, flags).ok()?;
        let (variables, environment) = (Variables::find(), None);
        Some(Self { socket, parent, signals, slot, _slot: slot_fd, title, variables, environment })
    }

    /// Waits for one thing and does it; false if it is time to leave.
    fn turn(&mut self) -> bool {
        let all = [self.socket.as_fd(), self.parent.as_fd(), self.signals.as_fd()];
        let [socket, parent, signals] = match ready(all) {
            Ok(ready) => ready,
            Err(Errno::EINTR) => return true,
            Err(_) => return false,
        };
        if parent || signals {
            return false;
        }
        !socket || self.answer()
    }

    fn answer(&mut self) -> bool {
        let (bytes, fds) = match passing::receive::<DOWN>(self.socket.as_fd()) {
            Ok(Some(message)) => message,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
            // Its descriptors did not fit. Some may have been received, and are nobody's now.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                self.tell(&Err(libc::EMFILE), &[]);
                return false;
            }
            Ok(None) | Err(_) => return false,
        };
        let Some(request) = unpack::<Request>(&bytes) else { return false };
        let mut fds = fds;
        if request.environment {
            match fds.pop().map(read_all) {
                Some(Ok(environment)) => self.environment = Some(environment),
                _ => return false,
            }
        }
        match self.fork() {
            Ok((pid, fds)) => self.tell(&Ok(pid), &fds.each_ref().map(AsFd::as_fd)),
            Err(error) => {
                let number = error.raw_os_error().unwrap_or(libc::EIO);
                // One that may have no descriptors does not get any later: the next one may.
                self.tell(&Err(number), &[]) && number != libc::EMFILE
            }
        }
    }

    /// Forks a spare child. In that, this does not return.
    fn fork(&self) -> io::Result<(i32, [OwnedFd; 2])> {
        let (near, far) = passing::pair()?;
        let pid = self.slot.words().first().ok_or(io::ErrorKind::NotFound)?;
        match fork::alone(pid)? {
            Side::Child => spare::wait(self, near, far),
            Side::Original { pid, pidfd } => Ok((pid, [pidfd, near])),
        }
    }

    fn tell(&self, answer: &Answer, fds: &[BorrowedFd<'_>]) -> bool {
        pack(answer).is_some_and(|bytes| passing::send(self.socket.as_fd(), &bytes, fds).is_ok())
    }
}

/// Everything up to the first fork, the user's `preload` included.
fn prepare(opening: &Opening, title: Option<Title>, parent: &OwnedFd) -> Result<(), Unable> {
    let image = Image::this().ok_or(Unable::OtherBuild)?;
    if image.fingerprint() != opening.fingerprint {
        return Err(Unable::OtherBuild);
    }
    step("naming the server", prctl::set_name(c"epilogue-server"))?;
    step("ignoring SIGPIPE", process::ignore_sigpipe())?;
    if let Some(title) = title {
        title.set(&opening.title);
    }
    panics::remember(Backtraces::default());
    warm_up();
    let before = step("listing what is open", descriptors())?;
    if let Some(offset) = opening.preload {
        let preload = image.initializer(offset).ok_or(Unable::OtherBuild)?;
        run_preload(preload, parent)?;
    }
    // Text that is still in a buffer would be written by every child once more.
    step("flushing standard output", io::stdout().flush())?;
    dress::flush_c_streams();
    match threads() {
        1 => {}
        several => return Err(Unable::Threads(several)),
    }
    let mut left = step("listing what is open", descriptors())?;
    left.retain(|fd| !before.contains(fd));
    if left.is_empty() { Ok(()) } else { Err(Unable::Descriptors(left)) }
}

/// Lets a thread begin and end, as each child is about to start one, its watcher: the C library
/// keeps its stack, and each child finds it ready, instead of making its own.
///
/// What was freed is put in order, too: the first large allocation of a child would do that, and
/// copy each page that it touches.
fn warm_up() {
    // Twice: the second has the stack of the first, and the loader has then looked up all that the
    // C library needs for that, which every child would do again.
    for _ in 0..2 {
        if let Ok(thread) = Thread::start(c"epilogue-warm", (), |()| ()) {
            thread.join();
        }
    }
    drop(hint::black_box(vec![1u8; 64 * 1024]));
}

/// Calls the user's function. It may take as long as the parent waits, and no longer than the
/// parent lives: nobody watches it meanwhile, so the kernel ends this process with the parent. The
/// thread that started it, which the kernel means by that, is in there waiting for the answer.
fn run_preload(preload: fn(), parent: &OwnedFd) -> Result<(), Unable> {
    step("binding the server to its parent", prctl::set_pdeathsig(Signal::SIGKILL))?;
    if matches!(ready([parent.as_fd()]), Ok([true])) {
        exit_now(CANNOT_BEGIN);
    }
    let result = panics::catch(preload).map_err(|mut panic| {
        // The rest of the message goes where the panic hook wrote it.
        panic.message.truncate(panic.message.floor_char_boundary(UP / 2));
        Unable::Preload(panic)
    });
    step("releasing the server", prctl::set_pdeathsig(Signal::SIGCONT))?;
    result
}

/// How many threads there are. A thread that was joined is still counted for a moment.
pub(crate) fn threads() -> usize {
    let count = || fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    for _ in 0..100 {
        if count() == 1 {
            return 1;
        }
        thread::sleep(Duration::from_millis(1));
    }
    count()
}

fn descriptors() -> io::Result<Vec<RawFd>> {
    let mut all = process::listed_descriptors()?;
    all.retain(|fd| dress::is_open(*fd));
    Ok(all)
}

pub(super) fn read_all(fd: OwnedFd) -> io::Result<Vec<u8>> {
    let mut file = fs::File::from(fd);
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Waits for a message. None if the parent is gone.
pub(super) fn wait_for(socket: &OwnedFd, parent: &OwnedFd) -> Option<()> {
    loop {
        match ready([socket.as_fd(), parent.as_fd()]) {
            Ok([_, true]) => return None,
            Ok([true, false]) => return Some(()),
            Ok([false, false]) | Err(Errno::EINTR) => {}
            Err(_) => return None,
        }
    }
}

/// Waits until one is readable or at its end, and tells which are. One alone is not waited for.
fn ready<const N: usize>(fds: [BorrowedFd<'_>; N]) -> nix::Result<[bool; N]> {
    let mut polled = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
    let timeout = if N == 1 { PollTimeout::ZERO } else { PollTimeout::NONE };
    poll(&mut polled, timeout)?;
    Ok(polled.map(|fd| fd.any().unwrap_or(true)))
}

impl From<Refusal> for Unable {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::OtherBuild => Self::OtherBuild,
            Refusal::Step { step, error } => Self::Step { step, error },
        }
    }
}

fn step<T, E: ToString>(step: &str, result: Result<T, E>) -> Result<T, Unable> {
    result.map_err(|error| Unable::Step { step: step.to_owned(), error: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::{descriptors, dress};
    use crate::sys::copy::ends_well_in_a_copy;

    #[test]
    fn the_listing_is_not_among_the_descriptors_that_it_lists() {
        // Alone: nobody else opens or closes one.
        assert!(ends_well_in_a_copy(|| {
            let all = descriptors().unwrap();
            assert!(all.contains(&2) && all.iter().all(|fd| dress::is_open(*fd)), "{all:?}");
        }));
    }
}
