//! The memory of short calls, used again.
//!
//! A map of small items takes and gives back the memory of its calls by the dozen, which is more than
//! an allocator keeps at hand: that was a tenth of what such a task cost its caller.

use std::cell::RefCell;

/// How many bytes each has room for: a call of a few numbers.
const ROOM: usize = 64;

/// How many a thread keeps: about as many calls as two workers have ahead.
const KEPT: usize = 256;

thread_local! {
    static KEPT_HERE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer with room for at least so many bytes.
#[inline]
pub(crate) fn take(room: usize) -> Vec<u8> {
    if room > ROOM {
        return Vec::with_capacity(room);
    }
    // A thread that ends may have given up its own already.
    let kept = KEPT_HERE.try_with(|kept| kept.borrow_mut().pop());
    kept.ok().flatten().unwrap_or_else(|| Vec::with_capacity(ROOM))
}

/// Keeps a buffer that this thread may need again.
#[inline]
pub(crate) fn give_back(mut buffer: Vec<u8>) {
    if buffer.capacity() == ROOM {
        buffer.clear();
        let _ = KEPT_HERE.try_with(|kept| {
            let mut kept = kept.borrow_mut();
            if kept.len() < KEPT {
                kept.push(buffer);
            }
        });
    }
}
