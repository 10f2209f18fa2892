//! The memory that a worker shares with its parent, as a hostile one reaches it.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;

/// Words of the ring that control; see `process/src/ring/README.md`.
pub(super) const CALL_TAIL: u64 = 0;
pub(super) const CALL_HEAD: u64 = 8;
pub(super) const ASLEEP: u64 = 16;
pub(super) const REPLY_TAIL: u64 = 24;
pub(super) const REPLY_HEAD: u64 = 32;
pub(super) const BELL: u64 = 40;
const CONTROL: u64 = 72;

/// All words of the ring of this worker.
#[derive(Debug)]
pub(super) struct Ring {
    memory: fs::File,
    start: u64,
    /// How long each of both rings is, in words.
    calls: u64,
    replies: u64,
}

impl Ring {
    /// Finds it among the mappings of this process.
    pub(super) fn find() -> Self {
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let line = maps.lines().find(|line| line.contains("epilogue-ring")).unwrap();
        let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let [start, end] = [start, end].map(|bound| u64::from_str_radix(bound, 16).unwrap());
        // A process has a ring of a page or so, a worker one for many calls.
        let is_large = end - start > 100_000;
        let (calls, replies) = if is_large { (1 << 15, 1 << 15) } else { (128, 256) };
        let memory = OpenOptions::new().read(true).write(true).open("/proc/self/mem").unwrap();
        let ring = Self { memory, start, calls, replies };
        let halves = |word: u64| (word as u32, (word >> 32) as u32);
        let ((next, end), (_, count)) =
            (halves(ring.get(ring.call(0))), halves(ring.get(ring.call(2))));
        // Else the deeds would hit something else, and nobody would see.
        assert!(1 <= next && next <= end && end <= count, "the ring is laid out otherwise");
        ring
    }

    pub(super) fn get(&self, word: u64) -> u64 {
        let mut bytes = [0; 8];
        self.memory.read_exact_at(&mut bytes, self.start + word * 8).unwrap();
        u64::from_le_bytes(bytes)
    }

    pub(super) fn set(&self, word: u64, value: u64) {
        self.memory.write_all_at(&value.to_le_bytes(), self.start + word * 8).unwrap();
    }

    /// The word of the call that runs here, `offset` words into its record.
    pub(super) fn call(&self, offset: u64) -> u64 {
        CONTROL + ((self.get(CALL_HEAD) + offset) & (self.calls - 1))
    }

    /// The number of the call that runs here.
    pub(super) fn id(&self) -> u64 {
        self.get(self.call(1))
    }

    /// The word of the next answer, `offset` words into its record.
    fn reply(&self, offset: u64) -> u64 {
        CONTROL + self.calls + ((self.get(REPLY_TAIL) + offset) & (self.replies - 1))
    }

    /// Publishes an answer of these four words, and one more of what they are about.
    pub(super) fn answer(&self, record: [u64; 5]) {
        (0..).zip(record).for_each(|(offset, value)| self.set(self.reply(offset), value));
        self.set(REPLY_TAIL, self.get(REPLY_TAIL) + 5);
    }
}
