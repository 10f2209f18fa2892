//! Small things that tasks of many tests do.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::Pid;

use crate::{Gate, procfs};

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
