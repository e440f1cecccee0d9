//! A clock that runs only while this program runs.

use std::time::Duration;

use super::Moment;

/// The owner reads the clock at least this often.
pub const BEAT: Duration = Duration::from_secs(1);
/// After a longer gap than this, the program was stopped, frozen, or starved of the processor.
const GAP: Duration = Duration::from_secs(2);

/// The time since the owner's start, without the gaps in which the owner did not read the clock.
///
/// A program that did not run for a minute has not waited a minute for anybody: the answers lie unread in its
/// buffers.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunningClock {
    looked: Duration,
    missed: Duration,
}

impl RunningClock {
    /// The present moment. `elapsed` is the time since the owner's start. A gap counts as one [`BEAT`].
    pub fn at(&mut self, elapsed: Duration) -> Moment {
        let passed = elapsed.saturating_sub(self.looked);
        if passed > GAP {
            self.missed += passed - BEAT;
        }
        self.looked = self.looked.max(elapsed);
        self.looked - self.missed
    }

    /// The time in which the program did not run, so far.
    pub fn missed(&self) -> Duration {
        self.missed
    }

    /// The time that the owner's own clock shows at that moment.
    pub fn elapsed_at(&self, moment: Moment) -> Duration {
        moment.saturating_add(self.missed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_left_out() {
        let (mut clock, at) = (RunningClock::default(), Duration::from_millis);
        for ms in (0..5_000).step_by(250) {
            assert_eq!(clock.at(at(ms)), at(ms));
        }
        assert_eq!(clock.at(at(605_000)), at(5_750), "ten minutes stopped");
        assert_eq!(clock.at(at(606_000)), at(6_750));
        assert_eq!(clock.at(at(605_500)), at(6_750), "never back");
        assert_eq!(clock.elapsed_at(at(7_000)), at(606_250));
    }
}
