//! Something large that goes to a worker and comes back.

use epilogue::SharedSlice;
use ipc_channel::ipc::IpcSharedMemory;

/// What it is to its users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Bytes,
    Floats,
    /// In the peer's shared memory. The worker makes new memory of its own from it.
    Shared,
    /// In shared memory. The worker reads all of it, and gives back the same.
    View,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Bytes, Self::Floats, Self::Shared, Self::View];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Floats => "f64",
            Self::Shared => "shared memory",
            Self::View => "shared view",
        }
    }
}

/// It, as one of the peers holds it.
#[derive(Debug)]
pub(crate) enum Payload {
    Bytes(Vec<u8>),
    Floats(Vec<f64>),
    Ipc(IpcSharedMemory),
    Slice(SharedSlice<u8>),
    View(SharedSlice<u8>),
}

impl Payload {
    /// A plain vector of `len` bytes.
    pub(crate) fn plain(kind: Kind, len: usize) -> Option<Self> {
        match kind {
            Kind::Bytes => Some(Self::Bytes(pattern(len))),
            Kind::Floats => Some(Self::Floats((0..len / 8).map(|i| i as f64 * 0.5).collect())),
            Kind::Shared | Kind::View => None,
        }
    }

    /// A sum of all that is in it, which changes with any part.
    pub(crate) fn sum(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => sum(bytes),
            Self::Floats(floats) => sum(bytemuck::cast_slice(floats)),
            Self::Ipc(memory) => sum(memory),
            Self::Slice(slice) | Self::View(slice) => sum(slice),
        }
    }
}

/// Bytes of which no two pages are the same.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    for (i, word) in bytes.chunks_mut(8).enumerate() {
        let number = (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
        word.copy_from_slice(&number[..word.len()]);
    }
    bytes
}

/// As fast as memory is read.
pub(crate) fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let words = words.iter().map(|word| u64::from_le_bytes(*word)).fold(0, u64::wrapping_add);
    rest.iter().fold(words, |sum, byte| sum.wrapping_add(u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::{pattern, sum};

    #[test]
    fn a_sum_tells_a_changed_byte_from_none() {
        let mut bytes = pattern(1001);
        let before = sum(&bytes);
        for at in [0, 500, 1000] {
            bytes[at] ^= 1;
            assert_ne!(sum(&bytes), before);
            bytes[at] ^= 1;
        }
        assert_eq!(sum(&bytes), before);
    }
}
