//! Bytes one by one, and the numbers made of them: postcard's format, seven bits a byte.

use super::error::{Fault, Problem};

/// The end of a buffer that may grow by so much and no more.
pub(super) struct Writer<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    end: usize,
}

impl<'a> Writer<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>, limit: usize) -> Self {
        let start = out.len();
        Self { out, start, end: start.saturating_add(limit) }
    }

    #[cold]
    fn full(&self) -> Fault {
        Fault::new(Problem::TooLarge { limit: self.end - self.start })
    }

    pub(super) fn len(&self) -> usize {
        self.out.len()
    }

    #[inline]
    pub(super) fn byte(&mut self, byte: u8) -> Result<(), Fault> {
        if self.out.len() >= self.end {
            return Err(self.full());
        }
        self.out.push(byte);
        Ok(())
    }

    #[inline]
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        if self.end.saturating_sub(self.out.len()) < bytes.len() {
            return Err(self.full());
        }
        self.out.extend_from_slice(bytes);
        Ok(())
    }

    #[inline]
    pub(super) fn number(&mut self, number: u64) -> Result<(), Fault> {
        if number < 0x80 {
            return self.byte(number as u8);
        }
        let (bytes, len) = spread(number);
        let all = self.out.len() + len;
        if all > self.end {
            return Err(self.full());
        }
        // A copy of a fixed size is a few instructions; of a variable one, it is a call.
        self.out.extend_from_slice(&bytes);
        self.out.truncate(all);
        Ok(())
    }

    pub(super) fn wide(&mut self, mut number: u128) -> Result<(), Fault> {
        while number >= 0x80 {
            self.byte(number as u8 | 0x80)?;
            number >>= 7;
        }
        self.byte(number as u8)
    }

    /// Saves the buffer from growing for each of so many bytes.
    #[inline]
    pub(super) fn reserve(&mut self, bytes: usize) {
        self.out.reserve(bytes.min(self.end.saturating_sub(self.out.len())));
    }

    /// Writes over a byte that was written before.
    pub(super) fn amend(&mut self, at: usize, byte: u8) {
        if let Some(written) = self.out.get_mut(at) {
            *written = byte;
        }
    }
}

/// Takes what was appended away again, unless it is complete: `Serialize` may fail or panic.
pub(super) struct Rollback<'a> {
    pub(super) out: &'a mut Vec<u8>,
    pub(super) start: usize,
}

impl Drop for Rollback<'_> {
    fn drop(&mut self) {
        self.out.truncate(self.start);
    }
}

const CONTINUED: u64 = 0x8080_8080_8080_8080;

/// Cuts a number of eight bits or more into groups of seven, the lowest first.
#[inline]
fn spread(number: u64) -> ([u8; 10], usize) {
    let bits = (u64::BITS - number.leading_zeros()) as usize;
    let len = bits.div_ceil(7);
    // Eight groups at once: 56 bits are halved into 28, 14 and 7, each time with a gap between.
    let mut x = number & 0x00ff_ffff_ffff_ffff;
    x = (x & 0x0fff_ffff) | (x & 0x00ff_ffff_f000_0000) << 4;
    x = (x & 0x0000_3fff_0000_3fff) | (x & 0x0fff_c000_0fff_c000) << 2;
    x = (x & 0x007f_007f_007f_007f) | (x & 0x3f80_3f80_3f80_3f80) << 1;
    let low = if len > 8 { CONTINUED } else { CONTINUED & !(u64::MAX << (8 * (len - 1))) };
    let mut bytes = [0; 10];
    bytes[..8].copy_from_slice(&(x | low).to_le_bytes());
    bytes[8] = (number >> 56) as u8 & 0x7f | if len > 9 { 0x80 } else { 0 };
    bytes[9] = (number >> 63) as u8;
    (bytes, len)
}

/// Maps small numbers of either sign to small numbers.
#[inline]
pub(super) fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)) as u64
}

#[inline]
pub(super) fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

pub(super) fn zigzag_wide(number: i128) -> u128 {
    ((number << 1) ^ (number >> 127)) as u128
}

pub(super) fn unzigzag_wide(number: u128) -> i128 {
    (number >> 1) as i128 ^ -((number & 1) as i128)
}

/// Bytes that are read from the front.
pub(super) struct Reader<'de> {
    bytes: &'de [u8],
    at: usize,
}

#[cold]
fn truncated() -> Fault {
    Fault::new(Problem::Truncated)
}

/// The bytes hold `what`, which a writer never writes.
#[cold]
pub(super) fn invalid(what: &str) -> Fault {
    Fault::new(Problem::Invalid { what: what.to_owned() })
}

#[cold]
fn too_large() -> Fault {
    invalid("a number that is too large for its type")
}

