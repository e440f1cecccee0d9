//! Limits repeated messages to one a minute.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Minimum time between two messages.
const EVERY: Duration = Duration::from_secs(60);

/// Lets a message through at most once a minute, the first at once. Each kind of message has its own, so that one kind does not
/// silence another.
#[derive(Debug, Default)]
pub struct LogThrottle(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    times: u64,
}

impl LogThrottle {
    /// Starts with no message sent.
    pub const fn new() -> Self {
        Self(Mutex::new(State { last: None, times: 0 }))
    }

    /// Whether the message is due at `now`. Returns how often it occurred since it was last let through, this
    /// time included.
    pub fn due(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock();
        state.times += 1;
        if state.last.is_some_and(|last| now.saturating_duration_since(last) < EVERY) {
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.times))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_a_minute_is_let_through_and_counts_the_others() {
        let (throttle, start) = (LogThrottle::new(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let due: Vec<_> = [0, 1, 59, 60, 90, 900].map(|second| throttle.due(at(second))).into();
        assert_eq!(due, [Some(1), None, None, Some(3), None, Some(2)]);
    }
}
