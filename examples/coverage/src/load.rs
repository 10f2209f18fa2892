//! Enough of the mill's work to measure how long it takes.

use std::hint::black_box;

use crate::work;

const TEXT: &str =
    "The mill grinds what it is given. Is it fine? It is! Slowly, but exceedingly so.";

/// Grinds the same text again and again, for some tenths of a second.
pub fn mill() {
    for _ in 0..15_000 {
        black_box(work::words(black_box(TEXT.to_owned())));
        black_box(work::vowels(black_box(TEXT.to_owned())));
    }
}
