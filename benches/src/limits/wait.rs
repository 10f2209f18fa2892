//! How one side waits for the other: at once in the kernel, or first by looking.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::yield_now;
use std::time::{Duration, Instant};

use bytemuck::Zeroable;

use crate::sys::futex;

/// What a side does before it sleeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Policy {
    /// Nothing.
    Park,
    /// It looks for 50 µs, and gives the CPU away between looks.
    Yield,
}

impl Policy {
    const LOOKS: Duration = Duration::from_micros(50);

    /// Whether it became true before it is time to sleep.
    fn look(self, ready: impl Fn() -> bool) -> bool {
        if self == Self::Park {
            return ready();
        }
        let start = Instant::now();
        loop {
            for _ in 0..32 {
                if ready() {
                    return true;
                }
                std::hint::spin_loop();
            }
            yield_now();
            if start.elapsed() > Self::LOOKS {
                return false;
            }
        }
    }
}

/// Where one side sleeps, and the other wakes it only if it does.
#[derive(Zeroable)]
#[repr(C, align(128))]
pub(super) struct Bell {
    rings: AtomicU32,
    asleep: AtomicU32,
}

impl Bell {
    /// To be called after what the other side waits for has been written.
    pub(super) fn ring(&self) {
        // Both sides write one word and read the other: without an order common to all, each could
        // miss what the other wrote, and the sleeper would sleep for ever.
        std::sync::atomic::fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) == 1 && self.asleep.swap(0, Ordering::AcqRel) == 1 {
            self.rings.fetch_add(1, Ordering::Release);
            futex::wake(&self.rings);
        }
    }

    pub(super) fn wait(&self, policy: Policy, ready: impl Fn() -> bool) {
        if policy.look(&ready) {
            return;
        }
        loop {
            let rings = self.rings.load(Ordering::Acquire);
            self.asleep.store(1, Ordering::SeqCst);
            std::sync::atomic::fence(Ordering::SeqCst);
            if ready() {
                self.asleep.store(0, Ordering::Relaxed);
                return;
            }
            futex::wait(&self.rings, rings);
        }
    }
}
