//! How a process ends, made certain: its finalizers run and its coverage data is written.
//!
//! | the process ends by | finalizers | coverage data | `atexit`, buffered output | wait status |
//! |---|---|---|---|---|
//! | return from `main`, `std::process::exit`, a panic in `main` | all | all | yes | its code |
//! | [`exit`](fn@exit), from any thread | all | all | yes | its code |
//! | [`exit_now`] | all | all | no | its code |
//! | [`exec`] | all | all, of both programs | no | the new program's |
//! | a signal given to [`cleanup_on_signal`], default action | all | all | yes | that signal |
//! | the same, with a handler installed before | all | all | the program goes on | – |
//! | the same, ignored | none: the program goes on, measured | all, later | – | – |
//! | a signal that nobody handles | none | lost | no | that signal |
//! | a crash (`abort`, `SIGSEGV` ..) after [`cleanup_on_crash`] | none | all | no | as without it |
//! | a crash otherwise, and each panic with `panic = "abort"` | none | lost | no | that signal |
//! | `_exit`, a bare `exec` | none | what [`flush`] saved | no | its code |
//! | a finalizer that outlives the deadline | those before it | all before it | no | `SIGKILL` |
//! | `SIGKILL` | none | what was last saved, never half of it | no | `SIGKILL` |
//!
//! Nothing happens until something is called: no handler, thread or descriptor. In a build without
//! `-C instrument-coverage` the same calls link and do everything but write coverage data.
//!
//! ```
//! use epilogue_embed::{self as embed, signal::SIGINT};
//!
//! embed::finalizer("say goodbye", || println!("goodbye"));
//! embed::cleanup_on_sigterm()?;
//! embed::cleanup_on_signal(SIGINT)?;
//! # Ok::<(), embed::SignalError>(())
//! ```
//!
//! # On a signal
//!
//! 1. The handler, on the thread that got it, saves the coverage data: into memory reserved before,
//!    from there into a file that is renamed when it is whole.
//! 2. Embed's own thread calls the [`on_stop`] callbacks and runs the finalizers, last registered
//!    first, within the deadline ([`set_deadline`]), which a timer of the kernel enforces.
//! 3. The data is saved once more, in place of the first.
//! 4. The handler that was there before is called, once, on the interrupted thread, with what the
//!    kernel told of the signal; else the process leaves through `exit` and dies by the signal at
//!    the end of it, where the data is saved for the last time. The first process of a namespace exits
//!    with 128 plus the signal's number.
//!
//! A signal that arrives meanwhile is kept for later, and nothing runs twice. A second `SIGINT`
//! skips the finalizers that have not begun.
//!
//! # Coverage
//!
//! The data goes beside the runtime's own file, with the same beginning and the pid and a number
//! for this execution at the end: `app-7.profraw` and `app-7.embed-7-0c0ffee0c0ffee00.profraw`. At
//! the very end of a normal exit, behind all hooks and destructors, the runtime's file replaces it, as
//! soon as that is whole. A copy made by `fork` writes its own file, under its
//! own pid. Continuous mode (`%c`) is left alone.
//!
//! Where there are values to profile (`-C profile-generate`) only the counters are saved. A program
//! and each shared object with coverage of its own need a call each. On other systems than Linux
//! with x86_64 or aarch64 there is no coverage data to save, and everything else works.
//!
//! # Limits
//!
//! - A handler that the program installs later replaces ours. If it calls the one before, as
//!   signal-hook's does, that happens first: the process may be gone before its own turn. Install
//!   first, then call [`cleanup_on_signal`].
//! - In a build with `panic = "abort"` a finalizer or callback that leaves, by [`exit`](fn@exit), [`exit_now`]
//!   or [`ending::leave`], cannot end there: its thread waits for ever, older finalizers do not run, and the
//!   kernel kills the process at the deadline. Where there is none, that hangs. There it has to return.
//! - A copy made by `fork` in a finalizer or callback ends when it comes back from it. One that is
//!   made during a normal exit must not call `std::process::exit`, which would wait for ever for
//!   the exit of the original; [`exit`](fn@exit) and [`exit_now`] do not.
//! - A signal that arrives between [`exec`] and the new program's own handler has its default
//!   action, unless it is blocked: see there.
//! - Both files stay, and count twice, if the process is killed between that write and the removal, or if
//!   the first call into this crate comes from a destructor, after the runtime has written.
//! - Where a signal ends the process, or its parent ends a worker, finalizers run on a thread that lets in
//!   handled signals only, and those of a fault that have a handler. A program that one of them, or a callback on
//!   a signal, starts there begins with the others blocked: it has to unblock them.
//! - A library that exits as it is loaded has the loader's lock meanwhile. There a finalizer that waits for
//!   that lock, to load a library or for its first use of a thread-local with a destructor, is killed at the
//!   deadline.
//! - Once a signal is handled, a shared object that contains this crate must not be unloaded.
//! - For the first process of a namespace the kernel's timer has no effect: `SIGKILL` from within
//!   does not reach it.
//! - Counts of `gcc --coverage` are written on a handled signal. For [`exec`] and [`exit_now`] link
//!   with `-u __gcov_dump`.
#![deny(missing_docs)]

mod attendant;
mod coverage;
mod deadline;
pub mod ending;
mod error;
mod exit;
mod finalizer;
mod gate;
#[doc(hidden)]
pub mod lent;
mod name;
mod registry;
mod report;
mod served;
pub mod signal;
mod signals;
mod state;
mod stop;
mod sys;

pub use coverage::{flush, is_instrumented};
pub use deadline::set_deadline;
pub use error::{FlushError, SignalError};
pub use exit::{cleanup, exec, exit, exit_now};
pub use finalizer::{Finalizer, finalizer};
pub use report::{Cleanup, FinalizerEnd, Outcome};
pub use signals::{cleanup_on_crash, cleanup_on_signal, cleanup_on_sigterm};
pub use stop::{StopReason, on_stop, stop_requested};
