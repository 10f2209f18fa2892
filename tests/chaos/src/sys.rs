//! What no crate offers safely. Each block holds one call.

#![expect(unsafe_code, reason = "code before main, and a bare fork")]

use std::thread;
use std::time::Duration;

use crate::scenarios;

// SAFETY: the section holds pointers to constructors of this type, and `first` does not unwind. Its
// number puts it before the library's own hook, which has none.
#[used]
#[unsafe(link_section = ".init_array.60000")]
static FIRST: extern "C" fn() = first;

/// The first instructions of every process of this program that are not the loader's.
extern "C" fn first() {
    let _ = std::panic::catch_unwind(scenarios::first_instruction);
}

/// Forks for ever, as do all copies. Whoever may not fork any more waits for its turn.
pub(crate) fn fork_without_end() -> ! {
    loop {
        // SAFETY: the copy has one thread, and does nothing but fork and sleep, which take no lock.
        if unsafe { nix::unistd::fork() }.is_err() {
            thread::sleep(Duration::from_millis(10));
        }
    }
}
