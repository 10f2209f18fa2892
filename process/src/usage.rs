//! What a process has used of the machine.

use std::fmt;
use std::fs;
use std::io::Read;
use std::time::Duration;

/// What a process has used, with those of its own children that it has waited for.
///
/// # Examples
///
/// ```
/// use epilogue_process::Process;
///
/// let process = Process::start((), |()| std::thread::park())?;
/// let usage = process.terminate()?.usage.unwrap_or_default();
/// assert!(usage.user + usage.system < std::time::Duration::from_secs(60));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// CPU time in its own code.
    pub user: Duration,
    /// CPU time that the kernel worked for it.
    pub system: Duration,
    /// The most memory that it had resident at once, in bytes, as it says itself. If it was killed
    /// before it could, or its sandbox does not let it look, this is what the kernel says; or None
    /// if that is not more than this process had, since the kernel begins to count with the memory
    /// of whoever starts a process (`exec_mmap` in `fs/exec.c`).
    pub peak_memory: Option<u64>,
}

impl Usage {
    /// Takes in what another process has used: the times add up, the larger peak counts.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut total = epilogue_process::Usage::default();
    /// total.add(&epilogue_process::Usage::default());
    /// assert_eq!(total, epilogue_process::Usage::default());
    /// ```
    pub fn add(&mut self, other: &Self) {
        self.user += other.user;
        self.system += other.system;
        self.peak_memory = self.peak_memory.max(other.peak_memory);
    }

    /// What the kernel says of a child that has ended.
    pub(crate) fn of(child: &libc::rusage) -> Self {
        let peak = kilobytes(child);
        // Ours only ever grows, so it was not larger as the child was started.
        let is_its_own = own_peak().is_some_and(|own| peak > own);
        Self {
            user: time(child.ru_utime),
            system: time(child.ru_stime),
            peak_memory: is_its_own.then_some(peak * 1024),
        }
    }
}

fn kilobytes(usage: &libc::rusage) -> u64 {
    u64::try_from(usage.ru_maxrss).unwrap_or_default()
}

fn time(time: libc::timeval) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::from_secs(seconds)
        + Duration::from_micros(u64::try_from(time.tv_usec).unwrap_or_default())
}

/// What the kernel counted as the peak of this process before it was one of ours, in kilobytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inherited(u64);

impl Inherited {
    /// Of one that was forked: what it has is its own from the beginning.
    pub(crate) const NOTHING: Self = Self(0);

    /// Of one that was spawned, which counts from what its parent had; see [`Usage`]. Called as it
    /// begins.
    pub(crate) fn by_exec() -> Self {
        Self(own_peak().unwrap_or(u64::MAX))
    }
}

fn own_peak() -> Option<u64> {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF);
    usage.ok().map(|usage| kilobytes(usage.as_ref()))
}

/// The most memory that this process had resident at once, in bytes, since it became this program.
/// None in a sandbox that keeps `/proc` from it, if its parent had more.
pub(crate) fn peak_memory(inherited: Inherited) -> Option<u64> {
    // The file takes as long to make up and to read as all the rest of a goodbye.
    let counted = own_peak().filter(|peak| *peak > inherited.0);
    counted.or_else(high_water_mark).map(|kilobytes| kilobytes * 1024)
}

fn high_water_mark() -> Option<u64> {
    let mut status = Vec::with_capacity(4096);
    // Without a limit the file would be asked for its length, which it does not know.
    fs::File::open("/proc/self/status").ok()?.take(1 << 20).read_to_end(&mut status).ok()?;
    let status = str::from_utf8(&status).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user, system, peak_memory } = self;
        write!(f, "CPU {:.3} s user, {:.3} s system", user.as_secs_f64(), system.as_secs_f64())?;
        match peak_memory {
            Some(bytes) => write!(f, ", peak memory {:.1} MiB", *bytes as f64 / (1 << 20) as f64),
            None => Ok(()),
        }
    }
}
