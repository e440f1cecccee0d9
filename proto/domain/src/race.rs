//! Decides when to start the attempts to connect to one server at several addresses ("happy eyeballs", RFC
//! 8305, section 5). They start one after the other in the given order, [`STAGGER`] apart, or at once when an
//! earlier one fails. The first success wins.

use std::time::Duration;

/// The time that an attempt has for itself before the next one starts.
pub const STAGGER: Duration = Duration::from_millis(250);

/// The attempts to connect to one server. Time is counted from any fixed moment.
#[derive(Clone, Debug)]
pub struct Race {
    /// The number of attempts in all.
    all: usize,
    started: usize,
    failed: usize,
    /// The next attempt starts at this moment.
    due: Duration,
}

/// The next thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Start this attempt, and ask again.
    Start(usize),
    /// Wait for an attempt to end, at most until this moment, and ask again.
    WaitUntil(Duration),
    /// Wait for an attempt to end, and ask again.
    Wait,
    /// All attempts have failed.
    Lost,
}

impl Race {
    /// A race of this number of attempts. The first one starts at once.
    pub fn new(all: usize) -> Self {
        Self { all, started: 0, failed: 0, due: Duration::ZERO }
    }

    /// The next thing to do.
    pub fn step(&mut self, now: Duration) -> Step {
        if self.failed >= self.all {
            return Step::Lost;
        }
        if self.started == self.all {
            return Step::Wait;
        }
        if now < self.due {
            return Step::WaitUntil(self.due);
        }
        self.due = now.saturating_add(STAGGER);
        self.started += 1;
        Step::Start(self.started - 1)
    }

    /// An attempt has failed: the next one starts at once.
    pub fn failed(&mut self) {
        self.failed += 1;
        self.due = Duration::ZERO;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn attempts_start_a_quarter_second_apart() {
        let mut race = Race::new(3);
        assert_eq!(race.step(ms(0)), Step::Start(0));
        assert_eq!(race.step(ms(0)), Step::WaitUntil(ms(250)));
        assert_eq!(race.step(ms(249)), Step::WaitUntil(ms(250)));
        assert_eq!(race.step(ms(260)), Step::Start(1));
        assert_eq!(race.step(ms(260)), Step::WaitUntil(ms(510)));
        assert_eq!(race.step(ms(510)), Step::Start(2));
        assert_eq!(race.step(ms(900)), Step::Wait);
    }

    #[test]
    fn a_failure_starts_the_next_at_once_and_the_last_failure_ends_the_race() {
        let mut race = Race::new(3);
        assert_eq!(race.step(ms(0)), Step::Start(0));
        race.failed();
        assert_eq!(race.step(ms(1)), Step::Start(1));
        assert_eq!(race.step(ms(1)), Step::WaitUntil(ms(251)));
        assert_eq!(race.step(ms(251)), Step::Start(2));
        race.failed();
        assert_eq!(race.step(ms(252)), Step::Wait, "one is still running");
        race.failed();
        assert_eq!(race.step(ms(253)), Step::Lost);
        assert_eq!(Race::new(0).step(ms(0)), Step::Lost);
    }
}
