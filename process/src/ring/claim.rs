//! Claim words: which items of a call have been begun, and which the child may still begin.
//!
//! The low half says where the next item is that nobody has claimed, the high half where they end.
//! The child claims by raising the first, the parent takes back by lowering the second, each by
//! compare-and-swap, so no item is both.

use super::{pair, unpair};
use crate::sys::atomic::{AtomicU64, Ordering};

pub(super) fn published(count: u32) -> u64 {
    pair(0, count)
}

/// Claims up to `most` items; the first, and how many. None are left if that is 0.
pub(super) fn claim(word: &AtomicU64, most: u32) -> (u32, u32) {
    let mut seen = word.load(Ordering::Acquire);
    loop {
        let [next, end] = unpair(seen);
        let count = end.saturating_sub(next).min(most);
        if count == 0 {
            return (next, 0);
        }
        let (now, order) = (pair(next + count, end), (Ordering::AcqRel, Ordering::Acquire));
        match word.compare_exchange_weak(seen, now, order.0, order.1) {
            Ok(_) => return (next, count),
            Err(other) => seen = other,
        }
    }
}

/// Lowers the end to what `end` makes of how many are claimed and where they end now. The new end.
///
/// A word that says what none of ours does was written by a corrupt child: its items are begun.
pub(super) fn lower(word: &AtomicU64, count: u32, end: impl Fn(u32, u32) -> u32) -> u32 {
    let mut seen = word.load(Ordering::Acquire);
    loop {
        let [next, last] = unpair(seen);
        if next > last || last > count {
            return count;
        }
        let lowered = end(next, last).clamp(next, last);
        let (now, order) = (pair(next, lowered), (Ordering::AcqRel, Ordering::Acquire));
        match word.compare_exchange_weak(seen, now, order.0, order.1) {
            Ok(_) => return lowered,
            Err(other) => seen = other,
        }
    }
}

/// How many items have been claimed, of so many.
pub(super) fn claimed(word: &AtomicU64, count: u32) -> u32 {
    unpair(word.load(Ordering::Acquire))[0].min(count)
}
