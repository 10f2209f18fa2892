//! A thread of a library's that waits for something anyway, and so stands in for embed's.
//!
//! A thread that does nothing but wait for a signal costs a process as much as its whole fork, at
//! its start and at its end. A child of a library has a thread that watches its parent: that one
//! lets the signals in, and starts embed's own when one has come.
//!
//! # Invariants
//! 1. What a handler leaves is seen: either the handler finds the attendant's number and interrupts
//!    its wait, or the attendant, which publishes its number first, finds the letter.
//! 2. A signal that comes between a look and a wait ends the wait: the thread blocks all signals,
//!    but in the wait itself.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use crate::signals::{self, Desk};
use crate::sys::action::{INTERRUPTION, this_thread};
use crate::sys::mask;

/// The promise of a thread that will [`wait`](Attendant::wait), so that embed starts none.
///
/// Made by [`attendant`](crate::ending::attendant). To drop it before it has begun to wait is to
/// leave signals unheard.
#[derive(Debug)]
pub struct Attendant {
    desk: Option<&'static Desk>,
}

impl Attendant {
    pub(crate) fn new() -> Self {
        Self { desk: Desk::promise_attendant() }
    }

    /// Waits until one of `descriptors` is readable or at its end, or `timeout` is over, and tells
    /// which are. May return without any of it.
    ///
    /// All signals should be blocked in this thread, also those that this crate handles: the wait lets those
    /// in.
    ///
    /// # Errors
    ///
    /// The kernel's, where it does not wait: it has no memory, or the limit on descriptors is less
    /// than the number of `descriptors`.
    pub fn wait<const N: usize>(
        &mut self,
        descriptors: [BorrowedFd<'_>; N],
        timeout: Option<Duration>,
    ) -> io::Result<[bool; N]> {
        self.attend();
        let numbers = descriptors.map(|descriptor| descriptor.as_raw_fd());
        let waited = mask::wait_letting_in(numbers, timeout, |signal| {
            signals::is_handled(signal) || signal == INTERRUPTION
        });
        self.attend();
        waited
    }

    /// Starts embed's thread if a signal has come.
    fn attend(&mut self) {
        if let Some(desk) = self.desk
            && desk.attend(this_thread())
        {
            // From now on that thread does the work, or another one did it from the beginning.
            self.desk = None;
        }
    }
}
