//! What stands for `process` and `nix` below a pool that is modelled: children that are threads of
//! shuttle's, each with a ring of two calls, bells that are names, and a `poll` that waits for these. All else
//! is the real one's.
//!
//! What is taken out of a model, so that it must fail, is taken out here.
#![cfg(feature = "shuttle")]

pub mod bell;
#[path = "../../pool/bells.rs"]
mod bells;
pub mod child;
mod far;
pub mod ring;

#[path = "../../pool/taken_out.rs"]
pub mod taken_out;

mod sync {
    pub use shuttle::sync::{Condvar, Mutex, MutexGuard};
}

pub use bells::{begin, poll};
pub use child::End;
pub use far::{Fate, set_fates};
pub use process::*;
pub use real_nix::{libc, sys, unistd};

/// A wire, as far as a pool asks something of it.
pub mod wire {
    pub use process::wire::WireError;

    use crate::ring::Ticket;
    use process::parcel::Parcel;

    pub trait Wire {
        fn has_room(&mut self, bytes: usize) -> Result<bool, WireError>;
        fn call(&mut self, id: u64, count: u32, payload: &Parcel) -> Result<Ticket, WireError>;
        fn share(&mut self, id: u64, payload: &Parcel) -> Result<(), WireError>;
        fn forget(&mut self, id: u64);
        fn revoke(&mut self, ticket: Ticket, count: u32) -> bool;
        fn shorten(&mut self, ticket: Ticket, count: u32, keep: &dyn Fn(u32) -> u32) -> u32;
        fn begun(&self, ticket: Ticket, count: u32) -> u32;
    }
}
