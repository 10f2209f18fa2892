//! A gate between processes: tasks wait at it, so a test knows that they have begun, and decides
//! when they go on.

use std::fs::{Permissions, set_permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process;

use nix::unistd::Pid;
use tempfile::TempDir;

/// The side of the one who decides. Dropping it opens the gate for good.
#[derive(Debug)]
pub struct Gate {
    listener: UnixListener,
    waiting: Vec<UnixStream>,
    directory: TempDir,
}

impl Gate {
    /// A gate that is closed.
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("gate")).unwrap();
        Self { listener, waiting: Vec::new(), directory }
    }

    /// What a task needs to find the gate.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("gate")
    }

    /// Lets everybody stand at the gate, also another user.
    pub fn admit_everybody(&self) {
        for path in [self.directory.path(), &self.path()] {
            set_permissions(path, Permissions::from_mode(0o777)).unwrap();
        }
    }

    /// Waits until one more process stands at the gate: its pid.
    pub fn wait(&mut self) -> Pid {
        let (mut stream, _) = self.listener.accept().unwrap();
        let mut pid = [0; 4];
        stream.read_exact(&mut pid).unwrap();
        self.waiting.push(stream);
        Pid::from_raw(i32::from_le_bytes(pid))
    }

    /// Waits until `count` more stand at the gate, each in a process of its own: their pids.
    pub fn wait_for(&mut self, count: usize) -> Vec<Pid> {
        let pids: Vec<_> = (0..count).map(|_| self.wait()).collect();
        let mut distinct = pids.clone();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), count, "one process stands at the gate twice");
        pids
    }

    /// Lets those go on who stand at the gate. It stays closed for those who come later.
    pub fn open_once(&mut self) {
        self.waiting.clear();
    }

    /// Lets one go on who stands at the gate: the how manieth that came, of those that still stand.
    pub fn open_for(&mut self, position: usize) {
        drop(self.waiting.remove(position));
    }

    /// Waits at the gate of that path until it is opened. One that is gone is open.
    pub fn pass(path: &Path) {
        let Ok(mut stream) = UnixStream::connect(path) else { return };
        let _ = stream.write_all(&process::id().to_le_bytes());
        // A gate that is dropped before it looked at us resets the connection: open, too.
        let _ = stream.read(&mut [0]);
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}
