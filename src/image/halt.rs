//! Ends the waits of several threads at once.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::pipe::Gone;

/// Set once, when what is waited for is no longer wanted.
#[derive(Debug, Default)]
pub(super) struct Halt {
    over: Mutex<bool>,
    changed: Condvar,
}

impl Halt {
    /// Ends every wait, now and from now on.
    pub(super) fn set(&self) {
        *self.over.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Whether it goes on.
    ///
    /// # Errors
    /// It was set.
    pub(super) fn check(&self) -> Result<(), Gone> {
        if *self.over.lock().unwrap_or_else(PoisonError::into_inner) { Err(Gone) } else { Ok(()) }
    }

    /// Sleeps, but not after [`Halt::set`].
    ///
    /// # Errors
    /// It was set.
    pub(super) fn sleep(&self, time: Duration) -> Result<(), Gone> {
        let over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        let (over, _) =
            self.changed.wait_timeout_while(over, time, |over| !*over).unwrap_or_else(PoisonError::into_inner);
        if *over { Err(Gone) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_when_it_is_set() {
        let halt = Halt::default();
        assert_eq!(halt.check(), Ok(()));
        assert_eq!(halt.sleep(Duration::from_millis(1)), Ok(()));
        std::thread::scope(|scope| {
            let slept = scope.spawn(|| halt.sleep(Duration::from_secs(600)));
            halt.set();
            assert_eq!(slept.join().unwrap(), Err(Gone));
        });
        assert_eq!(halt.sleep(Duration::from_secs(600)), Err(Gone));
        assert_eq!(halt.check(), Err(Gone));
    }
}
