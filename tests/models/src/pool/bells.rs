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

pub(crate) fn begin() {
    RUNG.set(Arc::default());
}

fn rung() -> Arc<Rung> {
    RUNG.with_borrow(Arc::clone)
}

#[derive(Debug, Clone)]
pub(crate) struct Bell(pub(crate) Arc<OwnedFd>);

impl Bell {
    pub(crate) fn new() -> Self {
        Self(Arc::new(File::open("/dev/null").unwrap().into()))
    }

    pub(crate) fn ring(&self) {
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

/// Sleeps until one of them rings, and silences those that did.
pub(crate) fn wait(bells: &[&Bell]) {
    let mut fds: Vec<_> =
        bells.iter().map(|bell| poll::PollFd::new(bell.as_fd(), poll::PollFlags::POLLIN)).collect();
    child::wait_for(&mut fds, None);
    for fd in &fds {
        bell::silence(fd.as_fd());
    }
}

pub(crate) mod poll {
    use std::os::fd::{AsFd, BorrowedFd};

    pub(crate) struct PollFlags;

    impl PollFlags {
        pub(crate) const POLLIN: Self = Self;
    }

    pub(crate) struct PollFd<'a>(BorrowedFd<'a>);

    impl<'a> PollFd<'a> {
        pub(crate) fn new(fd: BorrowedFd<'a>, _: PollFlags) -> Self {
            Self(fd)
        }

        /// To read from each is allowed.
        pub(crate) fn any(&self) -> Option<bool> {
            None
        }
    }

    impl AsFd for PollFd<'_> {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.0
        }
    }
}

pub(crate) mod bell {
    use std::os::fd::{AsRawFd, BorrowedFd};

    pub(crate) fn silence(fd: BorrowedFd<'_>) {
        super::rung().0.lock().unwrap().remove(&fd.as_raw_fd());
    }
}

pub(crate) mod child {
    use std::os::fd::{AsFd, AsRawFd};
    use std::time::Instant;

    use super::poll::PollFd;

    pub(crate) fn wait_for(fds: &mut [PollFd<'_>], _: Option<Instant>) -> bool {
        let rung = super::rung();
        let mut set = rung.0.lock().unwrap();
        while !fds.iter().any(|fd| set.contains(&fd.as_fd().as_raw_fd())) {
            set = rung.1.wait(set).unwrap();
        }
        true
    }
}
