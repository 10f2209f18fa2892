//! A spare child: forked ahead, it waits for what it shall be, and then is it.
//!
//! The fork itself, and what follows from it (each page that is touched first is copied or looked
//! up), is done before anybody waits for it.
//!
//! # Invariants
//!
//! 1. It ends with the program: it watches its parent, and nothing of the user's has run in it.
//! 2. It is given one assignment, on a socket of its own, and is a child like any other from then
//!    on.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::main::{Server, read_all, wait_for};
use super::protocol::{Assignment, DOWN, Stream, unpack};
use crate::boot::{self, Ahead, Summons};
use crate::panics;
use crate::sys::dress;
use crate::sys::passing;
use crate::sys::process::exit_now;
use crate::sys::spawn::{CLAIMS_FD, WIRE_FD};

/// The exit code of a spare child that nobody needed, or that could not begin.
const CANNOT_BEGIN: i32 = 125;

/// Waits for the assignment and carries it out. `near` is the program's end of the socket.
pub(super) fn wait(server: &Server, near: OwnedFd, far: OwnedFd) -> ! {
    drop(near);
    // Nothing may unwind into the server's code: this is another process now.
    match panics::catch(|| be_assigned(server, far)) {
        Ok(Some((token, ahead))) => boot::serve(Summons::child(token, ahead)),
        Ok(None) | Err(_) => exit_now(CANNOT_BEGIN),
    }
}

fn be_assigned(server: &Server, far: OwnedFd) -> Option<(u64, Option<Ahead>)> {
    prctl::set_name(c"epilogue-spare").ok()?;
    // Should it be stopped when its parent ends, it is woken, and sees that.
    prctl::set_pdeathsig(Signal::SIGCONT).ok()?;
    // In place of the server's, whose end nobody else must hold. So the number stays taken, and
    // what is received gets a higher one.
    dress::place(Some(far.as_fd()), WIRE_FD).ok()?;
    drop(far);
    dress::place(None, server.signals.as_raw_fd()).ok()?;
    // Before there is a second thread, which would have each of these pages cost twice as much.
    server.variables.copy();
    // Where that fails, it fails again when it is needed, and there is who hears of it.
    let ahead = Ahead::new().ok();
    wait_for(&server.socket, &server.parent)?;
    let (bytes, mut fds) = passing::receive::<DOWN>(server.socket.as_fd()).ok()??;
    let assignment: Assignment = unpack(&bytes)?;
    if fds.len() != assignment.count() {
        return None;
    }
    let environment = match assignment.environment {
        true => Some(fds.pop().map(read_all)?.ok()?),
        false => None,
    };
    let environment = environment.as_ref().or(server.environment.as_ref());
    dress(server, &assignment, &fds).ok()?;
    // Closed above, under their numbers, which may mean something else by now.
    std::mem::forget(fds);
    if let Some(environment) = environment {
        dress::replace_environment(environment);
    }
    Some((assignment.token, ahead))
}

/// Makes this process what one is that was spawned.
fn dress(server: &Server, assignment: &Assignment, fds: &[OwnedFd]) -> io::Result<()> {
    let (own, rest) = fds.split_at(2);
    let mut rest = rest.iter();
    // From the last to the first, whose own is `/dev/null`, which the others may need.
    let given = assignment.streams.map(|stream| match stream {
        Stream::Given => rest.next(),
        Stream::Null | Stream::Closed => None,
    });
    for (fd, (stream, given)) in
        [2, 1, 0].map(|fd| (fd as c_int, (assignment.streams[fd], given[fd])))
    {
        match stream {
            Stream::Given => dress::place(given.map(AsFd::as_fd), fd)?,
            Stream::Null if fd == 0 => {}
            Stream::Null => dress::place(Some(io::stdin().as_fd()), fd)?,
            Stream::Closed => dress::place(None, fd)?,
        }
    }
    if let Some(directory) = rest.next() {
        nix::unistd::fchdir(directory)?;
    }
    if assignment.own_group {
        nix::unistd::setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
    }
    // What was received has higher numbers than both: no source is replaced before its turn.
    dress::place(Some(own[0].as_fd()), WIRE_FD)?;
    dress::place(Some(own[1].as_fd()), CLAIMS_FD)?;
    // Not a whole range: what a constructor opened stays, as in a child that was spawned.
    for fd in fds.iter().map(AsFd::as_fd).chain([server.parent.as_fd()]) {
        dress::place(None, fd.as_raw_fd())?;
    }
    if let Some(title) = server.title {
        title.set(&assignment.title);
    }
    Ok(())
}
