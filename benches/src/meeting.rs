//! A place where all workers are at the same time: two FIFOs. Each worker writes a byte to one,
//! and waits for a byte from the other.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::PathBuf;

use nix::sys::stat::Mode;

use crate::sys::process::set_variable;

/// Tells the workers, which inherit it, where they meet.
const PLACE: &str = "BENCHES_MEETING";

/// The side of who waits for all. Made before anything is started; gone when dropped.
pub(crate) struct Meeting {
    ready: File,
    go: File,
    _dir: tempfile::TempDir,
}

impl Meeting {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("meeting.").tempdir().expect("a directory");
        set_variable(PLACE, dir.path().as_os_str());
        let open = |name| {
            let path = dir.path().join(name);
            nix::unistd::mkfifo(&path, Mode::S_IRWXU).expect("a FIFO");
            // Both ways, so that it opens before anybody is there.
            OpenOptions::new().read(true).write(true).open(path).expect("our own FIFO")
        };
        Self { ready: open("ready"), go: open("go"), _dir: dir }
    }

    /// Waits until `n` workers are there, calls `then`, and lets them go on.
    pub(crate) fn hold(&mut self, n: usize, then: impl FnOnce()) {
        self.ready.read_exact(&mut vec![0; n]).expect("a byte of each");
        then();
        self.go.write_all(&vec![1; n]).expect("a byte for each");
    }
}

/// The side of a worker.
pub(crate) fn attend() {
    let dir = PathBuf::from(std::env::var_os(PLACE).expect("a meeting was called"));
    let mut ready = OpenOptions::new().write(true).open(dir.join("ready")).expect("the FIFO");
    // Before the byte that says so: after it the directory may be gone.
    let mut go = File::open(dir.join("go")).expect("the FIFO");
    ready.write_all(&[1]).expect("somebody who reads");
    go.read_exact(&mut [0]).expect("somebody who writes");
}
