//! A file name with a place for the pid, filled in without allocating.
//!
//! A name fixed beforehand would be the parent's in a copy made by `fork`.

use std::ffi::CStr;

/// The longest pid: `u32::MAX` has ten digits.
const DIGITS: usize = 10;

/// `stem`, the pid, `tail`, and a zero byte.
#[derive(Debug)]
pub(crate) struct FileName {
    bytes: Box<[u8]>,
    stem: usize,
    tail: Box<[u8]>,
}

impl FileName {
    /// Reserves the memory for every pid. Neither part may contain a zero byte.
    pub(crate) fn new(stem: &[u8], tail: &[u8]) -> Self {
        let mut bytes = vec![0; stem.len() + DIGITS + tail.len() + 1].into_boxed_slice();
        bytes[..stem.len()].copy_from_slice(stem);
        Self { bytes, stem: stem.len(), tail: tail.into() }
    }

    /// The name for this pid. Async-signal-safe.
    pub(crate) fn with_pid(&mut self, pid: u32) -> &CStr {
        let mut digits = [0; DIGITS];
        let digits = decimal(pid, &mut digits);
        let parts = [digits, &self.tail, b"\0"];
        let mut place = self.stem;
        for part in parts {
            let end = place + part.len();
            if let Some(room) = self.bytes.get_mut(place..end) {
                room.copy_from_slice(part);
            }
            place = end;
        }
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or_default()
    }
}

/// `number` in decimal, at the end of `room`. Async-signal-safe.
pub(crate) fn decimal(mut number: u32, room: &mut [u8; DIGITS]) -> &[u8] {
    let mut first = DIGITS;
    for place in room.iter_mut().rev() {
        // A remainder of ten is below 256.
        *place = b'0' + (number % 10) as u8;
        first -= 1;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    &room[first..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_follows_the_pid_both_ways() {
        let mut name = FileName::new(b"/tmp/a.embed-", b"-ff.profraw");
        assert_eq!(name.with_pid(u32::MAX).to_bytes(), b"/tmp/a.embed-4294967295-ff.profraw");
        assert_eq!(name.with_pid(7).to_bytes(), b"/tmp/a.embed-7-ff.profraw");
        assert_eq!(name.with_pid(120).to_bytes(), b"/tmp/a.embed-120-ff.profraw");
    }

    #[test]
    fn zero_has_one_digit() {
        assert_eq!(decimal(0, &mut [0; DIGITS]), b"0");
    }
}
