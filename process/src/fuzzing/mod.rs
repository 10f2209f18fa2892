//! What a fuzzer calls: all that a parent does with bytes that a child wrote, and its ladder.
//!
//! Not a part of the API. Each target takes any bytes, and panics if a promise does not hold; see
//! `tests/fuzz` in the repository, which drives them.

mod child;
mod frames;
mod ladder;
mod ring;
mod story;
mod values;

/// A target takes any bytes, and panics if a promise does not hold.
pub type Target = fn(&[u8]);

/// All targets, by name.
pub const TARGETS: [(&str, Target); 7] = [
    ("child", child::target),
    ("frames", frames::target),
    ("first_frame", frames::first_frame),
    ("ladder", ladder::target),
    ("ring_hostile", ring::hostile),
    ("ring_story", story::target),
    ("values", values::target),
];

/// Takes decisions from bytes; zeroes when they are used up.
#[derive(Debug)]
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn byte(&mut self) -> u8 {
        let Some((byte, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *byte
    }

    fn bytes(&mut self, most: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(most.min(self.0.len()));
        self.0 = rest;
        bytes
    }

    fn number(&mut self, len: usize) -> u64 {
        let mut number = [0; 8];
        let bytes = self.bytes(len);
        number[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(number)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound.max(1)
    }
}
