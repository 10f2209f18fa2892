//! Values into bytes, and back into values.
//!
//! Both ends are the same program, so the bytes carry no names and no types.
//!
//! # Invariants
//! 1. Encoding appends to a buffer or leaves it as it was.
//! 2. Decoding takes all the bytes or fails, and never panics or overflows the stack itself.

mod error;

use error::Fault;
pub use error::{DecodeError, EncodeError, Problem};
use serde::{Serialize, de::DeserializeOwned};

/// How much a value may take on its way. Holds for both directions.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The longest encoding, in bytes. 256 MiB by default.
    pub max_bytes: usize,
    /// How deep structs, enums, sequences and options may be nested. 128 levels by default.
    pub max_depth: u32,
    /// How many bytes of memory one byte received may claim. 64 by default.
    pub max_amplification: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_bytes: 256 << 20, max_depth: 128, max_amplification: 64 }
    }
}

/// Appends the bytes of `value` to `out`. On an error `out` is as it was.
///
/// # Errors
///
/// [`EncodeError`] if the value is over a limit, or cannot be written without loss.
pub fn encode<T: Serialize + ?Sized>(
    value: &T,
    out: &mut Vec<u8>,
    limits: &Limits,
) -> Result<(), EncodeError> {
    let fault = match postcard::to_stdvec(value) {
        Ok(bytes) if bytes.len() <= limits.max_bytes => {
            out.extend_from_slice(&bytes);
            return Ok(());
        }
        Ok(_) => Fault::new(Problem::TooLarge { limit: limits.max_bytes }),
        Err(error) => Fault::new(Problem::Refused(error.to_string())),
    };
    Err(EncodeError::new::<T>(fault))
}

/// Appends the bytes of `value` to `out`, to be read as a `D` by another process.
///
/// # Errors
///
/// As [`encode`]; in debug builds also if reading the bytes as a `D` fails.
pub fn encode_for<D: DeserializeOwned, T: Serialize + ?Sized>(
    value: &T,
    out: &mut Vec<u8>,
    limits: &Limits,
) -> Result<(), EncodeError> {
    encode(value, out, limits)
}

/// Reads a `T` from exactly `bytes`.
///
/// # Errors
///
/// [`DecodeError`] if the bytes are not a `T`, are over a limit, or have a remainder.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], limits: &Limits) -> Result<T, DecodeError> {
    let fault = match postcard::take_from_bytes(bytes) {
        Ok(_) if bytes.len() > limits.max_bytes => {
            Fault::new(Problem::TooLarge { limit: limits.max_bytes })
        }
        Ok((value, [])) => return Ok(value),
        Ok((_, rest)) => Fault::new(Problem::Trailing { bytes: rest.len() }),
        Err(error) => Fault::new(Problem::Refused(error.to_string())),
    };
    Err(DecodeError::new::<T>(fault))
}
