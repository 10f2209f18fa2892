//! Waiting for several processes at once, without polling any of them.

use crate::error::JoinError;
use crate::portable::Portable;
use crate::process::Process;
use crate::running::{SharedRunning, look, wait_for};
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
/// Several threads may wait for the same processes.
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
    loop {
        let mut sights = Vec::new();
        for (position, one) in shared.iter().enumerate() {
            match look(one) {
                Some(sight) => sights.push(sight),
                None => return Some(position),
            }
        }
        if sights.is_empty() {
            return None;
        }
        wait_for(&sights);
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
