//! Waiting for several processes at once, without polling any of them.

use crate::error::JoinError;
use crate::portable::Portable;
use crate::process::Process;
use crate::running::{SharedRunning, drain, look, wait_for};
use crate::scope::ScopedProcess;

/// A handle that can be waited for with others, whatever the type of its result.
pub trait Waitable: sealed::Sealed {}

impl<R> Waitable for Process<R> {}
impl<R> Waitable for ScopedProcess<'_, R> {}

/// A handle that can be joined with others of its type.
pub trait Joinable: Waitable + Sized {
    /// What its function returned.
    type Output;

    /// As [`Process::join`].
    ///
    /// # Errors
    ///
    /// As [`Process::join`].
    fn join(self) -> Result<Self::Output, JoinError>;
}

impl<R: Portable> Joinable for Process<R> {
    type Output = R;

    fn join(self) -> Result<R, JoinError> {
        self.join()
    }
}

impl<R: Portable> Joinable for ScopedProcess<'_, R> {
    type Output = R;

    fn join(self) -> Result<R, JoinError> {
        self.join()
    }
}

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
    let _drain = drain(&shared);
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

/// Waits until all of the processes have ended, whatever the types of their results.
///
/// When this returns, joining any of them returns at once. Several threads may wait for the same
/// processes.
///
/// # Examples
///
/// ```
/// use epilogue_process::{Process, wait_all};
///
/// let number = Process::start(2u64, |x| x * x)?;
/// let text = Process::start(2u64, |x| format!("{x}"))?;
/// wait_all(&[&number, &text]);
/// assert!(number.is_finished() && text.is_finished());
/// # number.join()?;
/// # text.join()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn wait_all(handles: &[&dyn Waitable]) {
    wait_for_all(handles.iter().map(|handle| handle.handle().0).collect());
}

/// Waits until all have ended. Meanwhile each is taken up its ladder, if it has to stop.
pub(crate) fn wait_for_all(mut left: Vec<&SharedRunning>) {
    let _drain = drain(&left);
    loop {
        let mut sights = Vec::new();
        left.retain(|one| {
            let sight = look(one);
            let runs = sight.is_some();
            sights.extend(sight);
            runs
        });
        if sights.is_empty() {
            return;
        }
        wait_for(&sights);
    }
}

/// Joins all the processes; their outcomes in the order of the handles, which are of one type:
/// [`Process`] or [`ScopedProcess`].
///
/// When this returns, all of them have ended and been reaped, also those after one that failed.
/// For handles of several types there is [`wait_all`].
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
pub fn join_all<H: Joinable>(
    handles: impl IntoIterator<Item = H>,
) -> Vec<Result<H::Output, JoinError>> {
    let handles: Vec<H> = handles.into_iter().collect();
    // One may wait for another, which waits for us to receive.
    let waitable: Vec<&dyn Waitable> = handles.iter().map(|handle| handle as _).collect();
    wait_all(&waitable);
    handles.into_iter().map(H::join).collect()
}
