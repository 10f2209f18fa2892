//! What can travel from one process to another.
//!
//! The bound on everything that is sent: one name for serde's two traits, and one compile error
//! that says what to do in the words of this crate.

use serde::{Serialize, de::DeserializeOwned};

/// What can travel between two processes of the same program.
///
/// Whatever implements serde's `Serialize` and `DeserializeOwned` is portable; there is nothing
/// else to implement. What serde carries but loses on the way is listed in [`codec`].
///
/// References are not portable: they would point into the memory of another process. For `&str`
/// the compiler says that its "implementation of `Deserialize` is not general enough".
///
/// [`codec`]: crate::codec
///
/// # Examples
///
/// ```
/// use epilogue_process::Portable;
///
/// fn send<T: Portable>(_: T) {}
/// send((1u64, String::from("bob"), vec![Some(0.5)]));
/// ```
///
/// ```compile_fail,E0277
/// # use epilogue_process::Portable;
/// # fn send<T: Portable>(_: T) {}
/// struct Unknown;
/// send(vec![Unknown]); // `Vec<Unknown>` cannot travel to another process
/// ```
///
/// ```compile_fail,E0277
/// # use epilogue_process::Portable;
/// # fn send<T: Portable>(_: T) {}
/// send(std::fs::read("file")); // `Result<Vec<u8>, std::io::Error>` cannot travel ..
/// ```
///
/// ```compile_fail
/// # use epilogue_process::Portable;
/// # fn send<T: Portable>(_: T) {}
/// send("bob"); // `&str` ..
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot travel to another process",
    label = "would have to be written here and read back in another process",
    note = "derive serde's `Serialize` and `Deserialize` for your own types, and those inside",
    note = "pass owned data instead of references: `String` for `&str`, `Vec<T>` for `&[T]`",
    note = "return foreign error types such as `io::Error` through `try_map`"
)]
pub trait Portable: Serialize + DeserializeOwned {}

// Without this attribute the compiler would complain about the first type inside that lacks one
// of serde's traits, twice, and would leave out what is said above.
#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned> Portable for T {}
