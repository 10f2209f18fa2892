//! What a program registers to run as it ends.

use std::borrow::Cow;

use crate::exit;
use crate::registry::{Kind, Work};
use crate::report::Outcome;
use crate::signals;
use crate::state::state;

/// A registered finalizer. Dropping the handle leaves it registered.
#[derive(Debug)]
pub struct Finalizer {
    id: u64,
    owner: u32,
}

/// Registers `work` to run once, as this process ends: at a normal exit, at
/// [`cleanup`](crate::cleanup), and on every signal that is handled. Last registered runs first.
///
/// It runs in the process that registered it, never in a copy made by `fork`. Once the last finalizers have
/// run and the process is about to be gone, nothing that is registered would run: then this does not return.
/// The name appears in the report. A panic is caught (in a build with `panic = "abort"` it ends the process).
///
/// # Examples
///
/// ```
/// use epilogue_embed as embed;
/// let path = std::env::temp_dir().join(format!("epilogue-doc-{}.lock", std::process::id()));
/// std::fs::write(&path, "locked")?;
/// let lock = path.clone();
/// embed::finalizer("remove lock file", move || drop(std::fs::remove_file(lock)));
/// embed::cleanup();
/// assert!(!path.exists());
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn finalizer(
    name: impl Into<Cow<'static, str>>,
    work: impl FnOnce() + Send + 'static,
) -> Finalizer {
    add(name.into(), Kind::Finalizer, None, Box::new(move |_| work()))
}

/// Registers in this process and makes sure that a normal exit runs it.
pub(crate) fn add(name: Cow<'static, str>, kind: Kind, ask: Option<Work>, work: Work) -> Finalizer {
    let state = state();
    let ends = || exit::ends_here(state);
    let id = state.registry.add(name, kind, ask, work, ends).unwrap_or(u64::MAX);
    exit::hook();
    signals::serve_if_handling();
    Finalizer { id, owner: std::process::id() }
}

impl Finalizer {
    /// Takes the finalizer off the list: it will not run. Nothing happens if it has run or is running, nor in
    /// a copy made by `fork`.
    ///
    /// # Examples
    ///
    /// ```
    /// use epilogue_embed as embed;
    /// let rollback = embed::finalizer("roll back", || unreachable!("the work was done"));
    /// rollback.cancel();
    /// assert!(embed::cleanup().finalizers().is_empty());
    /// ```
    pub fn cancel(self) {
        if self.owner == std::process::id() {
            drop(state().registry.take(self.id));
        }
    }

    /// Runs the finalizer now, on this thread, and tells how it ended; `None` if it ran before or is running,
    /// and in a copy made by `fork`. A panic in it is caught.
    ///
    /// It does not run again when the process ends. An ending that begins meanwhile on another thread waits
    /// for it, within its deadline.
    ///
    /// # Examples
    ///
    /// ```
    /// use epilogue_embed as embed;
    /// let report = embed::finalizer("write report", || {});
    /// assert_eq!(report.run_now(), Some(embed::Outcome::Ran));
    /// ```
    pub fn run_now(self) -> Option<Outcome> {
        if self.owner != std::process::id() {
            return None;
        }
        state().registry.run_by_hand(self.id)
    }
}
