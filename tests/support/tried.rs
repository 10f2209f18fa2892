//! What a test could not try on this machine: said where it is seen, or refused.

use std::env;
use std::io::{self, Write};
use std::thread;

/// With this variable set to 1, what cannot be tried fails its test.
const TRY_ALL: &str = "EPILOGUE_TRY_ALL";

/// Says that a part of a test was not tried, and why not: it needs what this user, or this machine,
/// does not have.
///
/// # Panics
///
/// If `EPILOGUE_TRY_ALL` is 1.
#[track_caller]
pub fn not_tried(why: impl AsRef<str>) {
    let why = why.as_ref();
    let thread = thread::current();
    let line = format!("NOT TRIED in `{}`: {why}\n", thread.name().unwrap_or("a thread"));
    // Not `eprintln!`: the test harness captures that, and shows it only if the test fails.
    let _ = io::stderr().write_all(line.as_bytes());
    assert!(env::var_os(TRY_ALL).is_none_or(|value| value != "1"), "not tried: {why}");
}
