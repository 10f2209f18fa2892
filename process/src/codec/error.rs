//! What can go wrong on the way into bytes and back, and what to do about it.

use std::any::type_name;
use std::fmt::{self, Display};

use serde::{Deserialize, Serialize, de, ser};

/// A value could not be written down for another process. Nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("`{}` cannot be encoded: {problem}; {}", Plain(type_name), problem.hint())]
#[non_exhaustive]
pub struct EncodeError {
    /// The type that was to be encoded.
    pub type_name: String,
    /// What went wrong.
    pub problem: Problem,
}

/// Bytes from another process are not the value they should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("`{}` cannot be decoded: {problem}; {}", Plain(type_name), problem.hint())]
#[non_exhaustive]
pub struct DecodeError {
    /// The type that was to be decoded.
    pub type_name: String,
    /// What went wrong.
    pub problem: Problem,
}

/// What stands between a value and its bytes. [`hint`](Problem::hint) names the cure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The bytes are more than [`Limits::max_bytes`](super::Limits::max_bytes).
    #[error("it takes more than {limit} bytes")]
    TooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The value is nested deeper than [`Limits::max_depth`](super::Limits::max_depth).
    #[error("it is nested deeper than {limit} levels")]
    TooDeep {
        /// The limit, in levels.
        limit: u32,
    },
    /// The bytes claim a value out of proportion to them; see
    /// [`Limits::max_amplification`](super::Limits::max_amplification).
    #[error("its bytes claim a value that takes more than {limit} bytes of memory")]
    Amplified {
        /// What these bytes were allowed to claim, in bytes of memory.
        limit: usize,
    },
    /// A serde attribute makes one side write what the other does not read.
    #[error("`{}` loses {} to `{}`", Plain(container), Names(fields), Plain(attribute))]
    Lossy {
        /// The struct or enum that carries the attribute.
        container: String,
        /// The fields or variants concerned, as far as they are known.
        fields: Vec<String>,
        /// The attribute, or the attributes that can have caused it.
        attribute: String,
    },
    /// The type asks for something that a format without field names and type tags has not got.
    #[error("{} is not supported", Plain(what))]
    Unsupported {
        /// What was asked for.
        what: String,
    },
    /// Bytes are left over after the value.
    #[error("{bytes} bytes are left over after the value")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// The bytes end before the value does.
    #[error("the bytes end before the value does")]
    Truncated,
    /// The bytes are not what a value of this type looks like.
    #[error("the bytes hold {}", Plain(what))]
    Invalid {
        /// What was found.
        what: String,
    },
    /// The type's own `Serialize` or `Deserialize` refused, in these words.
    #[error("{}", Plain(.0))]
    Refused(String),
}

impl Problem {
    /// What to do about it, in one line.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "send less at once, or raise `Limits::max_bytes`",
            Self::TooDeep { .. } => {
                "keep nodes in a `Vec` and link them by index, or raise `Limits::max_depth`"
            }
            Self::Amplified { .. } => {
                "send only the elements that are there, or raise `Limits::max_amplification`"
            }
            Self::Lossy { .. } => "use the attribute on neither side, or send another type",
            Self::Unsupported { .. } => {
                "use plain structs and enums without `flatten`, `untagged` or `tag`, or send the \
                 value as a JSON `String`"
            }
            Self::Trailing { .. } | Self::Truncated | Self::Invalid { .. } => {
                "`Serialize` and `Deserialize` of the type must agree on every field, or else the \
                 sender is broken"
            }
            Self::Refused(message) if message.contains("UTF-8") => {
                "send an `OsString`, which need not be UTF-8"
            }
            Self::Refused(_) => "see `Serialize` and `Deserialize` of the type",
        }
    }
}

impl EncodeError {
    /// A refusal from outside of the codec, in these words.
    #[cold]
    pub(crate) fn refused<T: ?Sized>(message: impl Display) -> Self {
        Self::new::<T>(Fault::new(Problem::Refused(message.to_string())))
    }

    #[cold]
    pub(super) fn new<T: ?Sized>(fault: Fault) -> Self {
        Self { type_name: type_name::<T>().to_owned(), problem: *fault.0 }
    }
}

impl DecodeError {
    /// A refusal from outside of the codec, in these words.
    #[cold]
    pub(crate) fn refused<T: ?Sized>(message: impl Display) -> Self {
        Self::new::<T>(Fault::new(Problem::Refused(message.to_string())))
    }

    #[cold]
    pub(crate) fn too_large<T: ?Sized>(limit: usize) -> Self {
        Self::new::<T>(Fault::new(Problem::TooLarge { limit }))
    }

    #[cold]
    pub(super) fn new<T: ?Sized>(fault: Fault) -> Self {
        Self { type_name: type_name::<T>().to_owned(), problem: *fault.0 }
    }
}

/// The error type that serde's traits see: one pointer, so that the good path stays in registers.
#[derive(Debug)]
pub(super) struct Fault(Box<Problem>);

impl Fault {
    #[cold]
    pub(super) fn new(problem: Problem) -> Self {
        Self(Box::new(problem))
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Fault {}

impl ser::Error for Fault {
    #[cold]
    fn custom<T: Display>(message: T) -> Self {
        Self::new(Problem::Refused(message.to_string()))
    }
}

impl de::Error for Fault {
    #[cold]
    fn custom<T: Display>(message: T) -> Self {
        Self::new(Problem::Refused(message.to_string()))
    }
}

/// Text that may come from a worker: one line without control characters, and not too long.
struct Plain<'a>(&'a str);

impl Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LONGEST: usize = 512;
        for c in self.0.chars().take(LONGEST) {
            match c.is_control() {
                true => write!(f, "{}", c.escape_default())?,
                false => write!(f, "{c}")?,
            }
        }
        match self.0.chars().nth(LONGEST) {
            Some(_) => f.write_str(".."),
            None => Ok(()),
        }
    }
}

struct Names<'a>(&'a [String]);

impl Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => f.write_str("fields"),
            names => names.iter().enumerate().try_for_each(|(i, name)| {
                let comma = if i == 0 { "" } else { ", " };
                write!(f, "{comma}`{}`", Plain(name))
            }),
        }
    }
}
