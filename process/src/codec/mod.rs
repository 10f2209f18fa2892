//! Values into bytes, and back into values.
//!
//! Both ends are the same program, so the bytes carry neither names nor types. The format is
//! postcard's, and in it each struct with named fields first says, in one byte, how many follow.
//!
//! ```
//! use epilogue_process::codec::{Limits, decode, encode};
//!
//! let mut bytes = Vec::new();
//! encode(&("bob", 42), &mut bytes, &Limits::default())?;
//! let (name, answer): (String, i32) = decode(&bytes, &Limits::default())?;
//! assert_eq!((name.as_str(), answer), ("bob", 42));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Invariants
//! 1. Encoding appends a whole value to a buffer, or leaves the buffer as it was.
//! 2. Decoding reads all the bytes, or fails. Whatever they are, it neither overflows the stack
//!    nor counts or allocates out of proportion to them.
//! 3. A field that one side writes and the other does not read is an error, never another value.
//!
//! # What cannot travel, and where that is noticed
//!
//! | what | noticed by |
//! |---|---|
//! | a type without serde's traits, a reference, a foreign error | the compiler: [`Portable`] |
//! | `skip_serializing_if` that skips | the sender, with the field's name |
//! | `flatten`, a path that is not UTF-8, a sequence of unknown length | the sender |
//! | `skip_serializing` or `skip_deserializing` alone, `tag` on a struct | the receiver; a rehearsal, with the field's name |
//! | `untagged`, `tag` on an enum, types that hold anything, such as a JSON value | the receiver; a rehearsal |
//! | `skip` of a variant, with other variants after it | a rehearsal |
//! | `skip` of a field on both sides | nobody: the field arrives as its default |
//! | lossy code behind `with`, `into`, `from` or traits written by hand | nobody, as long as both sides agree on the bytes |
//!
//! A *rehearsal* is what [`encode_for`] does in debug builds: it decodes what it just encoded, so
//! that the error appears at the call and not in another process. It also notes the names of what
//! it writes, which the bytes leave out. In release builds it would double the work, and the
//! receiver's error reaches the same caller with the answer. A rehearsal makes and drops one more
//! value: a `Deserialize` or `Drop` with effects outside of the process shows them once more.
//!
//! # Speed
//!
//! Measured against postcard itself: numbers and strings, alone or in sequences, take about the
//! same time, longer ones less. A struct takes a byte and 2 to 10 ns more for its count and its
//! limits. Notes are compiled away where none are taken. Bytes in a `Vec<u8>` are single elements
//! to serde, 0.6 ns each; with the crate `serde_bytes` they are copied at once.
//!
//! [`Portable`]: crate::Portable

mod access;
mod bytes;
mod decode;
mod encode;
mod error;
mod notes;
#[cfg(test)]
mod tests;

pub use error::{DecodeError, EncodeError, Problem};
use notes::Notebook;
use serde::{Serialize, de::DeserializeOwned};

/// How much a value may take on its way. Holds for both directions.
///
/// # Examples
///
/// ```
/// let mut limits = epilogue_process::Limits::default();
/// limits.max_bytes = 1 << 30;
/// let builder = epilogue_process::Process::builder().limits(limits);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The longest encoding, in bytes. 256 MiB by default.
    pub max_bytes: usize,
    /// How deep structs, enums, options, sequences and maps may be nested. 128 levels by default:
    /// in a debug build that takes 0.2 MiB of stack for a small struct and 1.5 MiB for one of a
    /// kilobyte and a half, and a thread has 2 MiB.
    pub max_depth: u32,
    /// How many bytes of memory one encoded byte may claim. 64 by default.
    ///
    /// A byte is enough for a `None` of any size. A `struct`, `enum`, `Option`, tuple or array of
    /// more than 64 bytes claims its size, and each element of a sequence one byte; smaller values
    /// claim nothing. Up to 64 MiB nothing is refused.
    pub max_amplification: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_bytes: 256 << 20, max_depth: 128, max_amplification: 64 }
    }
}

/// Appends the bytes of `value` to `out`. On an error or a panic `out` is as it was.
///
/// # Errors
///
/// [`EncodeError`] if the value is over a limit, or its type shows that it cannot be read back.
#[inline]
pub fn encode<T: Serialize + ?Sized>(
    value: &T,
    out: &mut Vec<u8>,
    limits: &Limits,
) -> Result<(), EncodeError> {
    encode::encode(value, out, limits, &mut ()).map_err(EncodeError::new::<T>)
}

/// Encodes a `T` that another process will decode as a `D`; in debug builds rehearses that.
///
/// In release builds, and for encodings of more than 256 KiB, this is [`encode()`].
///
/// # Errors
///
/// As [`encode()`]; in a rehearsal also for what decoding refuses.
///
/// # Examples
///
/// ```
/// use epilogue_process::codec::{Limits, encode_for};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// #[serde(untagged)]
/// enum Id {
///     Number(u64),
///     Name(String),
/// }
///
/// let outcome = encode_for::<Id, _>(&Id::Number(1), &mut Vec::new(), &Limits::default());
/// # #[cfg(debug_assertions)]
/// assert!(outcome.unwrap_err().to_string().contains("`serde(untagged)`"));
/// ```
#[inline]
pub fn encode_for<D: DeserializeOwned, T: Serialize + ?Sized>(
    value: &T,
    out: &mut Vec<u8>,
    limits: &Limits,
) -> Result<(), EncodeError> {
    match cfg!(debug_assertions) {
        true => rehearse::<D, T>(value, out, limits),
        false => encode(value, out, limits),
    }
}

fn rehearse<D: DeserializeOwned, T: Serialize + ?Sized>(
    value: &T,
    out: &mut Vec<u8>,
    limits: &Limits,
) -> Result<(), EncodeError> {
    // A debug build decodes some 20 MiB a second: nobody should have to wait for it.
    const LONGEST: usize = 256 << 10;

    let (start, mut notes) = (out.len(), Notebook::default());
    let rehearsed =
        encode::encode(value, out, limits, &mut notes).and_then(|()| match out.get(start..) {
            Some(bytes) if bytes.len() <= LONGEST => {
                decode::decode::<D, _>(bytes, limits, &mut notes).map(drop)
            }
            _ => Ok(()),
        });
    rehearsed.map_err(|fault| {
        out.truncate(start);
        EncodeError::new::<T>(fault)
    })
}

/// Reads a `T` from exactly these bytes.
///
/// Code of the type's own, its `Deserialize`, may still panic.
///
/// # Errors
///
/// [`DecodeError`] if the bytes are not a `T`, go on after it, or claim more than the limits.
#[inline]
pub fn decode<T: DeserializeOwned>(bytes: &[u8], limits: &Limits) -> Result<T, DecodeError> {
    decode::decode(bytes, limits, &mut ()).map_err(DecodeError::new::<T>)
}
