//! How old the kernel's Landlock is, and a kernel whose Landlock is as old as a test wants it to be.

use std::os::fd::{AsFd, OwnedFd};
use std::thread;

use nix::errno::Errno;

use crate::seccomp::{self, Answer};
use crate::{not_tried, sys};

/// The first version that is all of a sandbox, that of Linux 6.12.
pub const LANDLOCK_IS_WHOLE: i64 = 6;

/// Which version of Landlock the kernel says it has: 0 if it has none, or has it switched off.
pub fn landlock_version() -> i64 {
    sys::landlock_version().unwrap_or(0)
}

/// Whether the kernel's Landlock is all of a sandbox. If not, says that the rest of the test was not
/// tried, as [`not_tried`] does.
#[track_caller]
pub fn landlock_is_whole() -> bool {
    let version = landlock_version();
    let is_whole = version >= LANDLOCK_IS_WHOLE;
    if !is_whole {
        not_tried(format!(
            "Landlock is of version {version}, and {LANDLOCK_IS_WHOLE} is a whole one"
        ));
    }
    is_whole
}

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
        sys::CREATE_RULESET_VERSION => Answer::Returns(version),
        _ => Answer::Done,
    };
    seccomp::answer(listener.as_fd(), waiting, answer)
}
