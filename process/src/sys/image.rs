//! Where this program's code lies: the base that offsets count from, and what may be called.
//!
//! A function travels as an offset from the base of the image (the executable or the shared
//! library) that holds this crate. The address of the image differs between two processes, the
//! offset does not. Before an offset becomes a function again, its image must have the same
//! fingerprint and the offset must lie in executable memory of it.

#![expect(unsafe_code, reason = "program headers are raw memory, and a function is an address")]

use std::ffi::{c_int, c_void};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::{mem, ptr, slice};

use epilogue_embed::lent::Once;

use crate::invocation::Trampoline;
use crate::link::Link;

/// The image that holds this crate's code.
#[derive(Debug)]
pub(crate) struct Image {
    base: usize,
    text: Vec<Range<usize>>,
    fingerprint: u64,
    is_library: bool,
}

impl Image {
    /// The image of this crate, looked up once.
    pub(crate) fn this() -> Option<&'static Self> {
        static IMAGE: Once<Option<Image>> = Once::new();
        IMAGE.get_or_make(find).as_ref()
    }

    /// Equal in two processes if and only if both run the same build.
    pub(crate) fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Whether this image is a shared library, rather than the executable itself.
    pub(crate) fn is_library(&self) -> bool {
        self.is_library
    }

    /// An address in its code.
    pub(crate) fn code_address(&self) -> usize {
        self.text.first().map_or(self.base, |range| range.start)
    }

    /// The offset of a function, or none where its code lies in another image.
    pub(crate) fn offset_of(&self, address: usize) -> Option<u64> {
        self.holds(address).then(|| (address - self.base) as u64)
    }

    /// The address of a function, or none where the offset does not name code of this image.
    fn address_of(&self, offset: u64) -> Option<usize> {
        let address = self.base.checked_add(usize::try_from(offset).ok()?)?;
        self.holds(address).then_some(address)
    }

    fn holds(&self, address: usize) -> bool {
        self.text.iter().any(|range| range.contains(&address))
    }

    /// The function at `offset`, as the address that a trampoline takes.
    pub(crate) fn function(&self, offset: u64) -> Option<usize> {
        self.address_of(offset)
    }

    /// The trampoline at `offset`.
    pub(crate) fn trampoline(&self, offset: u64) -> Option<Trampoline> {
        let address = self.address_of(offset)?;
        // SAFETY: the offset was taken from a `Trampoline` by a parent that runs the same build
        // (the fingerprints were compared) and it lies in this image's code; nothing but the
        // parent can name it.
        Some(unsafe { mem::transmute::<usize, Trampoline>(address) })
    }

    /// The initializer of a child at `offset`.
    pub(crate) fn initializer(&self, offset: u64) -> Option<fn()> {
        let address = self.address_of(offset)?;
        // SAFETY: as for `trampoline`; the offset was taken from a `fn()`.
        Some(unsafe { mem::transmute::<usize, fn()>(address) })
    }

    /// The main function of a child at `offset`.
    pub(crate) fn main(&self, offset: u64) -> Option<fn(Link)> {
        let address = self.address_of(offset)?;
        // SAFETY: as for `trampoline`; the offset was taken from a `fn(Link)`.
        Some(unsafe { mem::transmute::<usize, fn(Link)>(address) })
    }
}

/// Turns the address that a trampoline was sent with into the function that it is.
///
/// # Safety
///
/// `F` must be the function pointer type that `address` was taken from, in this very build.
pub(crate) unsafe fn function_at<F: Copy>(address: usize) -> F {
    const { assert!(size_of::<F>() == size_of::<usize>()) };
    // SAFETY: the caller vouches for the type, and the sizes are equal.
    unsafe { mem::transmute_copy::<usize, F>(&address) }
}

fn find() -> Option<Image> {
    let mut search =
        Search { anchor: find as fn() -> Option<Image> as usize, seen: 0, found: None };
    let data = ptr::from_mut(&mut search).cast::<c_void>();
    // SAFETY: `visit` is called during this call only, with `data`, which outlives it.
    unsafe { libc::dl_iterate_phdr(Some(visit), data) };
    search.found
}

struct Search {
    anchor: usize,
    seen: usize,
    found: Option<Image>,
}

unsafe extern "C" fn visit(
    info: *mut libc::dl_phdr_info,
    _size: usize,
    data: *mut c_void,
) -> c_int {
    // SAFETY: `find` passed a `Search` that nobody else uses meanwhile.
    let search = unsafe { &mut *data.cast::<Search>() };
    // SAFETY: the loader passes a valid description, for the time of this call.
    let info = unsafe { &*info };
    // SAFETY: the loader's own header table, `dlpi_phnum` entries long.
    let headers = unsafe { slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
    // The loader describes the executable first, by definition of the call.
    let is_executable = search.seen == 0;
    search.seen += 1;
    let base = info.dlpi_addr as usize;
    let text: Vec<_> = headers
        .iter()
        .filter(|header| header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_X != 0)
        .map(|header| range(base, header))
        .collect();
    if !text.iter().any(|range| range.contains(&search.anchor)) {
        return 0;
    }
    let (fingerprint, is_library) = (fingerprint(base, headers), !is_executable);
    search.found = Some(Image { base, text, fingerprint, is_library });
    1
}

fn range(base: usize, header: &libc::Elf64_Phdr) -> Range<usize> {
    let start = base.wrapping_add(header.p_vaddr as usize);
    start..start.wrapping_add(header.p_memsz as usize)
}

/// A hash of the program headers and of all notes: the build id is one where the linker wrote
/// it. Without one, sizes and places of all segments still tell two builds apart; and a child
/// is started from `/proc/self/exe`, so a difference means that something is badly wrong.
fn fingerprint(base: usize, headers: &[libc::Elf64_Phdr]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for header in headers {
        (header.p_type, header.p_flags, header.p_offset, header.p_vaddr).hash(&mut hasher);
        (header.p_filesz, header.p_memsz).hash(&mut hasher);
        if header.p_type == libc::PT_NOTE {
            let note = range(base, header);
            // SAFETY: notes lie in a loaded, read-only segment of an image that is in use.
            let bytes = unsafe { slice::from_raw_parts(note.start as *const u8, note.len()) };
            bytes.hash(&mut hasher);
        }
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use epilogue_embed::lent::Once;

    use crate::sys::copy::ends_well_in_a_copy;

    #[test]
    fn a_copy_that_is_made_in_the_middle_makes_its_own() {
        static BARRIER: Barrier = Barrier::new(2);
        static PLACE: Once<u8> = Once::new();
        let slow = thread::spawn(|| {
            PLACE.get_or_make(|| {
                BARRIER.wait();
                BARRIER.wait();
                1
            })
        });
        BARRIER.wait();
        assert!(ends_well_in_a_copy(|| assert_eq!(*PLACE.get_or_make(|| 2), 2)));
        BARRIER.wait();
        assert_eq!((*slow.join().unwrap(), *PLACE.get_or_make(|| 3)), (1, 1));
    }
}
