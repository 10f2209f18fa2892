//! How many workers this process can make use of.

use std::num::NonZero;
use std::thread;

/// How many workers can run at once here, at least one: as many as this process may use CPUs.
///
/// It reads the CPU affinity of this process and the CPU quotas of its cgroups, those of version 1,
/// of version 2 and of both together; half a CPU is none. Asked anew each time, since all of these may
/// change. It is what the standard library's `available_parallelism` knows.
///
/// # Examples
///
/// ```
/// let pool = epilogue_pool::Pool::new(epilogue_pool::available_workers())?;
/// assert_eq!(pool.submit(1u64, |x| x + 1)?.join()?, 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn available_workers() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}
