//! Static places for values, for libraries: in a copy made by `fork` nobody waits for a thread that
//! is not there.

pub use crate::sys::once::Once;
pub use crate::sys::per_process::PerProcess;
