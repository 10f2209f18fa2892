//! The coverage runtimes that may or may not be part of this image.
//!
//! Their symbols are referenced weakly from a slot in inline assembly: null where the image was
//! not instrumented, so a plain build links. The slot has no name, so copies of this crate do not
//! collide; it is resolved in the image that this code is part of, never in another one.
//!
//! x86_64 and aarch64 ELF. Elsewhere every address is null: the same as a plain build.

use std::ffi::{CStr, c_char, c_int};
use std::mem::transmute;

/// The address of a weak symbol, or zero.
#[cfg(all(target_os = "linux", target_arch = "x86_64", not(miri)))]
macro_rules! weak {
    ($name:literal) => {{
        let address: usize;
        // SAFETY: reads eight bytes that this block itself puts into the image's data, which the
        // linker fills with the symbol's address or zero. No register but the output changes.
        unsafe {
            std::arch::asm!(
                concat!(".weak ", $name),
                concat!(".hidden ", $name),
                ".pushsection .data.rel.ro.epilogue_slot,\"aw\",@progbits",
                ".balign 8",
                "2:",
                concat!(".quad ", $name),
                ".popsection",
                "mov {address}, qword ptr [rip + 2b]",
                address = out(reg) address,
                options(pure, readonly, nostack, preserves_flags),
            );
        }
        address
    }};
}

/// The address of a weak symbol, or zero.
#[cfg(all(target_os = "linux", target_arch = "aarch64", not(miri)))]
macro_rules! weak {
    ($name:literal) => {{
        let address: usize;
        // SAFETY: reads eight bytes that this block itself puts into the image's data, which the
        // linker fills with the symbol's address or zero. No register but the output changes.
        unsafe {
            std::arch::asm!(
                concat!(".weak ", $name),
                concat!(".hidden ", $name),
                ".pushsection .data.rel.ro.epilogue_slot,\"aw\",@progbits",
                ".balign 8",
                "2:",
                concat!(".xword ", $name),
                ".popsection",
                "adrp {address}, 2b",
                "ldr {address}, [{address}, :lo12:2b]",
                address = out(reg) address,
                options(pure, readonly, nostack, preserves_flags),
            );
        }
        address
    }};
}

/// The address of a weak symbol: unknown here, so zero.
#[cfg(not(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    not(miri)
)))]
macro_rules! weak {
    ($name:literal) => {{
        let _ = $name;
        0_usize
    }};
}

/// The LLVM profile runtime of this image.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Runtime {
    size: extern "C" fn() -> u64,
    write: unsafe extern "C" fn(*mut c_char) -> c_int,
    filename: extern "C" fn() -> *const c_char,
    set_filename: unsafe extern "C" fn(*const c_char),
    write_file: extern "C" fn() -> c_int,
    is_continuous: Option<extern "C" fn() -> c_int>,
}

impl Runtime {
    /// The runtime, if this image was built with `-C instrument-coverage`.
    pub(crate) fn linked() -> Option<Self> {
        let size = weak!("__llvm_profile_get_size_for_buffer");
        let write = weak!("__llvm_profile_write_buffer");
        let filename = weak!("__llvm_profile_get_filename");
        let set_filename = weak!("__llvm_profile_set_filename");
        let write_file = weak!("__llvm_profile_write_file");
        let is_continuous = weak!("__llvm_profile_is_continuous_mode_enabled");
        if [size, write, filename, set_filename, write_file].contains(&0) {
            return None;
        }
        Some(Self {
            // SAFETY: not null, so it is the runtime's `uint64_t f(void)` of that name.
            size: unsafe { transmute::<usize, extern "C" fn() -> u64>(size) },
            // SAFETY: not null, so it is the runtime's `int f(char *)` of that name.
            write: unsafe { transmute::<usize, unsafe extern "C" fn(*mut c_char) -> c_int>(write) },
            // SAFETY: not null, so it is the runtime's `const char *f(void)` of that name.
            filename: unsafe { transmute::<usize, extern "C" fn() -> *const c_char>(filename) },
            // SAFETY: not null, so it is the runtime's `void f(const char *)` of that name.
            set_filename: unsafe {
                transmute::<usize, unsafe extern "C" fn(*const c_char)>(set_filename)
            },
            // SAFETY: not null, so it is the runtime's `int f(void)` of that name.
            write_file: unsafe { transmute::<usize, extern "C" fn() -> c_int>(write_file) },
            // SAFETY: null is `None`; else it is the runtime's `int f(void)` of that name.
            is_continuous: unsafe {
                transmute::<usize, Option<extern "C" fn() -> c_int>>(is_continuous)
            },
        })
    }

    /// Tells this image from others of the process, which have counters of their own.
    pub(crate) fn image(&self) -> usize {
        self.size as usize
    }

    /// How many bytes the profile takes. Constant for an image; async-signal-safe.
    pub(crate) fn size(&self) -> usize {
        usize::try_from((self.size)()).unwrap_or(usize::MAX)
    }

    /// Copies the profile into `buffer`; false if it does not fit. Async-signal-safe: this part
    /// of the runtime uses nothing of libc but `memcpy`, `memset` and `memcmp`.
    pub(crate) fn write(&self, buffer: &mut [u8]) -> bool {
        if buffer.len() < self.size() {
            return false;
        }
        // SAFETY: the runtime writes `size` bytes, and the buffer holds as many.
        unsafe { (self.write)(buffer.as_mut_ptr().cast()) == 0 }
    }

    /// The file that the runtime would write at exit. Allocates.
    pub(crate) fn filename(&self) -> Option<Vec<u8>> {
        let name = (self.filename)();
        if name.is_null() {
            return None;
        }
        // SAFETY: not null, so a C string that the runtime allocated and never frees.
        Some(unsafe { CStr::from_ptr(name) }.to_bytes().to_vec())
    }

    /// Has the runtime write to `pattern` at exit. Allocates.
    pub(crate) fn set_filename(&self, pattern: &CStr) {
        // SAFETY: a C string, which the runtime copies.
        unsafe { (self.set_filename)(pattern.as_ptr()) }
    }

    /// Writes the runtime's file, as its own hook at exit does; false if that failed. Allocates.
    pub(crate) fn write_file(&self) -> bool {
        (self.write_file)() == 0
    }

    /// Whether the counters are the file (`%c`), so that nothing is ever to be saved.
    pub(crate) fn is_continuous(&self) -> bool {
        self.is_continuous.is_some_and(|is_continuous| is_continuous() != 0)
    }
}

/// Has the code that `gcc --coverage` compiled write its counts, if there is any. Not
/// async-signal-safe: it takes locks and allocates.
pub(crate) fn dump_gcov() {
    let address = weak!("__gcov_dump");
    // SAFETY: null is `None`; else it is libgcov's `void f(void)` of that name.
    let dump = unsafe { transmute::<usize, Option<extern "C" fn()>>(address) };
    if let Some(dump) = dump {
        dump();
    }
}
