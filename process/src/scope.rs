//! Scopes: whatever was started in one has ended when it returns.

use std::fmt;
use std::marker::PhantomData;
use std::panic::{self, AssertUnwindSafe};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use crate::builder::Builder;
use crate::end::End;
use crate::error::{JoinError, StartError, StopError};
use crate::output::Output;
use crate::portable::Portable;
use crate::process::Process;
use crate::running::{SharedRunning, lock};
use crate::wait::sealed::{Handle, Sealed};
use crate::wait::wait_for_all;

/// Starts processes that end before the call of [`scope`] returns.
///
/// # Examples
///
/// ```
/// let total = epilogue_process::scope(|s| {
///     let parts = (0..3u64).map(|n| s.start(n, |n| n * 10)).collect::<Result<Vec<_>, _>>()?;
///     parts.into_iter().map(|part| part.join()).sum::<Result<u64, _>>()
/// })?;
/// assert_eq!(total, 30);
/// # Ok::<(), epilogue_process::JoinError>(())
/// ```
pub struct Scope<'scope, 'env: 'scope> {
    started: Mutex<Vec<Box<dyn Leftover>>>,
    scope: PhantomData<&'scope mut &'scope ()>,
    env: PhantomData<&'env mut &'env ()>,
}

/// The handle of a process that was started in a scope: a [`Process`] that cannot outlive it.
///
/// Dropping it waits for the process, as the scope's end does. While a panic unwinds, dropping
/// asks it to stop, and the scope's end waits for all that were asked.
///
/// It is a future of what [`ScopedProcess::join`] returns, as [`Process`] is.
///
/// # Examples
///
/// ```
/// use epilogue_process::{JoinError, scope, wait_any};
///
/// scope(|s| {
///     let (a, b) = (s.start(1u64, |x| x + 1)?, s.start((), |()| "text".to_owned())?);
///     assert!(wait_any(&[&a, &b]).is_some());
///     assert_eq!((a.join()?, b.join()?), (2, "text".to_owned()));
///     Ok::<_, JoinError>(())
/// })?;
/// # Ok::<(), JoinError>(())
/// ```
#[must_use = "dropping a process waits for it"]
pub struct ScopedProcess<'scope, R> {
    /// Emptied by whoever joins, so that a handle that is leaked holds nothing.
    slot: Slot<R>,
    running: SharedRunning,
    id: u32,
    name: String,
    scope: PhantomData<&'scope ()>,
}

type Slot<R> = Arc<Mutex<Option<Process<R>>>>;

/// What a scope knows of a process whose handle it gave out.
trait Leftover: Send {
    /// Whether the process may not have been joined. Waits for nobody who does so.
    fn is_left(&self) -> bool;

    /// What there is to wait for, unless the process was joined.
    fn running(&self) -> Option<SharedRunning>;

    /// Lets go of a process that has ended.
    fn drop_handle(&self);
}

struct Started<R>(Slot<R>);

impl<R> Leftover for Started<R> {
    fn is_left(&self) -> bool {
        match self.0.try_lock() {
            Ok(process) => process.is_some(),
            Err(TryLockError::Poisoned(process)) => process.into_inner().is_some(),
            // Another thread waits for it.
            Err(TryLockError::WouldBlock) => true,
        }
    }

    fn running(&self) -> Option<SharedRunning> {
        lock_slot(&self.0).as_ref().map(|process| Arc::clone(process.handle().0))
    }

    fn drop_handle(&self) {
        let process = lock_slot(&self.0).take();
        drop(process);
    }
}

fn lock_slot<R>(slot: &Slot<R>) -> MutexGuard<'_, Option<Process<R>>> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Calls `f` with a scope, and joins whatever was started in it before returning.
///
/// However `f` is left, when this returns (or unwinds) every process that was started in the
/// scope has ended and been reaped, even if its handle was leaked. If `f` panics they are stopped
/// within their grace periods, and the panic goes on.
///
/// # Examples
///
/// ```
/// let sum = epilogue_process::scope(|s| {
///     let a = s.start(1u64, |x| x + 1)?;
///     let b = s.start(10u64, |x| x * 2)?;
///     Ok::<_, epilogue_process::JoinError>(a.join()? + b.join()?)
/// })?;
/// assert_eq!(sum, 22);
/// # Ok::<(), epilogue_process::JoinError>(())
/// ```
///
/// A handle cannot leave its scope:
///
/// ```compile_fail
/// let handle = epilogue_process::scope(|s| s.start(1u64, |x| x + 1));
/// ```
///
/// ```compile_fail,E0521
/// let mut kept = None;
/// epilogue_process::scope(|s| kept = s.start(1u64, |x| x + 1).ok());
/// ```
pub fn scope<'env, F, R>(f: F) -> R
where
    F: for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> R,
{
    let scope = Scope { started: Mutex::default(), scope: PhantomData, env: PhantomData };
    let result = panic::catch_unwind(AssertUnwindSafe(|| f(&scope)));
    let mut started = scope.started.lock().unwrap_or_else(PoisonError::into_inner);
    let started = std::mem::take(&mut *started);
    let left: Vec<SharedRunning> = started.iter().filter_map(|one| one.running()).collect();
    if result.is_err() {
        // All of them first, so that their grace periods pass together.
        let ours = left.iter().filter(|running| running.is_ours());
        ours.for_each(|running| lock(running).stop());
    }
    // Together, since one may wait for another, which waits for us to receive.
    wait_for_all(left.iter().collect());
    started.iter().for_each(|leftover| leftover.drop_handle());
    match result {
        Ok(value) => value,
        Err(payload) => panic::resume_unwind(payload),
    }
}

