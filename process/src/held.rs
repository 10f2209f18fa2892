//! Locks that may be held for longer than there is time to wait.

use std::sync::{Mutex, MutexGuard, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

/// When it is looked again whether somebody still has the lock.
const TURN: Duration = Duration::from_millis(1);

/// Locks it, poisoned or not; none if somebody else still has it then.
pub(crate) fn lock_until<T>(mutex: &Mutex<T>, until: Instant) -> Option<MutexGuard<'_, T>> {
    loop {
        match mutex.try_lock() {
            Ok(guard) => return Some(guard),
            Err(TryLockError::Poisoned(guard)) => return Some(guard.into_inner()),
            Err(TryLockError::WouldBlock) if until <= Instant::now() => return None,
            Err(TryLockError::WouldBlock) => thread::sleep(TURN),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::atomic::{AtomicI32, Ordering};

    use nix::unistd::gettid;

    use super::*;

    #[test]
    fn who_has_the_lock_is_waited_for_until_then_and_no_longer() {
        let mutex = Mutex::new(1);
        let held = mutex.lock().unwrap();
        let soon = Instant::now() + TURN;
        thread::scope(|scope| {
            let waits = scope.spawn(|| lock_until(&mutex, soon).is_none());
            assert!(waits.join().unwrap());
            assert!(soon <= Instant::now(), "it was not waited for");
        });
        let (late, thread) = (Instant::now() + Duration::from_secs(3600), AtomicI32::new(0));
        thread::scope(|scope| {
            let waits = scope.spawn(|| {
                thread.store(gettid().as_raw(), Ordering::Release);
                lock_until(&mutex, late).map(|value| *value)
            });
            // It sleeps nowhere but where it has found the lock taken.
            while !waits.is_finished() && !sleeps(thread.load(Ordering::Acquire)) {
                thread::yield_now();
            }
            drop(held);
            assert_eq!(waits.join().unwrap(), Some(1));
        });
    }

    fn sleeps(thread: i32) -> bool {
        let stat = fs::read_to_string(format!("/proc/self/task/{thread}/stat"));
        stat.is_ok_and(|stat| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('S')))
    }
}
