//! How much memory a child has taken since it was up: it looks for itself, after a call.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::unistd::{SysconfVar, sysconf};

/// What was taken for a state that stays: no growth.
static STAYS: AtomicU64 = AtomicU64::new(0);

/// Bounds what a child may take.
#[derive(Debug)]
pub(crate) enum Growth {
    Any,
    /// Up to so many bytes; as the first call comes, it is noted how many there are.
    Bounded(u64),
    Watched {
        most: u64,
        /// When it was last looked.
        at: Instant,
    },
    /// It has been told.
    Beyond,
}

impl Growth {
    /// To look costs a few microseconds: many tasks take less.
    const PAUSE: Duration = Duration::from_millis(1);

    pub(crate) fn new(most: Option<u64>) -> Self {
        most.map_or(Self::Any, Self::Bounded)
    }

    /// The child is up, and begins to serve.
    pub(crate) fn begin(&mut self) {
        if let Self::Bounded(growth) = self
            && let Some(before) = private_memory()
        {
            *self = Self::Watched { most: before.saturating_add(*growth), at: Instant::now() };
        }
    }

    /// Whether a child that has done a call has grown too much, once.
    #[inline]
    pub(crate) fn is_beyond(&mut self) -> bool {
        match self {
            Self::Any | Self::Bounded(_) | Self::Beyond => false,
            Self::Watched { at, .. } if at.elapsed() < Self::PAUSE => false,
            Self::Watched { most, at } => {
                *at = Instant::now();
                let most = most.saturating_add(STAYS.load(Ordering::Relaxed));
                let is_beyond = private_memory().is_some_and(|now| now > most);
                if is_beyond {
                    *self = Self::Beyond;
                }
                is_beyond
            }
        }
    }
}

/// Calls `build`, and takes what it has left in memory for no growth.
pub(crate) fn except<T>(build: impl FnOnce() -> T) -> T {
    let before = private_memory();
    let built = build();
    if let (Some(before), Some(now)) = (before, private_memory()) {
        STAYS.fetch_add(now.saturating_sub(before), Ordering::Relaxed);
    }
    built
}

/// What this process has resident and shares with no file, in bytes.
fn private_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/statm").ok()?;
    let mut pages = text.split_ascii_whitespace().skip(1).map(str::parse::<u64>);
    let (resident, shared) = (pages.next()?.ok()?, pages.next()?.ok()?);
    let page = u64::try_from(sysconf(SysconfVar::PAGE_SIZE).ok()??).ok()?;
    Some(resident.saturating_sub(shared) * page)
}
