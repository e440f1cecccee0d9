//! What arriving data waited for on this peer's side, as shares of the last seconds.

use std::time::Duration;

use tokio::time::Instant;

use crate::ports::LocalWork;

/// The averages are over about this time.
const SPAN: Duration = Duration::from_secs(2);

/// Averages of times that only grow.
pub(super) struct LocalShares {
    at: Instant,
    spent: [u64; 5],
    shares: [f64; 5],
}

impl LocalShares {
    pub(super) fn new(now: Instant) -> Self {
        Self { at: now, spent: [0, 0, 0, 0, processor()], shares: [0.0; 5] }
    }

    /// Notes the times that were spent since the start: for the limit, for room, hashing and writing, in nanoseconds.
    /// `processor` is what this process used of the processors.
    pub(super) fn note(&mut self, now: Instant, [limit, room, hashing, writing]: [u64; 4], processor: u64) {
        let spent = [limit, room, hashing, writing, processor];
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        if passed <= 0.0 {
            return;
        }
        let keep = (-passed / SPAN.as_secs_f64()).exp();
        for (share, (new, old)) in self.shares.iter_mut().zip(spent.iter().zip(self.spent)) {
            // Several requests wait at once. More than all of the time says no more than that.
            let part = (new.saturating_sub(old) as f64 / 1e9 / passed).min(1.0);
            *share = *share * keep + part * (1.0 - keep);
        }
        (self.at, self.spent) = (now, spent);
    }

    pub(super) fn shown(&self) -> LocalWork {
        let [limit_wait, check_wait, hashing, writing, processor] =
            self.shares.map(|share| (share * 100.0) as u8);
        LocalWork { limit_wait, check_wait, hashing, writing, processor }
    }
}

/// The time of the processors that this process has used, in nanoseconds.
pub(super) fn processor() -> u64 {
    use rustix::time::{ClockId, clock_gettime};
    let used = clock_gettime(ClockId::ProcessCPUTime);
    let (seconds, nanoseconds) = (u64::try_from(used.tv_sec), u64::try_from(used.tv_nsec));
    seconds.unwrap_or_default().saturating_mul(1_000_000_000) + nanoseconds.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_follow_what_was_spent_lately() {
        let start = Instant::now();
        let mut shares = LocalShares::new(start);
        let (mut spent, beat) = (0, Duration::from_millis(250));
        for step in 1..=40 {
            // Three requests wait all the time; half of it is hashing.
            spent += 250_000_000;
            shares.note(start + beat * step, [3 * spent, 0, spent / 2, 0], 0);
        }
        let LocalWork { limit_wait, check_wait, hashing, writing, .. } = shares.shown();
        assert!(
            limit_wait > 97 && (45..=50).contains(&hashing) && check_wait + writing == 0,
            "{:?}",
            shares.shown()
        );
        for step in 41..=80 {
            shares.note(start + beat * step, [3 * spent, 0, spent / 2, 0], 0);
        }
        assert!(shares.shown().limit_wait < 3, "{:?}", shares.shown());
    }
}
