//! A mill for texts, in several processes, whose coverage is measured in two ways.
//!
//! `./run` runs the tests of [`raw`], which start and end processes as std and the kernel offer it,
//! and those with epilogue, under `cargo llvm-cov`. Both do the same work, in the same functions
//! ([`work`]), and each line of those tells a [`ledger`] that it ran: by that the reports are judged.
//!
//! `docs/coverage.md` explains what is seen here.

pub mod ledger;
pub mod load;
pub mod raw;
pub mod sys;
pub mod work;
