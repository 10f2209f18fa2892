//! A kernel whose Landlock is as old as a test wants it to be.

use std::os::fd::{AsFd, OwnedFd};
use std::thread;

use nix::errno::Errno;

use crate::seccomp::{self, Answer};

/// How `landlock_create_ruleset` is asked for the version, rather than for a ruleset.
const CREATE_RULESET_VERSION: u64 = 1;

/// For this thread, and for all that it starts from here on, as long as this process lives: the
/// kernel says that its Landlock is of that version. Why the kernel does not let us, if it does not.
pub fn landlock_says(version: i64) -> Result<(), Errno> {
    let listener = seccomp::listen_to(nix::libc::SYS_landlock_create_ruleset)?;
    thread::spawn(move || {
        loop {
            // Whoever asked may have been killed by now.
            match answer_next(&listener, version) {
                Ok(()) | Err(Errno::ENOENT | Errno::EINTR) => {}
                Err(error) => panic!("{error}"),
            }
        }
    });
    Ok(())
}

fn answer_next(listener: &OwnedFd, version: i64) -> Result<(), Errno> {
    let waiting = seccomp::next_waiting(listener.as_fd())?;
    let [.., flags, _, _, _] = waiting.arguments;
    let answer = match flags {
        CREATE_RULESET_VERSION => Answer::Returns(version),
        _ => Answer::Done,
    };
    seccomp::answer(listener.as_fd(), waiting, answer)
}
