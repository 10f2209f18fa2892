//! A child's segments: lent to its parent with an answer, and used again once they come back.

use std::sync::Arc;

use super::{Made, SLOTS, Stock};
use crate::ring::Returned;

/// The segments of a child, and which of them its parent has.
#[derive(Debug)]
pub(crate) struct Lender {
    stock: Arc<Stock>,
    /// Those that the parent reads, by their numbers.
    lent: [Option<Made>; SLOTS],
    /// The generations of those that the parent has mapped.
    known: [u64; SLOTS],
}

impl Lender {
    pub(crate) fn new(stock: Arc<Stock>) -> Self {
        Self { stock, lent: [const { None }; SLOTS], known: [0; SLOTS] }
    }

    /// Puts bytes into a segment that the parent does not read; see [`Stock::fill`].
    pub(crate) fn fill(&mut self, bytes: &[u8], returned: Returned) -> Option<Made> {
        for slot in 0..SLOTS {
            if returned.has(slot) {
                self.lent[slot] = None;
            }
            if returned.is_unknown(slot) {
                self.known[slot] = 0;
            }
        }
        self.stock.fill(bytes)
    }

    /// Whether the parent has mapped it.
    pub(crate) fn is_known(&self, made: &Made) -> bool {
        let known = |slot: u32| self.known[slot as usize];
        made.number().is_some_and(|number| known(number.slot) == number.generation)
    }

    /// Leaves it to the parent until that gives it back.
    pub(crate) fn lend(&mut self, made: Made) {
        if let Some(number) = made.number() {
            self.known[number.slot as usize] = number.generation;
            self.lent[number.slot as usize] = Some(made);
        }
    }
}
