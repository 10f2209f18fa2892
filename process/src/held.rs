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
    use super::*;

    #[test]
    fn who_has_the_lock_is_waited_for_until_then_and_no_longer() {
        let mutex = Mutex::new(1);
        let held = mutex.lock().unwrap();
        assert!(thread::scope(|scope| {
            let waits = scope.spawn(|| lock_until(&mutex, Instant::now() + TURN).is_none());
            waits.join().unwrap()
        }));
        let late = Instant::now() + Duration::from_secs(3600);
        thread::scope(|scope| {
            let waits = scope.spawn(|| lock_until(&mutex, late).map(|value| *value));
            drop(held);
            assert_eq!(waits.join().unwrap(), Some(1));
        });
    }
}
