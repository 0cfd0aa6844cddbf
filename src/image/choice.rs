//! Which mirror is asked next. No I/O, no clock, no random numbers: times are since any fixed moment.

use std::cmp::Reverse;
use std::time::Duration;

/// Failures in a row after which a mirror may be gone for good: it is not waited for alone any more while there is one
/// that brought damage once, which may have happened on the way.
const GONE: u32 = 4;

/// What is known about one mirror.
#[derive(Clone, Debug, Default)]
struct Mirror {
    /// Not to be asked before this.
    ready: Duration,
    /// It said itself when to come back.
    queued: bool,
    /// Failures since it last brought something worthwhile.
    vain: u32,
    /// No further try can help.
    given_up: bool,
    /// Bytes per second, once measured.
    rate: Option<u64>,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pick {
    /// Ask this mirror.
    Now(usize),
    /// Wait until then, and pick again.
    Wait(Duration),
    /// Every mirror is given up.
    Nobody,
}

/// The mirrors and how they did.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    mirrors: Vec<Mirror>,
    /// The one that is kept as long as it does well.
    current: usize,
}

impl Choice {
    /// `random` decides where to begin, so that nodes spread over the mirrors.
    pub(super) fn new(count: usize, random: u64) -> Self {
        let start = usize::try_from(random % (count.max(1) as u64)).unwrap_or(0);
        Self { mirrors: vec![Mirror::default(); count], current: start }
    }

    /// The next mirror of those that `allowed` names: the current one while it does well, otherwise the one with the
    /// fewest failures, the fastest of them, where one that was never measured counts as fast. Those in `avoid` brought
    /// damage, each as often as it is there: the others are waited for, even if they rest.
    pub(super) fn pick(&self, now: Duration, allowed: impl Fn(usize) -> bool, avoid: &[usize]) -> Pick {
        let usable = |(index, mirror): &(usize, &Mirror)| !mirror.given_up && allowed(*index);
        let count = self.mirrors.len();
        let rank = |(index, mirror): &(usize, &Mirror)| {
            let kept = *index == self.current && mirror.vain == 0;
            let distance = (index + count - self.current) % count.max(1);
            (mirror.vain, !kept, Reverse(mirror.rate.unwrap_or(u64::MAX)), distance)
        };
        let usable = || self.mirrors.iter().enumerate().filter(usable);
        let class = |(index, mirror): &(usize, &Mirror)| match avoid.iter().filter(|avoided| *avoided == index).count()
        {
            0 if avoid.is_empty() || mirror.vain < GONE => 0,
            1 => 1,
            0 => 2,
            _ => 3,
        };
        let best = usable().map(|mirror| class(&mirror)).min();
        let usable = || usable().filter(|mirror| Some(class(mirror)) == best);
        let ready = usable().filter(|(_, mirror)| mirror.ready <= now).min_by_key(rank);
        match (ready, usable().map(|(_, mirror)| mirror.ready).min()) {
            (Some((index, _)), _) => Pick::Now(index),
            (None, Some(time)) => Pick::Wait(time),
            (None, None) => Pick::Nobody,
        }
    }

    /// It is being asked, and stays the current one.
    pub(super) fn begin(&mut self, index: usize) {
        self.current = index;
    }

    /// It brought something worthwhile.
    pub(super) fn worked(&mut self, index: usize) {
        if let Some(mirror) = self.mirrors.get_mut(index) {
            mirror.vain = 0;
            mirror.queued = false;
        }
    }

    /// It failed; `queued`: it said when to come back. Returns how often it has since it last worked.
    pub(super) fn failed(&mut self, index: usize, queued: bool) -> u32 {
        self.mirrors.get_mut(index).map_or(1, |mirror| {
            mirror.queued = queued;
            mirror.vain = mirror.vain.saturating_add(1);
            mirror.vain
        })
    }

    /// Whether one of those that `allowed` names said when to come back: what is waited for is its queue.
    pub(super) fn is_queued(&self, allowed: impl Fn(usize) -> bool) -> bool {
        self.mirrors.iter().enumerate().any(|(index, mirror)| mirror.queued && !mirror.given_up && allowed(index))
    }

    /// It is not asked before `time`.
    pub(super) fn rest(&mut self, index: usize, time: Duration) {
        if let Some(mirror) = self.mirrors.get_mut(index) {
            mirror.ready = mirror.ready.max(time);
        }
    }

    /// Its speed was measured, in bytes per second.
    pub(super) fn measured(&mut self, index: usize, rate: u64) {
        if let Some(mirror) = self.mirrors.get_mut(index) {
            mirror.rate = Some(rate);
        }
    }

    /// Its speed when it was last measured.
    pub(super) fn rate(&self, index: usize) -> Option<u64> {
        self.mirrors.get(index)?.rate
    }

    /// The mirror that promises to be faster than this one: one that was never measured, or was half as fast again.
    pub(super) fn faster(&self, than: usize, now: Duration, allowed: impl Fn(usize) -> bool) -> Option<usize> {
        let count = self.mirrors.len();
        let rate = self.rate(than)?;
        let promises = |(index, mirror): &(usize, &Mirror)| {
            let usable = *index != than && !mirror.given_up && mirror.vain == 0 && mirror.ready <= now;
            usable && allowed(*index) && mirror.rate.is_none_or(|other| other / 3 > rate / 2)
        };
        let rank = |(index, mirror): &(usize, &Mirror)| {
            (Reverse(mirror.rate.unwrap_or(u64::MAX)), (index + count - than) % count.max(1))
        };
        self.mirrors.iter().enumerate().filter(promises).min_by_key(rank).map(|(index, _)| index)
    }

