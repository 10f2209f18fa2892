//! The watchdog of a case: a hang is a failure of that case, which says where it hangs.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use support::{describe_tree, kill_descendants};

use crate::group::Group;

/// Ends the case when its time is up: whoever waits for it then returns.
#[derive(Debug)]
pub(crate) struct Watchdog {
    calm: Sender<()>,
    thread: JoinHandle<bool>,
}

impl Watchdog {
    /// Gives the case so long.
    pub(crate) fn start(patience: Duration, group: Arc<Group>) -> Self {
        let (calm, bark) = mpsc::channel::<()>();
        let watch = move || {
            let hangs = bark.recv_timeout(patience) == Err(RecvTimeoutError::Timeout);
            if hangs {
                eprintln!("hangs for {patience:?}:\n{}", describe_tree());
            }
            // What is killed may start another just then: again, until the case is over.
            while hangs && bark.recv_timeout(Duration::from_millis(20)).is_err_and(is_timeout) {
                group.kill();
                kill_descendants();
            }
            hangs
        };
        let thread = thread::Builder::new().name("watchdog".to_owned()).spawn(watch).unwrap();
        Self { calm, thread }
    }

    /// The case is over. Whether it had to be ended.
    pub(crate) fn end(self) -> bool {
        drop(self.calm);
        self.thread.join().unwrap()
    }
}

fn is_timeout(error: RecvTimeoutError) -> bool {
    error == RecvTimeoutError::Timeout
}
