//! Waiting for descriptors, with a time that never ends too early.

use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollTimeout, poll};

/// Waits until one of `fds` is ready, or until `until`.
///
/// False if the kernel does not wait for these: it has no memory, or they are more than this
/// process may have open since somebody lowered `RLIMIT_NOFILE`. Then a moment has passed, nothing
/// is known of them, and each has to be looked at.
pub fn wait_for(fds: &mut [PollFd<'_>], until: Option<Instant>) -> bool {
    match poll(fds, timeout(until)) {
        Ok(_) | Err(Errno::EINTR) => true,
        Err(_) => {
            thread::sleep(Duration::from_millis(1));
            false
        }
    }
}

/// How long `poll` may wait, rounded up: a wait that ends too early would spin.
pub fn timeout(until: Option<Instant>) -> PollTimeout {
    let Some(until) = until else {
        return PollTimeout::NONE;
    };
    let left = until.saturating_duration_since(Instant::now());
    PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
}
