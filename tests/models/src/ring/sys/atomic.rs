//! Loom's atomics, with what loom lacks, and with what a model must be seen to fail by.

use std::cell::Cell;
use std::fmt;
use std::panic;
use std::sync::OnceLock;

pub(crate) use std::sync::atomic::Ordering;

/// What is taken out of the protocol, on purpose: a model that still passes shows nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Break {
    /// Fences do nothing.
    Fence,
    /// Accesses are sequentially consistent no more, but release and acquire.
    SeqCst,
    /// What releases, releases nothing.
    Release,
    /// What acquires, acquires nothing.
    Acquire,
    /// A compare-and-swap compares, and then swaps.
    Swap,
    /// The futex sleeps whatever the word says.
    Futex,
    /// Zeroes are not written over what lay there before.
    Wipe,
}

impl Break {
    pub(crate) const ALL: [Self; 7] = [
        Self::Fence,
        Self::SeqCst,
        Self::Release,
        Self::Acquire,
        Self::Swap,
        Self::Futex,
        Self::Wipe,
    ];
}

static BROKEN: OnceLock<Break> = OnceLock::new();

pub(crate) fn take_out(what: Break) {
    let _ = BROKEN.set(what);
}

pub(crate) fn is_broken(what: Break) -> bool {
    BROKEN.get() == Some(&what)
}

loom::thread_local! {
    /// Whether this thread has stored sequentially consistently, and not loaded so since.
    static HAS_STORED: Cell<bool> = Cell::new(false);
    /// After how many more accesses this thread dies.
    static LEFT: Cell<Option<u32>> = Cell::new(None);
}

/// This thread's process is killed.
#[derive(Debug)]
pub(crate) struct Killed;

/// Runs `child` as a process that is killed before the access of that number to shared memory.
pub(crate) fn killed_after(accesses: u32, child: impl FnOnce()) {
    LEFT.with(|left| left.set(Some(accesses)));
    // What it holds is dropped, which touches nothing that is shared.
    if let Err(payload) = panic::catch_unwind(panic::AssertUnwindSafe(child))
        && !payload.is::<Killed>()
    {
        panic::resume_unwind(payload);
    }
    LEFT.with(|left| left.set(None));
}

loom::lazy_static! {
    static ref ACCESSES: loom::sync::atomic::AtomicUsize = loom::sync::atomic::AtomicUsize::new(0);
}

/// Each access and each fence is one that all others may come before or after: to see which of them
/// matter to each other, loom looks at the last of each word only, and at no fence.
fn take_turn() {
    ACCESSES.fetch_add(1, Ordering::Relaxed);
}

fn access() {
    LEFT.with(|left| match left.get() {
        None => {}
        Some(0) => panic::resume_unwind(Box::new(Killed)),
        Some(more) => left.set(Some(more - 1)),
    });
    take_turn();
}

/// Loom takes a sequentially consistent access for one that acquires and releases. The language says
/// more (`[atomics.order]` 4): one that stores and, later in the same thread, one that loads are ordered
/// with the fences of others as if there were a fence between the two. So that is what there is
/// here, and nothing where only one of the two is sequentially consistent.
fn pair_up() {
    if HAS_STORED.with(|stored| stored.take()) {
        loom::sync::atomic::fence(Ordering::SeqCst);
    }
}

fn loading(order: Ordering) -> Ordering {
    access();
    if order == Ordering::SeqCst {
        pair_up();
    }
    match order {
        Ordering::Acquire | Ordering::SeqCst if !is_broken(Break::Acquire) => Ordering::Acquire,
        _ => Ordering::Relaxed,
    }
}

fn storing(order: Ordering) -> Ordering {
    access();
    if order == Ordering::SeqCst && !is_broken(Break::SeqCst) {
        HAS_STORED.with(|stored| stored.set(true));
    }
    match order {
        Ordering::Release | Ordering::SeqCst if !is_broken(Break::Release) => Ordering::Release,
        _ => Ordering::Relaxed,
    }
}

fn swapping(order: Ordering) -> Ordering {
    access();
    assert_ne!(order, Ordering::SeqCst, "nothing stands for it here");
    match order {
        Ordering::AcqRel if is_broken(Break::Acquire) => Ordering::Release,
        Ordering::AcqRel if is_broken(Break::Release) => Ordering::Acquire,
        Ordering::Acquire if is_broken(Break::Acquire) => Ordering::Relaxed,
        Ordering::Release if is_broken(Break::Release) => Ordering::Relaxed,
        order => order,
    }
}

pub(crate) fn fence(order: Ordering) {
    take_turn();
    if !is_broken(Break::Fence) {
        loom::sync::atomic::fence(order);
    }
}

pub(crate) struct AtomicU64 {
    word: loom::sync::atomic::AtomicU64,
    writers: Writers,
}

/// How many sides write a word.
///
/// A swap comes right after the store that it reads, so what the thread of that store stores next comes
/// after the swap. Loom does not see that, and would have loads return what no machine does; but it
/// keeps swaps in order. So a store is a swap where both sides write, which is of words by which
/// nobody learns of other words.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Writers {
    One,
    Both,
}

impl fmt::Debug for AtomicU64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AtomicU64")
    }
}

impl AtomicU64 {
    pub(crate) fn new(writers: Writers) -> Self {
        Self { word: loom::sync::atomic::AtomicU64::new(0), writers }
    }

    pub(crate) fn load(&self, order: Ordering) -> u64 {
        self.word.load(loading(order))
    }

    pub(crate) fn store(&self, value: u64, order: Ordering) {
        let order = storing(order);
        if value == 0 && is_broken(Break::Wipe) {
            return;
        }
        match self.writers {
            Writers::One => self.word.store(value, order),
            Writers::Both => drop(self.word.swap(value, order)),
        }
    }

    pub(crate) fn swap(&self, value: u64, order: Ordering) -> u64 {
        self.word.swap(value, swapping(order))
    }

    pub(crate) fn fetch_or(&self, bits: u64, order: Ordering) -> u64 {
        self.word.fetch_or(bits, swapping(order))
    }

    pub(crate) fn compare_exchange_weak(
        &self,
        from: u64,
        to: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        if is_broken(Break::Swap) {
            let found = self.load(failure);
            if found != from {
                return Err(found);
            }
            self.store(to, Ordering::Release);
            return Ok(found);
        }
        self.word.compare_exchange_weak(from, to, swapping(success), failure)
    }

    /// What the kernel reads, behind its lock.
    pub(crate) fn peek(&self) -> u64 {
        self.word.load(Ordering::Relaxed)
    }
}
