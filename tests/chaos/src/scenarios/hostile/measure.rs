//! What a deed costs the parent: memory and descriptors, at most, while it is done.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::unistd::getpid;
use support::procfs::descriptors_of;

use super::deeds::Deed;
use crate::case::status_field;
use crate::figures::say_most;

/// How much more memory there may be, in KiB. What the library may take for one child is its inbox, 128
/// KiB since no deed has a longer frame, and for the successor of a worker a ring of 513 KiB and a
/// supervisor's stack; of the parent's own, arenas of threads. That is 1 MiB, and as much again for what
/// allocators keep. A deed without end sends more in each millisecond or two.
const MEMORY: u64 = 2 << 10;

/// How many more descriptors there may be besides those that a deed sends: a worker that is lost has
/// five (two of its wire, its pidfd, its ring, its doorbell), and its successor has two more while it
/// is being started; the rest are files that are read.
const DESCRIPTORS: usize = 16;

/// Looks at this process until it is over.
#[derive(Debug)]
pub(super) struct Measure {
    memory: u64,
    descriptors: usize,
    slots: usize,
    over: Arc<AtomicBool>,
    most: Arc<AtomicUsize>,
    looks: JoinHandle<()>,
}

impl Measure {
    pub(super) fn begin() -> Self {
        let (over, most) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let looks = {
            let (over, most) = (Arc::clone(&over), Arc::clone(&most));
            thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    most.fetch_max(descriptors_of(getpid()), Ordering::Relaxed);
                    thread::sleep(Duration::from_millis(1));
                }
            })
        };
        while most.load(Ordering::Relaxed) == 0 {
            thread::yield_now();
        }
        // The peak begins anew. Where that is not allowed, it is that of what was before, at least.
        let _ = fs::write("/proc/self/clear_refs", "5");
        let descriptors = descriptors_of(getpid());
        Self { memory: number("VmHWM"), descriptors, slots: slots(), over, most, looks }
    }

    /// Holds what there was at most against the bounds.
    pub(super) fn end(self, deed: Deed) {
        let Self { memory, descriptors, slots: before, over, most, looks } = self;
        let more_memory = number("VmHWM") - memory;
        over.store(true, Ordering::Relaxed);
        looks.join().unwrap();
        let more = most.load(Ordering::Relaxed).saturating_sub(descriptors);
        let bound = DESCRIPTORS + deed.descriptors();
        assert!(more_memory <= MEMORY, "{deed:?}: {more_memory} KiB more, of {memory}");
        assert!(more <= bound, "{deed:?}: {more} descriptors more, of {descriptors}");
        // A crowd that was open between two looks is seen by the kernel's table, which never shrinks.
        let allowed = before.max(table_of(descriptors + bound));
        assert!(slots() <= allowed, "{deed:?}: room for {} descriptors, once {before}", slots());
        say_most("KiB of memory more", more_memory);
        say_most("descriptors more", more as u64);
    }
}

/// How long a table the kernel makes for so many descriptors.
fn table_of(descriptors: usize) -> usize {
    128 * (descriptors / 128 + 1).next_power_of_two()
}

fn slots() -> usize {
    number("FDSize") as usize
}

/// A number of this process's status.
fn number(name: &str) -> u64 {
    let value = status_field(getpid(), name).unwrap();
    value.split(' ').next().unwrap().parse().unwrap()
}