impl<'scope> Scope<'scope, '_> {
    /// Starts a process that calls `f` with `argument`, and ends before the scope does.
    ///
    /// # Errors
    ///
    /// [`StartError`]; then nothing of the process is left.
    pub fn start<T, R>(
        &'scope self,
        argument: T,
        f: fn(T) -> R,
    ) -> Result<ScopedProcess<'scope, R>, StartError>
    where
        T: Portable,
        R: Portable + 'static,
    {
        self.start_with(Process::builder(), argument, f)
    }

    /// Like [`Scope::start`], as the builder says.
    ///
    /// # Errors
    ///
    /// [`StartError`]; then nothing of the process is left.
    pub fn start_with<T, R>(
        &'scope self,
        builder: Builder,
        argument: T,
        f: fn(T) -> R,
    ) -> Result<ScopedProcess<'scope, R>, StartError>
    where
        T: Portable,
        R: Portable + 'static,
    {
        let process = builder.start(argument, f)?;
        let (id, name) = (process.id(), process.name().to_owned());
        let running = Arc::clone(process.handle().0);
        let slot = Arc::new(Mutex::new(Some(process)));
        self.remember(Box::new(Started(Arc::clone(&slot))));
        Ok(ScopedProcess { slot, running, id, name, scope: PhantomData })
    }

    fn remember(&self, leftover: Box<dyn Leftover>) {
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        if started.len() == started.capacity() {
            // A scope that starts processes for ever must not grow for ever.
            started.retain(|one| one.is_left());
        }
        started.push(leftover);
    }
}

impl fmt::Debug for Scope<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").finish_non_exhaustive()
    }
}

impl<R> ScopedProcess<'_, R> {
    /// As [`Process::join`].
    ///
    /// # Errors
    ///
    /// As [`Process::join`].
    pub fn join(self) -> Result<R, JoinError>
    where
        R: Portable,
    {
        self.take().map_or(Err(JoinError::AlreadyJoined), Process::join)
    }

    /// As [`Process::join_output`].
    pub fn join_output(self) -> Output<R>
    where
        R: Portable,
    {
        self.take().map_or_else(Output::already_joined, Process::join_output)
    }

    /// As [`Process::terminate`].
    ///
    /// # Errors
    ///
    /// As [`Process::terminate`].
    pub fn terminate(self) -> Result<End, StopError> {
        self.take().map_or(Err(StopError::NotParent), Process::terminate)
    }

    /// As [`Process::kill`].
    ///
    /// # Errors
    ///
    /// As [`Process::kill`].
    pub fn kill(self) -> Result<End, StopError> {
        self.take().map_or(Err(StopError::NotParent), Process::kill)
    }

    /// As [`Process::id`].
    pub fn id(&self) -> u32 {
        self.id
    }

    /// As [`Process::name`].
    pub fn name(&self) -> &str {
        &self.name
    }

    /// As [`Process::is_finished`].
    pub fn is_finished(&self) -> bool {
        lock_slot(&self.slot).as_ref().is_none_or(Process::is_finished)
    }

    /// As [`Process::try_join`].
    ///
    /// # Errors
    ///
    /// As [`Process::try_join`].
    pub fn try_join(&mut self) -> Result<Option<R>, JoinError>
    where
        R: Portable,
    {
        self.join_timeout(Duration::ZERO)
    }

    /// As [`Process::join_timeout`].
    ///
    /// # Errors
    ///
    /// As [`Process::join_timeout`].
    pub fn join_timeout(&mut self, timeout: Duration) -> Result<Option<R>, JoinError>
    where
        R: Portable,
    {
        match &mut *lock_slot(&self.slot) {
            Some(process) => process.join_timeout(timeout),
            None => Err(JoinError::AlreadyJoined),
        }
    }

    /// Only the scope's end takes it otherwise, which no handle outlives.
    fn take(&self) -> Option<Process<R>> {
        lock_slot(&self.slot).take()
    }
}

impl<R> fmt::Debug for ScopedProcess<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("ScopedProcess");
        text.field("id", &self.id).field("name", &self.name).finish_non_exhaustive()
    }
}

impl<R> Drop for ScopedProcess<'_, R> {
    fn drop(&mut self) {
        if !thread::panicking() {
            drop(self.take());
        } else if self.running.is_ours() && lock_slot(&self.slot).is_some() {
            // Whoever waited for it here would hold up the request to the next, and so would the
            // grace periods of all add up.
            lock(&self.running).stop();
        }
    }
}

impl<R: Portable> Future for ScopedProcess<'_, R> {
    type Output = Result<R, JoinError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *lock_slot(&self.slot) {
            Some(process) => Pin::new(process).poll(context),
            None => Poll::Ready(Err(JoinError::AlreadyJoined)),
        }
    }
}

impl<R> Sealed for ScopedProcess<'_, R> {
    fn handle(&self) -> Handle<'_> {
        Handle(&self.running)
    }
}
