//! The doorbell of a worker, as a hostile one uses it: a counter that its parent waits for, which both
//! may read and write, and whose flags are those of both.

use std::fs;
use std::hint::spin_loop;
use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::process::parent_id;
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::write;
use support::park_for_ever;

use crate::sys;

/// All bells of this process: the doorbell is one of them. A process that is no worker has none.
fn bells() -> Vec<BorrowedFd<'static>> {
    let is_bell = |fd: &RawFd| {
        let link = fs::read_link(format!("/proc/self/fd/{fd}"));
        link.is_ok_and(|link| link.as_os_str() == "anon_inode:[eventfd]")
    };
    (3..64).filter(is_bell).map(sys::borrow_for_ever).collect()
}

/// The most that a counter holds.
const FULL: u64 = u64::MAX - 1;

pub(super) fn ring_without_end() {
    let bells = bells();
    while !bells.is_empty() {
        for bell in &bells {
            // One of them is right, whatever it holds.
            let _ = write(bell, &FULL.to_ne_bytes());
            let _ = write(bell, &1u64.to_ne_bytes());
        }
    }
}

/// Once a thread of the parent waits in such a read, nothing rings any more.
pub(super) fn steal() {
    let bells = bells();
    for bell in &bells {
        fcntl(bell, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
    }
    for round in 0u32.. {
        if bells.is_empty() {
            return;
        }
        for bell in &bells {
            let _ = write(bell, &1u64.to_ne_bytes());
            // Between the moment at which its parent is woken and that at which it reads.
            let (begun, wait) = (Instant::now(), Duration::from_micros(u64::from(round % 60)));
            while begun.elapsed() < wait {
                spin_loop();
            }
            sys::take_now(*bell);
        }
        thread::sleep(Duration::from_micros(200));
        if parent_waits() {
            park_for_ever();
        }
    }
}

/// Whether one of its threads is in a read. One that runs has no call there.
fn parent_waits() -> bool {
    let read = format!("{} ", libc::SYS_read);
    calls_of_parent().any(|call| call.is_ok_and(|call| call.starts_with(&read)))
}

/// Whether it can be seen at all in which calls they are: without that, [`steal`] steals for nothing.
pub(super) fn sees_parent(_: ()) -> bool {
    calls_of_parent().any(|call| call.is_ok())
}

fn calls_of_parent() -> impl Iterator<Item = io::Result<String>> {
    let threads = fs::read_dir(format!("/proc/{}/task", parent_id())).into_iter().flatten();
    threads.flatten().map(|thread| fs::read_to_string(thread.path().join("syscall")))
}
