//! Chooses one of several trackers of the same network.
//!
//! Any of them answers every call, so a peer works with one at a time: the current one. A peer starts with one
//! picked at random, so that the peers of a network spread over its trackers. It stays with a tracker that
//! answers, and goes on to another one as soon as a call fails. A tracker that failed is left alone for a pause,
//! which doubles with each failure, and is tried again after it only if the others fail too.

use std::{ops::RangeInclusive, time::Duration};

use crate::Moment;

/// The shortest and the longest pause after a failure, before jitter.
const PAUSE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(30);

/// What is known about one tracker.
#[derive(Clone, Debug, Default)]
struct Tracker {
    /// Failures since it last answered.
    failures: u32,
    /// It is left alone until this moment.
    again: Moment,
}

/// The trackers of a network, by their number in the list. See the module's documentation.
#[derive(Clone, Debug)]
pub struct Trackers {
    all: Vec<Tracker>,
    current: usize,
}

impl Trackers {
    /// Chooses among this number of trackers, at least one. `dice` is a random number.
    pub fn new(number: usize, dice: u64) -> Self {
        let number = number.max(1);
        Self { all: vec![Tracker::default(); number], current: pick(number, dice) }
    }

    /// The tracker to call now.
    pub fn current(&self) -> usize {
        self.current
    }

    /// The moment from which the current tracker may be tried without a user who asks for it. Peers whose
    /// tracker is away must not all come back at once.
    pub fn due(&self) -> Moment {
        self.all[self.current].again
    }

    /// A tracker has answered. If the current one had failed, this one takes its place. Returns whether a tracker
    /// can be called now that could not before.
    pub fn answered(&mut self, which: usize) -> bool {
        let Some(tracker) = self.all.get_mut(which) else { return false };
        let is_back = std::mem::take(tracker).failures > 0;
        let is_moved = self.all[self.current].failures > 0;
        if is_moved {
            self.current = which;
        }
        is_back || is_moved
    }

    /// A tracker does not answer. If it is the current one, another one takes its place: any that is not left
    /// alone, else the one whose pause ends first. `dice` is a random number.
    pub fn failed(&mut self, now: Moment, which: usize, dice: u64) {
        let Some(tracker) = self.all.get_mut(which) else { return };
        // Calls that ran at the same time fail together, which counts once.
        if tracker.failures == 0 || now >= tracker.again {
            let pause = PAUSE.start().saturating_mul(1 << tracker.failures.min(16)).min(*PAUSE.end());
            tracker.again = now + pause.mul_f64(0.5 + 0.5 * fraction(dice));
            tracker.failures += 1;
        }
        if which == self.current {
            let ready: Vec<_> = (0..self.all.len()).filter(|&other| self.all[other].again <= now).collect();
            let soonest = || (0..self.all.len()).min_by_key(|&other| self.all[other].again);
            let next = ready.get(pick(ready.len().max(1), dice)).copied().or_else(soonest);
            self.current = next.unwrap_or_default();
        }
    }
}

/// A number below `number`, by the low bits of `dice`.
fn pick(number: usize, dice: u64) -> usize {
    (dice & 0xffff_ffff) as usize % number
}

/// A number from 0 to 1, by the high bits of `dice`.
fn fraction(dice: u64) -> f64 {
    (dice >> 32) as f64 / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A throw with the longest pause that picks the first of what is to choose from.
    const HIGH: u64 = 0xffff_ffff_0000_0000;

    fn seconds(seconds: u64) -> Moment {
        Duration::from_secs(seconds)
    }

    #[test]
    fn peers_start_at_different_trackers_and_stay_there() {
        let mut starts = [0; 3];
        (0..300).for_each(|dice| starts[Trackers::new(3, dice).current()] += 1);
        assert_eq!(starts, [100; 3]);
        let mut trackers = Trackers::new(3, 2);
        trackers.failed(seconds(1), 0, HIGH);
        assert!(!trackers.answered(2));
        assert_eq!(
            (trackers.current(), trackers.due()),
            (2, Moment::ZERO),
            "another one's failure moves nobody"
        );
    }

    #[test]
    fn a_failure_moves_on_at_once_and_only_once() {
        let mut trackers = Trackers::new(3, 0);
        trackers.failed(seconds(5), 0, HIGH);
        assert_eq!((trackers.current(), trackers.due()), (1, Moment::ZERO));
        // Another call to the same tracker fails with the first.
        trackers.failed(seconds(5), 0, HIGH);
        assert_eq!(trackers.current(), 1);
        trackers.failed(seconds(5), 1, HIGH);
        assert_eq!((trackers.current(), trackers.due()), (2, Moment::ZERO));
        trackers.failed(seconds(5), 2, HIGH);
        assert_eq!((trackers.current(), trackers.due()), (0, seconds(6)), "all of them failed: wait");
        assert!(trackers.answered(0));
        assert_eq!((trackers.current(), trackers.due()), (0, Moment::ZERO));
    }

    #[test]
    fn a_tracker_that_answers_takes_the_place_of_one_that_failed() {
        let mut trackers = Trackers::new(2, 0);
        trackers.failed(seconds(1), 0, HIGH);
        trackers.failed(seconds(1), 1, HIGH);
        assert_eq!(trackers.current(), 0);
        assert!(trackers.answered(1));
        assert_eq!((trackers.current(), trackers.due()), (1, Moment::ZERO));
        assert!(trackers.answered(0), "it is back, and another one is current");
        assert_eq!(trackers.current(), 1);
        assert!(!trackers.answered(1) && !trackers.answered(7));
    }

    #[test]
    fn the_peers_of_a_dead_tracker_spread_over_the_others() {
        let mut went = [0; 3];
        for dice in 0..200 {
            let mut trackers = Trackers::new(3, 1);
            trackers.failed(seconds(1), 1, HIGH | dice);
            went[trackers.current()] += 1;
        }
        assert_eq!(went, [100, 0, 100]);
    }

    #[test]
    fn the_pause_of_a_single_tracker_doubles_up_to_half_a_minute() {
        let mut trackers = Trackers::new(1, 7);
        let mut now = Moment::ZERO;
        for pause in [1, 2, 4, 8, 16, 30, 30] {
            trackers.failed(now, 0, HIGH);
            assert_eq!(trackers.due() - now, seconds(pause));
            now = trackers.due();
        }
        trackers.answered(0);
        trackers.failed(now, 0, 0);
        assert_eq!(trackers.due() - now, Duration::from_millis(500), "the jitter halves it at most");
    }

    proptest::proptest! {
        #[test]
        fn a_tracker_that_answers_is_found(
            number in 1_usize..8,
            start: u64,
            alive in 0_usize..8,
            throws: Vec<u64>,
        ) {
            let alive = alive % number;
            let mut trackers = Trackers::new(number, start);
            let mut now = Moment::ZERO;
            let mut throws = throws.into_iter();
            // Each of the others fails at most once before the live one is tried.
            for _ in 0..number {
                if trackers.current() == alive {
                    return Ok(());
                }
                let which = trackers.current();
                trackers.failed(now, which, throws.next().unwrap_or_default());
                now += Duration::from_micros(1);
            }
            proptest::prop_assert_eq!(trackers.current(), alive);
        }
    }
}
