//! A process in an event loop: as a descriptor, and as a future.

use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use super::{Process, Waiting};
use crate::awaiting::Waiter;
use crate::error::JoinError;
use crate::portable::Portable;

/// The descriptor becomes readable as the process ends. A result that is larger than a socket's
/// buffer has to be read before that: [`wait_any`](crate::wait_any) and the joins do so. What it has
/// left behind may take longer to end, where it [is to](crate::Builder::end_tree): it counts as running
/// until then.
///
/// # Examples
///
/// ```
/// use std::os::fd::AsFd;
/// use epilogue_process::Process;
/// use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
///
/// let process = Process::start((), |()| 3)?;
/// // In the event loop of a program, with other descriptors.
/// poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE)?;
/// assert_eq!(process.join()?, 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl<R> AsFd for Process<R> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ties.pidfd.as_fd()
    }
}

impl<R: Portable> Future for Process<R> {
    type Output = Result<R, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if !self.running.is_ours() {
            return Poll::Ready(Err(JoinError::NotParent));
        }
        let polled = match &self.waiting {
            Waiting::Task(waiter) => waiter.poll(context),
            Waiting::Nobody | Waiting::Reaper => match Waiter::start(&self.running, context) {
                Ok(waiter) => {
                    self.waiting = Waiting::Task(waiter);
                    Poll::Pending
                }
                // No thread to be had: then this one has to wait.
                Err(_) => Poll::Ready(()),
            },
        };
        polled.map(|()| self.wait(None).and_then(|_| self.take()))
    }
}
