//! The only room of this crate with `unsafe` code: what the kernel and the C library offer.
//!
//! Each block holds one operation and the argument for it. Nothing here decides anything; the
//! rules are in the modules that call it.
#![allow(
    unsafe_code,
    reason = "every call into libc, the kernel and the coverage runtime is behind this module"
)]

pub(crate) mod action;
pub(crate) mod exit;
pub(crate) mod image;
pub(crate) mod inbox;
pub(crate) mod mask;
pub(crate) mod once;
pub(crate) mod per_process;
pub(crate) mod runtime;
pub(crate) mod snapshot;
pub(crate) mod thread;
pub(crate) mod timer;
pub(crate) mod wake;
