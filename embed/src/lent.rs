//! What the crates above use of this one's.

pub use crate::sys::once::Once;
pub use crate::sys::per_process::PerProcess;
pub use crate::sys::thread::Thread;
