//! What stands for the `sys` of `process`, as far as the ring uses it.

pub(crate) mod atomic;
pub(crate) mod futex;
pub(crate) mod memory;

/// Nobody forks here.
pub(crate) mod pid {
    pub(crate) fn own() -> u32 {
        1
    }
}
