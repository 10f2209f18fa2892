//! What a handler leaves for embed's thread: one place for each signal, and a wake-up.
//!
//! # Invariants
//! 1. A place is written only by the handler that moved it from empty to taken, and read only by
//!    the thread, after it was moved to full. Signals of one number that arrive meanwhile are one,
//!    as they are for the kernel.
//! 2. [`Inbox::put`] and [`Inbox::redeem`] are async-signal-safe.
//! 3. A signal's place is made before its handler is installed, and stays for ever. Few signals
//!    are handled, and a child that is forked pays for each page that it writes.

use std::cell::UnsafeCell;
use std::ffi::c_int;
use std::fmt;
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU8, Ordering};

use super::action::{Delivery, SIGNALS, send_to, this_thread};
use super::wake::Wake;

const EMPTY: u8 = 0;
const TAKEN: u8 = 1;
const FULL: u8 = 2;

struct Place {
    state: AtomicU8,
    letter: UnsafeCell<Letter>,
    /// The thread that is about to get the signal again, for the previous handler, or zero.
    repeated_to: AtomicI32,
    repeated: UnsafeCell<Delivery>,
}

/// A signal, and the thread that it interrupted.
#[derive(Clone, Copy)]
pub(crate) struct Letter {
    pub(crate) delivery: Delivery,
    pub(crate) thread: libc::pid_t,
}

/// The places of one process.
pub(crate) struct Inbox {
    places: [AtomicPtr<Place>; SIGNALS],
    wake: Wake,
}

// SAFETY: the cells are reached only as the states above allow, one side at a time.
unsafe impl Sync for Inbox {}
// SAFETY: as above; nothing in it belongs to a thread.
unsafe impl Send for Inbox {}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Inbox")
    }
}

impl Inbox {
    pub(crate) fn new() -> Self {
        let places = [const { AtomicPtr::new(ptr::null_mut()) }; SIGNALS];
        Self { places, wake: Wake::new() }
    }

    /// Makes the place of a signal whose handler is about to be installed.
    pub(crate) fn prepare(&self, signal: c_int) {
        let place = usize::try_from(signal).ok().and_then(|signal| self.places.get(signal));
        let Some(place) = place.filter(|place| place.load(Ordering::Acquire).is_null()) else {
            return;
        };
        let made = Box::into_raw(Box::new(Place {
            state: AtomicU8::new(EMPTY),
            letter: UnsafeCell::new(Letter { delivery: Delivery::empty(), thread: 0 }),
            repeated_to: AtomicI32::new(0),
            repeated: UnsafeCell::new(Delivery::empty()),
        }));
        // SeqCst, as the look at it: see `Desk::attendant`.
        let order = (Ordering::SeqCst, Ordering::Acquire);
        if place.compare_exchange(ptr::null_mut(), made, order.0, order.1).is_err() {
            // SAFETY: from `Box::into_raw` above, and nobody else has seen it.
            drop(unsafe { Box::from_raw(made) });
        }
    }

    fn place(&self, signal: c_int) -> Option<&Place> {
        look(self.places.get(usize::try_from(signal).ok()?)?)
    }

    /// Leaves a signal for the thread and wakes it. Calls `first` before, if none of its number waits to
    /// be taken. False if there is no place for it.
    pub(crate) fn put(&self, delivery: &Delivery, first: impl FnOnce()) -> bool {
        let Some(place) = self.place(delivery.signal) else { return false };
        let order = (Ordering::Acquire, Ordering::Relaxed);
        if place.state.compare_exchange(EMPTY, TAKEN, order.0, order.1).is_ok() {
            first();
            let letter = Letter { delivery: delivery.without_context(), thread: this_thread() };
            // SAFETY: this handler moved the place from empty to taken, so nobody else is here.
            unsafe { place.letter.get().write(letter) };
            place.state.store(FULL, Ordering::SeqCst);
        }
        self.wake.post();
        true
    }

    /// Takes one signal out, if there is one: `first` before all others.
    pub(crate) fn take(&self, first: Option<c_int>) -> Option<Letter> {
        let first = first.and_then(|signal| self.place(signal));
        first.into_iter().chain(self.places.iter().filter_map(look)).find_map(|place| {
            if place.state.load(Ordering::Acquire) != FULL {
                return None;
            }
            // SAFETY: full, so no handler writes; the only reader is embed's thread.
            let letter = unsafe { place.letter.get().read() };
            place.state.store(EMPTY, Ordering::Release);
            Some(letter)
        })
    }

    /// Whether a signal waits to be taken.
    pub(crate) fn has_any(&self) -> bool {
        // SeqCst: see `Desk::attendant`.
        let is_full = |place: &Place| place.state.load(Ordering::SeqCst) == FULL;
        self.places.iter().filter_map(look).any(is_full)
    }

    /// Waits until something may be there.
    pub(crate) fn wait(&self) {
        self.wake.wait();
    }

    /// Has the thread look again.
    pub(crate) fn nudge(&self) {
        self.wake.post();
    }

    /// Gives the signal to the previous handler on the thread that it interrupted, so that a call
    /// waiting there is interrupted after the handler has run. False if that thread is gone.
    pub(crate) fn repeat(&self, letter: &Letter) -> bool {
        let Some(place) = self.place(letter.delivery.signal) else { return false };
        if place.repeated_to.load(Ordering::Acquire) != 0 {
            // That thread does not let the signal in any more.
            return false;
        }
        // SAFETY: zero, so no handler reads; the only writer is embed's thread.
        unsafe { place.repeated.get().write(letter.delivery) };
        place.repeated_to.store(letter.thread, Ordering::Release);
        let sent = send_to(letter.thread, letter.delivery.signal);
        // If the token is gone, a handler has used it already.
        sent || !self.revoke(place, letter.thread)
    }

    fn revoke(&self, place: &Place, thread: libc::pid_t) -> bool {
        let order = (Ordering::AcqRel, Ordering::Acquire);
        place.repeated_to.compare_exchange(thread, 0, order.0, order.1).is_ok()
    }

    /// In the handler: the signal to give to the previous handler, if this is a repetition.
    pub(crate) fn redeem(&self, arrived: &Delivery) -> Option<Delivery> {
        let place = self.place(arrived.signal)?;
        let is_here = place.repeated_to.load(Ordering::Acquire) == this_thread();
        if !is_here || !arrived.is_from_within() {
            return None;
        }
        // SAFETY: the token names this thread, so embed's thread does not write; this thread is in
        // a handler with every signal blocked, so it is here once.
        let first = unsafe { place.repeated.get().read() };
        place.repeated_to.store(0, Ordering::Release);
        Some(first.in_context_of(arrived))
    }
}

fn look(place: &AtomicPtr<Place>) -> Option<&Place> {
    // SAFETY: null, or from `Box::into_raw` in `prepare`, and never freed once published.
    unsafe { place.load(Ordering::SeqCst).as_ref() }
}
