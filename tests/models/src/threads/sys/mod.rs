//! What stands for the `sys` of `process`, as far as the ring uses it.

pub(crate) mod atomic;
#[path = "../../../../../process/src/sys/futex.rs"]
mod kernel;
pub(crate) mod memory;
pub(crate) mod plain;

/// The kernel's own.
pub(crate) mod futex {
    use super::atomic::AtomicU64;
    use super::kernel;

    pub(crate) fn wait(word: &AtomicU64, expected: u32) {
        kernel::wait(word.word(), expected);
    }

    pub(crate) fn wake(word: &AtomicU64) {
        kernel::wake(word.word());
    }
}

/// Nobody forks here.
pub(crate) mod pid {
    pub(crate) fn own() -> u32 {
        1
    }
}
