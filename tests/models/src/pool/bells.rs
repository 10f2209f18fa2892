//! Descriptors that ring, and `poll`: each is `/dev/null`, which serves as a name.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use crate::sync::{Condvar, Mutex};

type Rung = (Mutex<HashSet<RawFd>>, Condvar);

thread_local! {
    /// Of this schedule: all its threads are one to the system.
    static RUNG: RefCell<Arc<Rung>> = RefCell::new(Arc::default());
}

pub fn begin() {
    RUNG.set(Arc::default());
}

fn rung() -> Arc<Rung> {
    RUNG.with_borrow(Arc::clone)
}

#[derive(Debug, Clone)]
pub struct Bell(pub Arc<OwnedFd>);

impl Bell {
    pub fn new() -> Self {
        let fd: OwnedFd = File::open("/dev/null").unwrap().into();
        // One that is gone may have had this name, and rung.
        rung().0.lock().unwrap().remove(&fd.as_raw_fd());
        Self(Arc::new(fd))
    }

    pub fn ring(&self) {
        let rung = rung();
        rung.0.lock().unwrap().insert(self.0.as_raw_fd());
        rung.1.notify_all();
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

pub mod poll {
    use std::cell::Cell;
    use std::os::fd::{AsFd, BorrowedFd};

    pub struct PollFlags;

    impl PollFlags {
        pub const POLLIN: Self = Self;
    }

    pub struct PollFd<'a> {
        fd: BorrowedFd<'a>,
        pub(super) has_rung: Cell<bool>,
    }

    impl<'a> PollFd<'a> {
        pub fn new(fd: BorrowedFd<'a>, _: PollFlags) -> Self {
            Self { fd, has_rung: Cell::new(false) }
        }

        /// Whether it has rung.
        pub fn any(&self) -> Option<bool> {
            Some(self.has_rung.get())
        }
    }

    impl AsFd for PollFd<'_> {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.fd
        }
    }
}

pub mod bell {
    use std::os::fd::{AsRawFd, BorrowedFd};

    pub fn silence(fd: BorrowedFd<'_>) {
        super::rung().0.lock().unwrap().remove(&fd.as_raw_fd());
    }
}

pub mod child {
    use std::os::fd::{AsFd, AsRawFd};
    use std::time::Instant;

    use super::poll::PollFd;

    pub fn wait_for(fds: &mut [PollFd<'_>], _: Option<Instant>) -> bool {
        let rung = super::rung();
        let mut set = rung.0.lock().unwrap();
        loop {
            for fd in &*fds {
                fd.has_rung.set(set.contains(&fd.as_fd().as_raw_fd()));
            }
            if fds.iter().any(|fd| fd.has_rung.get()) {
                return true;
            }
            set = rung.1.wait(set).unwrap();
        }
    }
}
