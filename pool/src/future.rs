//! A task in an event loop: as a future.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use epilogue_process::Portable;
use epilogue_process::child::this_process;

use crate::error::TaskError;
use crate::mailbox::Mailbox;
use crate::task::Task;

/// A task is a future of what [`Task::join`] returns. It needs no runtime of any kind, and no thread
/// of its own: it is woken by whoever reads what workers answer, which is the pool's own thread if
/// nobody else does.
///
/// Its waker may be called on any thread that uses the pool, the pool's own included. It may use
/// the pool, but had better not wait for anything: while it keeps the pool's own thread, no worker
/// that dies is replaced. If it ends the pool there, that end is not waited for; if it exits the
/// program there, the workers end by themselves, soon after. A callback of [`Task::on_done`] may
/// wait.
///
/// Polled again after its outcome was given, a task gives [`TaskError::AlreadyJoined`].
///
/// # Examples
///
/// ```
/// # fn block_on<F: Future>(future: F) -> F::Output {
/// #     use std::{pin::pin, sync::Arc, task::{Context, Poll, Wake}, thread::{self, Thread}};
/// #     struct Unpark(Thread);
/// #     impl Wake for Unpark {
/// #         fn wake(self: Arc<Self>) { self.0.unpark() }
/// #     }
/// #     let (mut future, waker) = (pin!(future), Arc::new(Unpark(thread::current())).into());
/// #     loop {
/// #         match future.as_mut().poll(&mut Context::from_waker(&waker)) {
/// #             Poll::Ready(output) => return output,
/// #             Poll::Pending => thread::park(),
/// #         }
/// #     }
/// # }
/// let pool = epilogue_pool::Pool::new(2)?;
/// let (a, b) = (pool.submit(20u64, |x| x * 2)?, pool.submit(1u64, |x| x * 2)?);
/// let sum = block_on(async { Ok::<_, epilogue_pool::TaskError>(a.await? + b.await?) })?;
/// assert_eq!(sum, 42);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl<R: Portable> Future for Task<R> {
    type Output = Result<R, TaskError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.subscribe(context.waker()) {
            true => {
                // Not anew: what is replaced would unsubscribe.
                if self.awaiting.is_none() {
                    let mailbox = Arc::clone(&self.mailbox);
                    self.awaiting = Some(Awaiting { mailbox, owner: this_process() });
                }
                Poll::Pending
            }
            false => {
                self.awaiting = None;
                Poll::Ready(self.require_open().and_then(|()| self.take()))
            }
        }
    }
}

/// While it lives, a task is awaited; a future that is dropped wakes nobody.
#[derive(Debug)]
pub(crate) struct Awaiting {
    mailbox: Arc<Mailbox>,
    /// Who had the mailbox's lock as another process was forked did not come along.
    owner: u32,
}

impl Drop for Awaiting {
    fn drop(&mut self) {
        if self.owner == this_process() {
            self.mailbox.unsubscribe();
        }
    }
}
