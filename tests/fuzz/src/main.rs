//! libFuzzer, on the target that `FUZZ_TARGET` names.
#![no_main]

use std::alloc::System;
use std::sync::LazyLock;

use cap::Cap;
use epilogue_process::fuzzing::Target;

/// What an input may make a parent hold on to, in bytes: 512 for each of its own.
const MOST: usize = 1 << 20;

/// An allocation beyond the limit fails, which ends the fuzzer.
#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    fuzz::target(&name).unwrap_or_else(|| panic!("FUZZ_TARGET: there is no target {name:?}"))
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let target = *TARGET;
    MEMORY.set_limit(MEMORY.allocated() + MOST).unwrap_or_else(|error| panic!("{error:?}"));
    target(bytes);
    MEMORY.set_limit(usize::MAX).unwrap_or_else(|error| panic!("{error:?}"));
});
