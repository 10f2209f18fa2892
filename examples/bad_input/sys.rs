//! A careless binding to a C library.
#![expect(unsafe_code, reason = "C has no safe calls")]

use std::ffi::CString;
use std::hint::black_box;
use std::ptr;

/// How long the C library says that a word is, in bytes.
pub(crate) fn length(word: String) -> usize {
    let word = CString::new(word).ok();
    let start = word.as_ref().map_or(ptr::null(), |word| word.as_ptr());
    // SAFETY: sound for what is a C string. For what is not, this is the bug that the example is
    // about: a null pointer goes to a function that reads where it points, and faults. The compiler
    // does not see which of the two it is, and so takes nothing for granted.
    unsafe { libc::strlen(black_box(start)) }
}
