//! Small things that tasks of many tests do.

use std::fs;
use std::future::Future;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, CpuSet, sched_getaffinity, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::unistd::Pid;

use epilogue::process::{Builder, Refusal};
use epilogue::{Process, StartError, embed};

use crate::{Gate, Marks, procfs};

/// Never returns. Who is asked to stop ends in here.
pub fn park_for_ever() -> ! {
    loop {
        thread::park();
    }
}

/// Returns its argument when it is let through the gate.
pub fn through<T>((gate, value): (PathBuf, T)) -> T {
    Gate::pass(&gate);
    value
}

/// Leaves the mark `begun`, waits until it is let through the gate or is asked to stop, and leaves a
/// mark of which of them it was: `let through`, or `asked`.
pub fn held((marks, gate): (PathBuf, PathBuf)) {
    let marks = Marks::at(&marks);
    marks.leave("begun");
    let (asked, woken) = mpsc::channel();
    let through = asked.clone();
    embed::on_stop(move |_| asked.send("asked").unwrap_or_default());
    thread::spawn(move || {
        Gate::pass(&gate);
        through.send("let through").unwrap_or_default();
    });
    marks.leave(woken.recv().unwrap());
}

/// Leaves the mark `task`.
pub fn leave_mark(marks: PathBuf) {
    Marks::at(&marks).leave("task");
}

/// The number with as many zeroes before it as make up that length.
pub fn padded(n: usize, len: usize) -> String {
    let digits = n.to_string();
    "0".repeat(len.saturating_sub(digits.len())) + &digits
}

/// A pipe with a name, for tasks that wait for each other: opening one end waits for the other.
pub fn fifo(directory: &Path, name: &str) -> PathBuf {
    let path = directory.join(name);
    nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
    path
}

/// Leaves this process no cgroup for a tree of processes, so that a process group has to do.
pub fn hide_cgroups() -> nix::Result<()> {
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(Some("tmpfs"), "/sys/fs/cgroup", Some("tmpfs"), MsFlags::empty(), none)
}

/// Has the kernel swap nothing out of a cgroup that limits memory to so many bytes: it would go on from there, and
/// not run out of memory. Whether nothing will be.
#[must_use]
pub fn forbid_swap(group: &Path, bytes: u64) -> bool {
    // Of the newer version, for swap alone, and of the older, for both.
    let files = [("memory.swap.max", 0), ("memory.memsw.limit_in_bytes", bytes)];
    let set = |(file, value): (&str, u64)| fs::write(group.join(file), value.to_string()).is_ok();
    // Below its title it lists what there is.
    let is_there =
        || fs::read_to_string("/proc/swaps").is_ok_and(|swaps| swaps.lines().count() > 1);
    files.into_iter().any(set) || !is_there()
}

/// The nice value of this process.
pub fn nice() -> i32 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    stat.rsplit(')').next().unwrap().split_whitespace().nth(16).unwrap().parse().unwrap()
}

/// One that anybody may set, however the tests were started: higher than ours, if there is a higher.
pub fn nicer() -> i32 {
    19.min(nice() + 1)
}

/// The CPUs that this process may run on.
pub fn cpus() -> Vec<usize> {
    let ours = sched_getaffinity(Pid::from_raw(0)).unwrap();
    (0..CpuSet::count()).filter(|&cpu| ours.is_set(cpu).unwrap()).collect()
}

/// Stops a process, and waits until all of its threads are.
pub fn stop(pid: Pid) {
    kill(pid, Signal::SIGSTOP).unwrap();
    while procfs::threads_of(pid).iter().any(|thread| thread.state != 'T') {
        thread::yield_now();
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a future without a runtime.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

/// More than a socket's buffer holds.
pub const LARGE: usize = 8 << 20;

/// A value of that length.
pub fn large(length: usize) -> Vec<u8> {
    vec![7; length]
}

/// A process that stands at the gate.
#[track_caller]
pub fn waiting(gate: &mut Gate) -> Process<u32> {
    let process = Process::start((gate.path(), 7), through).unwrap();
    assert_eq!(gate.wait().as_raw() as u32, process.id());
    process
}

/// A process that does nothing for ever.
pub fn parked() -> Process<u32> {
    Process::start((), |()| park_for_ever()).unwrap()
}

/// Waits until the process of that descriptor has ended.
pub fn await_end(fd: &impl AsFd) {
    poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE).unwrap();
}

/// Waits in vain for `timeout`, and asserts that it had passed.
#[track_caller]
pub fn never_early(process: &mut Process<u32>, timeout: Duration) {
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::empty()).unwrap();
    let expiration = Expiration::OneShot(TimeSpec::from_duration(timeout));
    timer.set(expiration, TimerSetTimeFlags::empty()).unwrap();
    assert_eq!(process.join_timeout(timeout).unwrap(), None);
    let mut fds = [PollFd::new(timer.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut fds, PollTimeout::ZERO), Ok(1), "it returned before {timeout:?}");
}

/// Polls once, in vain.
pub fn poll_once<F: Future + Unpin>(future: &mut F) {
    let polled = Pin::new(future).poll(&mut Context::from_waker(Waker::noop()));
    assert!(polled.is_pending());
}

/// Why a process was not started. Its function must not have been called.
#[track_caller]
pub fn refused(builder: Builder) -> StartError {
    let marks = Marks::new();
    let directory = marks.variable().1.to_owned();
    let call = |directory: PathBuf| Marks::at(&directory).leave("called");
    let error = builder.start(directory, call).map(|process| process.id()).unwrap_err();
    assert_eq!(marks.count("called"), 0);
    error
}

/// The step that a child could not take.
#[track_caller]
pub fn refused_step(builder: Builder) -> String {
    match refused(builder) {
        StartError::Refused(Refusal::Step { step, error }) => {
            assert!(!error.is_empty());
            step
        }
        other => panic!("{other:?}"),
    }
}

/// How many files of shared memory have a name on this machine. Directories are of another test,
/// as may run at the same time: no library leaves one there.
#[must_use]
pub fn named_in_shm() -> usize {
    let entries = fs::read_dir("/dev/shm").into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| !kind.is_dir())).count()
}
