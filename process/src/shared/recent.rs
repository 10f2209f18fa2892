//! Memory that this thread has mapped of late: a value may hold many slices of one file, such as all of
//! its parts, and maps it once.

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

use super::Memory;

/// Of so many files in turns.
const KEPT: usize = 8;

thread_local! {
    static RECENT: RefCell<Vec<Weak<Memory>>> = const { RefCell::new(Vec::new()) };
}

/// The memory of just this descriptor, which a value has once however often it refers to it.
pub(super) fn find(file: &Arc<OwnedFd>) -> Option<Arc<Memory>> {
    let find = |recent: &RefCell<Vec<Weak<Memory>>>| {
        let recent = recent.borrow();
        let mut alive = recent.iter().filter_map(Weak::upgrade);
        alive.find(|memory| Arc::ptr_eq(&memory.file, file))
    };
    RECENT.try_with(find).ok().flatten()
}

pub(super) fn remember(memory: &Arc<Memory>) {
    let _ = RECENT.try_with(|recent| {
        let mut recent = recent.borrow_mut();
        recent.retain(|memory| memory.strong_count() > 0);
        if recent.len() == KEPT {
            recent.remove(0);
        }
        recent.push(Arc::downgrade(memory));
    });
}
