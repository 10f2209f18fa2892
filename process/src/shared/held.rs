//! Slices that are dropped while their answer is on its way: they are unmapped once it has been sent.
//!
//! To unmap 64 MiB takes two milliseconds, for which whoever waits for the answer need not wait.

use std::cell::RefCell;
use std::sync::Arc;

use super::Memory;

thread_local! {
    static HELD: RefCell<Option<Vec<Arc<Memory>>>> = const { RefCell::new(None) };
}

/// As long as this lives, memory of slices that this thread drops stays mapped.
#[derive(Debug)]
pub(crate) struct Hold(());

impl Hold {
    pub(crate) fn begin() -> Self {
        let before = HELD.try_with(|held| held.replace(Some(Vec::new())));
        debug_assert!(!matches!(before, Ok(Some(_))), "one at a time");
        Self(())
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        drop(HELD.try_with(RefCell::take));
    }
}

/// Drops the memory, now or as the [`Hold`] of this thread ends.
pub(super) fn let_go(memory: Arc<Memory>) {
    let _ = HELD.try_with(|held| {
        if let Some(held) = &mut *held.borrow_mut() {
            held.push(memory);
        }
    });
}
