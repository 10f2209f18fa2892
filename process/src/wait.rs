//! Waiting for several processes at once, without polling any of them.

use std::sync::MutexGuard;
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, poll};

use crate::child::timeout;
use crate::error::JoinError;
use crate::portable::Portable;
use crate::process::Process;
use crate::running::{Running, SharedRunning, lock};
use crate::scope::ScopedProcess;

/// A handle that can be waited for with others, whatever the type of its result.
pub trait Waitable: sealed::Sealed {}

impl<R> Waitable for Process<R> {}
impl<R> Waitable for ScopedProcess<'_, R> {}

pub(crate) mod sealed {
    use crate::running::SharedRunning;

    /// What is behind a handle.
    #[derive(Debug)]
    pub struct Handle<'a>(pub(crate) &'a SharedRunning);

    pub trait Sealed {
        #[doc(hidden)]
        fn handle(&self) -> Handle<'_>;
    }
}

/// Waits until one of the processes has ended, and says which: its position among `handles`.
///
/// When this returns, joining that one returns at once. The others go on. None if there are none.
///
/// # Examples
///
/// ```
/// use epilogue_process::{Process, wait_any};
///
/// let never: Process<()> = Process::start((), |()| loop { std::thread::park() })?;
/// let soon = Process::start(2u64, |x| x * x)?;
/// assert_eq!(wait_any(&[&never, &soon]), Some(1));
/// assert_eq!(soon.join()?, 4);
/// never.terminate()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn wait_any(handles: &[&dyn Waitable]) -> Option<usize> {
    let shared: Vec<&SharedRunning> = handles.iter().map(|handle| handle.handle().0).collect();
    let mut running: Vec<MutexGuard<'_, Running>> = shared.iter().map(|one| lock(one)).collect();
    if running.is_empty() {
        return None;
    }
    loop {
        running.iter_mut().for_each(|one| one.advance());
        // A handle of another process's child will never be seen to end here.
        let over = |one: &MutexGuard<'_, Running>| one.has_ended() || !one.is_ours();
        if let Some(ended) = running.iter().position(over) {
            return Some(ended);
        }
        let due: Option<Instant> = running.iter().filter_map(|one| one.child()?.due()).min();
        let interests = running.iter().filter_map(|one| Some(one.child()?.interest()));
        let mut fds: Vec<PollFd<'_>> = interests.flatten().flatten().collect();
        match poll(&mut fds, timeout(due)) {
            Ok(_) | Err(Errno::EINTR) => {}
            // Out of kernel memory; it may have some the next time.
            Err(_) => std::thread::yield_now(),
        }
    }
}

/// Joins all the processes; their outcomes in the order of the handles.
///
/// When this returns, all of them have ended and been reaped, also those after one that failed.
///
/// # Examples
///
/// ```
/// use epilogue_process::{Process, join_all};
///
/// let processes = (0..3u64).map(|x| Process::start(x, |x| x * x)).collect::<Result<Vec<_>, _>>()?;
/// let squares: Vec<u64> = join_all(processes).into_iter().collect::<Result<_, _>>()?;
/// assert_eq!(squares, [0, 1, 4]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn join_all<R: Portable>(
    processes: impl IntoIterator<Item = Process<R>>,
) -> Vec<Result<R, JoinError>> {
    processes.into_iter().map(Process::join).collect()
}
