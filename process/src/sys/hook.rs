//! The start hook: how a child is recognised before `main`, with nothing to call there.
//!
//! A static in `.init_array` runs in every process of every program that links this crate. In
//! a child it never returns: it runs the constructors that the linker placed after it, serves,
//! and leaves by `exit`. Those later constructors matter: C++ globals that were linked
//! statically, and plug-ins that register themselves, would otherwise be empty in the child.

#![expect(unsafe_code, reason = "link sections and constructors are beyond what Rust checks")]

use std::ffi::{c_char, c_int};
use std::hint;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

type Constructor = extern "C" fn(c_int, *const *const c_char, *const *const c_char);

/// Whether the hook ran in this process, or `init` did.
static RAN: AtomicBool = AtomicBool::new(false);

/// Whether this is a child in which constructors run that come after ours.
static CONSTRUCTING: AtomicBool = AtomicBool::new(false);

// SAFETY: the section holds pointers to constructors of exactly this type, and `hook` neither
// unwinds nor returns in a state that the runtime does not expect.
#[cfg(not(epilogue_no_hook))]
#[used]
#[unsafe(link_section = ".init_array")]
static HOOK: Constructor = hook;

/// Without the hook only `init` can serve; tests build it so to see that the error says so.
#[cfg(epilogue_no_hook)]
static HOOK: Constructor = hook;

/// Whether a child of this program will find its way: what ran here will run there.
pub(crate) fn works() -> bool {
    // Naming the static keeps the object file that defines it in every link.
    hint::black_box(&HOOK);
    RAN.load(Ordering::Relaxed)
}

/// Whether a child that is started now would be without end: the constructor that starts it runs
/// in that child, too, and so does its own child's.
pub(crate) fn would_go_on_for_ever() -> bool {
    CONSTRUCTING.load(Ordering::Relaxed)
}

/// `init` was called, which does the hook's work where the hook does not run.
pub(crate) fn note_init() {
    RAN.store(true, Ordering::Relaxed);
}

extern "C" fn hook(argc: c_int, argv: *const *const c_char, envp: *const *const c_char) {
    RAN.store(true, Ordering::Relaxed);
    if let Some(summons) = crate::boot::summons() {
        CONSTRUCTING.store(true, Ordering::Relaxed);
        run_later_constructors(argc, argv, envp);
        CONSTRUCTING.store(false, Ordering::Relaxed);
        crate::boot::serve(summons);
    }
}

/// Runs the constructors that the linker placed after ours, in their order.
fn run_later_constructors(argc: c_int, argv: *const *const c_char, envp: *const *const c_char) {
    let end = init_array_end();
    let mut entry = ptr::from_ref(&HOOK).wrapping_add(1);
    // An end before us means that we are not in that array at all: nothing to run.
    while entry < end {
        // SAFETY: between our own entry and the array's end lie word-sized entries only.
        let address = unsafe { entry.cast::<usize>().read() };
        // The linker may leave 0 or -1 as padding; the runtime skips both as well.
        if address != 0 && address != usize::MAX {
            // SAFETY: every other entry of `.init_array` is a constructor of this type.
            let constructor = unsafe { entry.read() };
            constructor(argc, argv, envp);
        }
        entry = entry.wrapping_add(1);
    }
}

// `__init_array_end` is defined by the linker, not in every kind of link (GNU ld leaves it out
// of shared libraries). A weak reference in a data word of our own is null there, with every
// linker; the word is weak itself so that two versions of this crate can share it.
#[cfg(target_pointer_width = "64")]
std::arch::global_asm!(
    ".weak __init_array_end",
    ".hidden __init_array_end",
    ".pushsection .data.rel.ro.epilogue_init_array_end,\"aw\",@progbits",
    ".balign 8",
    ".weak epilogue_init_array_end",
    ".hidden epilogue_init_array_end",
    "epilogue_init_array_end:",
    ".8byte __init_array_end",
    ".popsection",
);

fn init_array_end() -> *const Constructor {
    unsafe extern "C" {
        static epilogue_init_array_end: *const Constructor;
    }
    // SAFETY: the word is defined above, and the loader relocated it before any constructor.
    unsafe { epilogue_init_array_end }
}
