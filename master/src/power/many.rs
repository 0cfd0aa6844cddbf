//! The same for many nodes at once, with a bound on how many.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

/// Calls `work` for each item, at most `at_once` at a time, and `done` on the calling thread with what came of it, in
/// the order in which they end.
pub(super) fn each<T: Sync, R: Send>(
    items: &[T],
    at_once: usize,
    work: impl Fn(&T) -> R + Sync,
    mut done: impl FnMut(&T, R),
) {
    let next = AtomicUsize::new(0);
    let (results, ended) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..at_once.clamp(1, items.len().max(1)) {
            let (results, next, work) = (results.clone(), &next, &work);
            scope.spawn(move || {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    // The receiver outlives the threads.
                    let _ = results.send((item, work(item)));
                }
            });
        }
        drop(results);
        for (item, result) in ended {
            done(item, result);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn all_are_done_and_never_more_at_once_than_allowed() {
        let items: Vec<u32> = (0..50).collect();
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let mut seen = Vec::new();
        let work = |item: &u32| {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            thread::sleep(Duration::from_millis(2));
            now.fetch_sub(1, Ordering::SeqCst);
            item * 2
        };
        each(&items, 4, work, |item, twice| seen.push((*item, twice)));
        seen.sort_unstable();
        assert!(seen.iter().map(|(item, _)| item).eq(&items) && seen.iter().all(|(item, twice)| *twice == item * 2));
        assert!((2..=4).contains(&most.into_inner()));
        each(&[] as &[u32], 4, |_| (), |_, ()| panic!("there is nobody"));
    }
}
