//! What is logged about a tracker that is away: one line at the start, at most one a minute, and one on return.

use std::time::{Duration, Instant};

use transport::LogThrottle;

/// The time in which the tracker does not answer.
#[derive(Debug, Default)]
pub(crate) struct Outage {
    began: Option<Instant>,
    throttle: LogThrottle,
}

impl Outage {
    /// Notes a failed try. Returns the number of tries since the last line, if one is due.
    pub(crate) fn failed(&mut self, now: Instant) -> Option<u64> {
        self.began.get_or_insert(now);
        self.throttle.due(now)
    }

    /// Notes that the tracker answers. Returns how long it did not, if it did not.
    pub(crate) fn over(&mut self, now: Instant) -> Option<Duration> {
        let began = self.began.take()?;
        self.throttle = LogThrottle::new();
        Some(now.saturating_duration_since(began))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_has_a_first_line_a_line_a_minute_and_a_last_one() {
        let (mut outage, start) = (Outage::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(outage.over(start), None);
        let lines: Vec<_> = [0, 1, 3, 7, 15, 31, 61, 91, 121].map(|second| outage.failed(at(second))).into();
        assert_eq!(lines, [Some(1), None, None, None, None, None, Some(6), None, Some(2)]);
        assert_eq!(outage.over(at(130)), Some(Duration::from_secs(130)));
        assert_eq!(outage.failed(at(131)), Some(1), "the next one is told at once");
    }
}
