//! Scopes: whatever was started in one has ended when it returns.

use std::fmt;
use std::marker::PhantomData;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::builder::Builder;
use crate::end::End;
use crate::error::{JoinError, StartError, StopError};
use crate::portable::Portable;
use crate::process::Process;
use crate::running::{SharedRunning, lock};
use crate::wait::sealed::{Handle, Sealed};

/// Starts processes that end before the call of [`scope`] returns.
pub struct Scope<'scope, 'env: 'scope> {
    started: Mutex<Vec<Box<dyn Leftover>>>,
    scope: PhantomData<&'scope mut &'scope ()>,
    env: PhantomData<&'env mut &'env ()>,
}

/// The handle of a process that was started in a scope: a [`Process`] that cannot outlive it.
///
/// Dropping it waits for the process, as the scope's end does.
#[must_use = "dropping a process waits for it"]
pub struct ScopedProcess<'scope, R> {
    /// Emptied by whoever joins, so that a handle that is leaked holds nothing.
    slot: Slot<R>,
    running: SharedRunning,
    scope: PhantomData<&'scope ()>,
}

type Slot<R> = Arc<Mutex<Option<Process<R>>>>;

/// What a scope knows of a process whose handle it gave out.
trait Leftover: Send {
    /// Asks the process to stop, unless it was joined.
    fn stop(&self);

    /// Joins the process, unless it was joined.
    fn join(&self);
}

struct Started<R>(Slot<R>);

impl<R> Leftover for Started<R> {
    fn stop(&self) {
        if let Some(process) = &*lock_slot(&self.0) {
            lock(process.handle().0).stop();
        }
    }

    fn join(&self) {
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
    if result.is_err() {
        // All of them first, so that their grace periods pass together.
        started.iter().for_each(|leftover| leftover.stop());
    }
    started.iter().for_each(|leftover| leftover.join());
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
        let running = Arc::clone(process.handle().0);
        let slot = Arc::new(Mutex::new(Some(process)));
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        started.push(Box::new(Started(Arc::clone(&slot))));
        Ok(ScopedProcess { slot, running, scope: PhantomData })
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
        lock(&self.running).id()
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
        f.debug_struct("ScopedProcess").field("id", &self.id()).finish_non_exhaustive()
    }
}

impl<R> Drop for ScopedProcess<'_, R> {
    fn drop(&mut self) {
        drop(self.take());
    }
}

impl<R> Sealed for ScopedProcess<'_, R> {
    fn handle(&self) -> Handle<'_> {
        Handle(&self.running)
    }
}
