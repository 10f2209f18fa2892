//! Who answers the system calls of a program and of all that it starts, and has one of them fail.
//!
//! The program filters itself and hands over the listener. From then on each call that is listened to
//! waits for its answer, in whichever process: who answers must wait for none of them.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::thread::{self, JoinHandle};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, UnixAddr, sendmmsg};
use nix::unistd::Pid;
use support::seccomp::{self, Answer};
use support::sys::pidfd_open;

/// The call that fails, of all that the program and its descendants make.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fault {
    /// Counted from 1 on.
    pub(crate) time: u64,
    pub(crate) error: Errno,
    /// Which calls are counted, by their arguments.
    pub(crate) counts: fn(&[u64; 6]) -> bool,
}

/// From here on each `call` of this thread, and of all that it starts, waits for an answer of the one
/// at `place`: why the kernel refuses, if it does.
pub(crate) fn ask_for(call: libc::c_long, place: &Path) -> Result<(), Errno> {
    let socket = UnixDatagram::unbound().unwrap();
    socket.connect(place).unwrap();
    // All that takes memory comes before: to ask for that may be what waits.
    let space = nix::cmsg_space!([i32; 1]);
    let mut headers = MultiHeaders::<UnixAddr>::preallocate(1, Some(space));
    let listener = seccomp::listen_to(call)?;
    let (data, fds) = ([[IoSlice::new(&[0])]], [listener.as_raw_fd()]);
    let rights = [ControlMessage::ScmRights(&fds)];
    // Not `sendmsg`, which may be what waits. Nobody else makes this call.
    sendmmsg(socket.as_raw_fd(), &mut headers, &data, [None], rights, MsgFlags::empty()).unwrap();
    Ok(())
}

/// Waits for the listener of the program `pid`: none if that ends before.
pub(crate) fn listener(socket: &UnixDatagram, pid: Pid) -> Option<OwnedFd> {
    let pidfd = pidfd_open(pid).unwrap();
    let mut ready = [&socket.as_fd(), &pidfd.as_fd()].map(|fd| PollFd::new(*fd, PollFlags::POLLIN));
    while poll(&mut ready, PollTimeout::NONE) == Err(Errno::EINTR) {}
    // What it sent is there before its end is.
    if ready[0].any()? { seccomp::receive(socket.as_fd()).ok() } else { None }
}

/// Answers until it is told to end, or there is nobody left to ask.
#[derive(Debug)]
pub(crate) struct Answers {
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<bool>>,
}

impl Answers {
    pub(crate) fn start(listener: OwnedFd, fault: Fault) -> Self {
        let (stop, stopped) = UnixStream::pair().unwrap();
        let serve = move || serve(&listener, &stopped, fault);
        let thread = thread::Builder::new().name("answers".to_owned()).spawn(serve).unwrap();
        Self { stop: Some(stop), thread: Some(thread) }
    }

    /// Nobody asks any more. Whether a call was made to fail.
    pub(crate) fn end(mut self) -> bool {
        drop(self.stop.take());
        self.thread.take().is_some_and(|thread| thread.join().unwrap())
    }
}

impl Drop for Answers {
    /// Where a case is left early. Whoever still waits is refused by the kernel.
    fn drop(&mut self) {
        drop(self.stop.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn serve(listener: &OwnedFd, stopped: &UnixStream, fault: Fault) -> bool {
    let (mut count, mut failed) = (0, false);
    loop {
        let fds = [stopped.as_fd(), listener.as_fd()];
        let mut ready = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        match poll(&mut ready, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            result => result.unwrap(),
        };
        let [stopped, asked] = ready.map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
        // Without a call that waits there is somebody left to ask, or not.
        if !stopped.is_empty() || !asked.contains(PollFlags::POLLIN) {
            return failed;
        }
        let waiting = match seccomp::next_waiting(listener.as_fd()) {
            // It was killed before it was looked at.
            Err(Errno::ENOENT | Errno::EINTR) => continue,
            result => result.unwrap(),
        };
        let counts = (fault.counts)(&waiting.arguments);
        let fails = counts && count + 1 == fault.time;
        let answer = if fails { Answer::Fails(fault.error) } else { Answer::Done };
        match seccomp::answer(listener.as_fd(), waiting, answer) {
            Ok(()) => {}
            // It was killed before it was answered: that was none.
            Err(Errno::ENOENT) => continue,
            Err(error) => panic!("{error}"),
        }
        count += u64::from(counts);
        failed |= fails;
    }
}