    /// Whether it may be asked again.
    pub(super) fn is_left(&self, index: usize) -> bool {
        self.mirrors.get(index).is_some_and(|mirror| !mirror.given_up)
    }

    /// Whether any mirror is left.
    pub(super) fn any_left(&self) -> bool {
        self.mirrors.iter().any(|mirror| !mirror.given_up)
    }

    /// Whether any other mirror is left.
    pub(super) fn any_other(&self, than: usize) -> bool {
        self.mirrors.iter().enumerate().any(|(index, mirror)| index != than && !mirror.given_up)
    }

    /// It is never asked again.
    pub(super) fn give_up(&mut self, index: usize) {
        if let Some(mirror) = self.mirrors.get_mut(index) {
            mirror.given_up = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn pick(choice: &Choice, now: Duration) -> Pick {
        choice.pick(now, |_| true, &[])
    }

    #[test]
    fn nodes_spread_and_stay() {
        for random in 0..7 {
            let choice = Choice::new(3, random);
            assert_eq!(pick(&choice, SECOND), Pick::Now(random as usize % 3));
        }
        assert_eq!(pick(&Choice::new(0, 5), SECOND), Pick::Nobody);
    }

    // F18-20, F22
    #[test]
    fn a_mirror_that_fails_rests_while_the_others_are_asked() {
        let mut choice = Choice::new(3, 0);
        for (index, rest) in [(0, 9), (1, 4), (2, 6)] {
            assert_eq!(pick(&choice, SECOND), Pick::Now(index));
            choice.begin(index);
            assert_eq!(choice.failed(index, false), 1);
            choice.rest(index, rest * SECOND);
        }
        assert_eq!(pick(&choice, SECOND), Pick::Wait(4 * SECOND));
        assert_eq!(pick(&choice, 4 * SECOND), Pick::Now(1));
        choice.begin(1);
        choice.worked(1);
        assert_eq!(pick(&choice, 60 * SECOND), Pick::Now(1), "kept while it does well");
    }

    // F22
    #[test]
    fn a_queue_is_one_until_that_mirror_answers_otherwise() {
        let mut choice = Choice::new(3, 0);
        let queued = |choice: &Choice| choice.is_queued(|index| index < 2);
        choice.failed(0, false);
        choice.failed(2, true);
        assert!(!queued(&choice), "nobody asked that one");
        choice.failed(1, true);
        choice.failed(0, false);
        assert!(queued(&choice), "whatever becomes of the others");
        choice.worked(1);
        assert!(!queued(&choice));
        choice.failed(1, true);
        choice.failed(1, false);
        assert!(!queued(&choice));
        choice.failed(1, true);
        choice.give_up(1);
        assert!(!queued(&choice));
    }

    #[test]
    fn each_mirror_is_tried_once_and_left_for_a_faster_one_only() {
        let mut choice = Choice::new(4, 0);
        choice.give_up(3);
        let faster = |choice: &Choice, than| choice.faster(than, SECOND, |_| true);
        assert_eq!(faster(&choice, 0), None, "not measured yet");
        choice.measured(0, 1000);
        assert_eq!(faster(&choice, 0), Some(1));
        choice.measured(1, 1400);
        assert_eq!(faster(&choice, 1), Some(2));
        choice.measured(2, 100);
        assert_eq!(faster(&choice, 2), Some(1));
        assert_eq!(faster(&choice, 1), None);
        assert_eq!(faster(&choice, 0), None, "not worth the change");
        choice.measured(0, 900);
        assert_eq!(faster(&choice, 0), Some(1));
        assert_eq!(choice.faster(0, SECOND, |index| index != 1), None);
        choice.failed(1, false);
        assert_eq!(faster(&choice, 0), None, "nor when it failed");
    }

    // F33
    #[test]
    fn a_mirror_that_rests_is_waited_for_rather_than_one_that_brought_damage() {
        let mut choice = Choice::new(2, 0);
        let pick = |choice: &Choice, avoid: &[usize]| choice.pick(SECOND, |_| true, avoid);
        choice.rest(1, 9 * SECOND);
        assert_eq!(pick(&choice, &[]), Pick::Now(0));
        assert_eq!(pick(&choice, &[0]), Pick::Wait(9 * SECOND));
        (0..GONE).for_each(|_| _ = choice.failed(1, false));
        assert_eq!(pick(&choice, &[0]), Pick::Now(0), "the other may be gone, and the damage was none of the server's");
        assert_eq!(pick(&choice, &[0, 0]), Pick::Wait(9 * SECOND), "it was");
        choice.give_up(1);
        assert_eq!(pick(&choice, &[0, 0]), Pick::Now(0));
    }

    // F33
    #[test]
    fn others_come_before_those_that_brought_damage() {
        let mut choice = Choice::new(3, 1);
        assert_eq!(choice.pick(SECOND, |_| true, &[1]), Pick::Now(2));
        choice.give_up(2);
        assert_eq!(choice.pick(SECOND, |_| true, &[1]), Pick::Now(0));
        assert_eq!(choice.pick(SECOND, |_| true, &[0, 1]), Pick::Now(1));
        assert_eq!(choice.pick(SECOND, |index| index == 0, &[0, 1]), Pick::Now(0), "the only one asked for");
        choice.give_up(0);
        assert_eq!(choice.pick(SECOND, |_| true, &[1, 1, 1]), Pick::Now(1), "there is no other");
        assert!(choice.any_other(0) && !choice.any_other(1));
        choice.give_up(1);
        assert_eq!(pick(&choice, SECOND), Pick::Nobody);
        assert!(!choice.any_left());
    }
}