impl<'de> Reader<'de> {
    pub(super) fn new(bytes: &'de [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How many bytes are left.
    #[inline]
    pub(super) fn left(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    #[inline]
    pub(super) fn byte(&mut self) -> Result<u8, Fault> {
        let byte = *self.bytes.get(self.at).ok_or_else(truncated)?;
        self.at += 1;
        Ok(byte)
    }

    #[inline]
    pub(super) fn bytes(&mut self, len: usize) -> Result<&'de [u8], Fault> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let bytes = rest.get(..len).ok_or_else(truncated)?;
        self.at += len;
        Ok(bytes)
    }

    #[inline]
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let bytes = rest.first_chunk().ok_or_else(truncated)?;
        self.at += N;
        Ok(*bytes)
    }

    /// A number of at most so many bytes: a loop that ends early is one that is unrolled.
    #[inline]
    fn groups<const MOST: usize>(&mut self) -> Result<u64, Fault> {
        let mut number = 0;
        for group in 0..MOST {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << (7 * group);
            if byte < 0x80 {
                return match group == 9 && byte > 1 {
                    true => Err(too_large()),
                    false => Ok(number),
                };
            }
        }
        Err(too_large())
    }

    #[inline]
    pub(super) fn number(&mut self) -> Result<u64, Fault> {
        self.groups::<10>()
    }

    /// A number that must fit a type of up to 32 bits.
    #[inline]
    pub(super) fn small<T: TryFrom<u64>>(&mut self) -> Result<T, Fault> {
        self.groups::<5>()?.try_into().map_err(|_| too_large())
    }

    #[inline]
    pub(super) fn len(&mut self) -> Result<usize, Fault> {
        self.number()?.try_into().map_err(|_| too_large())
    }

    /// A number with a sign that must fit its type.
    #[inline]
    pub(super) fn signed<T: TryFrom<i64>>(&mut self) -> Result<T, Fault> {
        unzigzag(self.number()?).try_into().map_err(|_| too_large())
    }

    pub(super) fn wide(&mut self) -> Result<u128, Fault> {
        let mut number = 0;
        for shift in (0..u128::BITS).step_by(7) {
            let byte = self.byte()?;
            let bits = u128::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                return Err(too_large());
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(too_large())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> impl Iterator<Item = u64> {
        let powers = (0..64).flat_map(|bit| {
            let power = 1u64 << bit;
            [power - 1, power, power + 1, power | 0x5555_5555_5555_5555 >> (63 - bit)]
        });
        powers.chain([u64::MAX, u64::MAX - 1])
    }

    #[test]
    fn a_number_is_written_as_postcard_writes_it_and_read_back() {
        for number in samples() {
            let mut out = Vec::new();
            Writer::new(&mut out, 10).number(number).unwrap();
            assert_eq!(out, postcard::to_stdvec(&number).unwrap(), "{number:#x}");
            for after in [0, 1, 20] {
                let mut bytes = out.clone();
                bytes.resize(out.len() + after, 0xff);
                let mut reader = Reader::new(&bytes);
                assert_eq!(reader.number().unwrap(), number);
                assert_eq!(reader.left(), after);
            }
            let signed = number as i64;
            assert_eq!(unzigzag(zigzag(signed)), signed);
        }
    }

    #[test]
    fn a_wide_number_is_written_as_postcard_writes_it_and_read_back() {
        for number in samples().flat_map(|n| [n.into(), u128::from(n) << 64, u128::from(n) << 37]) {
            let mut out = Vec::new();
            Writer::new(&mut out, 19).wide(number).unwrap();
            assert_eq!(out, postcard::to_stdvec(&number).unwrap());
            assert_eq!(Reader::new(&out).wide().unwrap(), number);
            assert_eq!(unzigzag_wide(zigzag_wide(number as i128)), number as i128);
        }
    }

    #[test]
    fn a_number_that_its_type_cannot_hold_is_refused() {
        assert!(Reader::new(&[0xff; 9]).number().is_err());
        assert!(
            Reader::new(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2])
                .number()
                .is_err()
        );
        assert!(Reader::new(&[0xff; 40]).wide().is_err());
        assert!(Reader::new(&[0x80, 2]).small::<u8>().is_err());
    }

    #[test]
    fn a_writer_stops_at_its_limit_wherever_it_began() {
        let mut out = vec![7; 3];
        let mut writer = Writer::new(&mut out, 4);
        writer.bytes(b"abc").unwrap();
        assert!(writer.number(300).is_err());
        assert!(writer.bytes(b"de").is_err());
        writer.byte(b'd').unwrap();
        assert!(writer.byte(b'e').is_err());
        assert_eq!(out, b"\x07\x07\x07abcd");
    }
}
