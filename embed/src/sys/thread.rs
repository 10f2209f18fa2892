//! A thread that takes no lock, and touches no memory of its process but its stack, until there is
//! something to do.
//!
//! The standard library's takes a lock of its own as it begins, which a copy made by `fork` meanwhile
//! finds taken for ever: there, `std::process::exit` waits for it. It also takes the loader's, which
//! whoever loads a library holds until that is initialised, however long that takes. And it
//! allocates, for which the C library makes it a heap of its own: four system calls, and pages that
//! every child would have twice.

use std::ffi::{CStr, c_int, c_void};
use std::mem::MaybeUninit;
use std::{env, io, ptr};

use super::once::Once;

/// A thread that was started. It goes on if nobody joins it.
#[derive(Debug)]
pub struct Thread(libc::pthread_t);

// SAFETY: the C library lets any thread join another, and this can be done only once.
unsafe impl Send for Thread {}

/// What a thread is given. It is freed behind `body`, not before: the C library would make the thread a heap
/// of its own for that.
struct Work<T> {
    name: &'static CStr,
    subject: T,
    body: fn(&mut T),
}

impl Thread {
    /// Starts a thread that calls `body`, which must not unwind: a panic in it aborts.
    ///
    /// Its stack is as large as one of the standard library's.
    ///
    /// # Errors
    ///
    /// The C library's, if there is no memory for a stack, or no more threads may be started.
    pub fn start<T: Send + 'static>(
        name: &'static CStr,
        subject: T,
        body: fn(&mut T),
    ) -> io::Result<Self> {
        let attributes = Attributes::new(stack_size())?;
        let work = Box::into_raw(Box::new(Work { name, subject, body }));
        let mut thread = MaybeUninit::uninit();
        let (place, argument) = (thread.as_mut_ptr(), work.cast::<c_void>());
        // SAFETY: `run::<T>` takes exactly what `argument` points to, and nobody else has it.
        let error = unsafe { libc::pthread_create(place, &attributes.0, run::<T>, argument) };
        if error != 0 {
            // SAFETY: from `Box::into_raw` above, and no thread has seen it.
            drop(unsafe { Box::from_raw(work) });
        }
        check(error)?;
        // SAFETY: written by the call above, which succeeded.
        Ok(Self(unsafe { thread.assume_init() }))
    }

    /// Waits until its `body` has returned. The C library keeps its stack for the next thread.
    pub fn join(self) {
        // SAFETY: it was not detached, and `self` is gone after this; a null result is allowed.
        let error = unsafe { libc::pthread_join(self.0, ptr::null_mut()) };
        debug_assert_eq!(error, 0);
    }

    /// Lets it go on by itself: the C library takes its stack back when its `body` has returned.
    pub fn detach(self) {
        // SAFETY: nobody has joined it, and `self` is gone after this.
        let error = unsafe { libc::pthread_detach(self.0) };
        debug_assert_eq!(error, 0);
    }
}

extern "C" fn run<T>(work: *mut c_void) -> *mut c_void {
    // SAFETY: from `Box::into_raw` in `start`, which gave it away to this thread.
    let mut work = unsafe { Box::from_raw(work.cast::<Work<T>>()) };
    // If it fails, `ps` shows the name of the process.
    let _ = nix::sys::prctl::set_name(work.name);
    (work.body)(&mut work.subject);
    ptr::null_mut()
}

/// As the standard library has it: of a variable that is read once, behind a lock.
fn stack_size() -> usize {
    static SIZE: Once<usize> = Once::new();
    *SIZE.get_or_make(wanted_stack_size)
}

fn wanted_stack_size() -> usize {
    const DEFAULT: usize = 2 << 20;
    let wanted = env::var_os("RUST_MIN_STACK");
    let wanted = wanted.and_then(|size| size.to_str()?.parse().ok());
    // The C library wants whole pages.
    let whole = |size: usize| size.max(libc::PTHREAD_STACK_MIN).checked_next_multiple_of(1 << 16);
    wanted.and_then(whole).unwrap_or(DEFAULT)
}

struct Attributes(libc::pthread_attr_t);

impl Attributes {
    fn new(stack_size: usize) -> io::Result<Self> {
        let mut attributes = MaybeUninit::uninit();
        // SAFETY: initialises the memory it is given.
        check(unsafe { libc::pthread_attr_init(attributes.as_mut_ptr()) })?;
        // SAFETY: initialised by the call above, which succeeded.
        let mut attributes = Self(unsafe { attributes.assume_init() });
        // SAFETY: initialised attributes, an integer.
        check(unsafe { libc::pthread_attr_setstacksize(&mut attributes.0, stack_size) })?;
        Ok(attributes)
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: initialised, and not used again.
        unsafe { libc::pthread_attr_destroy(&mut self.0) };
    }
}

/// The family returns the error instead of setting `errno`.
fn check(error: c_int) -> io::Result<()> {
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
}
