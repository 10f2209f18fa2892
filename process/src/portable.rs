//! What can travel from one process to another.
//!
//! The bound on everything that is sent: one name for serde's two traits, and a compile error
//! that says what to do in the words of this crate instead of serde's.

use serde::{Serialize, de::DeserializeOwned};

/// What can travel between two processes of the same program.
///
/// Whatever implements serde's `Serialize` and `DeserializeOwned` is portable; there is nothing
/// else to implement. References are not: they would point into the memory of another process.
///
/// # Examples
///
/// ```
/// use epilogue_process::Portable;
///
/// fn send<T: Portable>(_: T) {}
/// send((1u64, String::from("bob"), vec![Some(0.5)]));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot travel to another process",
    label = "would have to be written here and read back in another process",
    note = "derive serde's `Serialize` and `Deserialize` for your own types",
    note = "pass owned data instead of references: `String` for `&str`, `Vec<T>` for `&[T]`",
    note = "return foreign error types such as `io::Error` through `try_map`"
)]
pub trait Portable: Serialize + DeserializeOwned {}

impl<T: Serialize + DeserializeOwned> Portable for T {}
