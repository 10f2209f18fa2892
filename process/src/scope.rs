//! Scopes: whatever was started in one has ended when it returns.

use std::fmt;
use std::marker::PhantomData;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{JoinError, StartError};
use crate::portable::Portable;
use crate::process::Process;

/// Something that is joined by being dropped, whatever its type.
trait Joinable: Send {
    /// Ends the process without waiting for its function.
    fn terminate(self: Box<Self>);
}

impl<R> Joinable for Process<R> {
    fn terminate(self: Box<Self>) {
        // The only error is that it is not ours, and then it is not ours to stop.
        let _ = Process::terminate(*self);
    }
}

type Slot<R> = Arc<Mutex<Option<Process<R>>>>;

/// Starts processes that end before the call of [`scope`] returns.
pub struct Scope<'scope, 'env: 'scope> {
    started: Mutex<Vec<Box<dyn Leftover>>>,
    scope: PhantomData<&'scope mut &'scope ()>,
    env: PhantomData<&'env mut &'env ()>,
}

/// What a scope knows of a process whose handle it gave out.
trait Leftover: Send {
    /// Takes the process out, unless it was joined.
    fn take(&self) -> Option<Box<dyn Joinable>>;
}

struct Shared<R>(Slot<R>);

impl<R: 'static> Leftover for Shared<R> {
    fn take(&self) -> Option<Box<dyn Joinable>> {
        let process = self.0.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        Some(Box::new(process))
    }
}

/// The handle of a process that was started in a scope.
///
/// It cannot outlive the scope. Dropping it waits for the process, as the scope's end does.
#[derive(Debug)]
#[must_use = "dropping a process waits for it"]
pub struct ScopedProcess<'scope, R> {
    slot: Slot<R>,
    scope: PhantomData<&'scope ()>,
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
pub fn scope<'env, F, R>(f: F) -> R
where
    F: for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> R,
{
    let scope = Scope { started: Mutex::default(), scope: PhantomData, env: PhantomData };
    let result = panic::catch_unwind(AssertUnwindSafe(|| f(&scope)));
    let mut started = scope.started.lock().unwrap_or_else(PoisonError::into_inner);
    let started = std::mem::take(&mut *started);
    let left = started.iter().filter_map(|leftover| leftover.take());
    match result {
        Ok(value) => {
            left.for_each(drop);
            value
        }
        Err(payload) => {
            left.for_each(Joinable::terminate);
            panic::resume_unwind(payload)
        }
    }
}

impl fmt::Debug for Scope<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").finish_non_exhaustive()
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
        let slot = Arc::new(Mutex::new(Some(Process::start(argument, f)?)));
        let leftover = Box::new(Shared(Arc::clone(&slot)));
        self.started.lock().unwrap_or_else(PoisonError::into_inner).push(leftover);
        Ok(ScopedProcess { slot, scope: PhantomData })
    }
}

impl<R> ScopedProcess<'_, R> {
    /// Waits until the function has returned and the process has ended; gives what it returned.
    ///
    /// # Errors
    ///
    /// [`JoinError`] says why there is no value; also then the process has ended.
    pub fn join(self) -> Result<R, JoinError>
    where
        R: Portable,
    {
        match self.take() {
            Some(process) => process.join(),
            // Only the end of the scope takes it otherwise, which no handle outlives.
            None => Err(JoinError::Unknown),
        }
    }

    fn take(&self) -> Option<Process<R>> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl<R> Drop for ScopedProcess<'_, R> {
    fn drop(&mut self) {
        drop(self.take());
    }
}
