//! Measures the rate at which bytes are sent or received.

use std::time::Duration;

use super::Moment;

/// An exponentially weighted rate in bytes a second. Bytes older than the span count for little.
///
/// The rate is right from the start: if the time since [`Meter::begin`] is shorter than the span, the average
/// covers that time.
#[derive(Clone, Copy, Debug)]
pub struct Meter {
    span: f64,
    begun: Option<Moment>,
    updated: Moment,
    weighted: f64,
}

/// The shortest time, in seconds, that a rate is computed over. A rate over no time would be infinite.
const SHORTEST: f64 = 1e-3;

impl Meter {
    /// A meter that averages over about `span`.
    pub fn new(span: Duration) -> Self {
        Self { span: span.as_secs_f64(), begun: None, updated: Moment::ZERO, weighted: 0.0 }
    }

    /// Starts the time. Only the first call has an effect.
    pub fn begin(&mut self, now: Moment) {
        if self.begun.is_none() {
            self.begun = Some(now);
            self.updated = now;
        }
    }

    /// Counts this number of bytes.
    pub fn add(&mut self, now: Moment, bytes: u32) {
        self.begin(now);
        self.weighted = self.weighted * self.decay(now) + f64::from(bytes) / self.span;
        self.updated = self.updated.max(now);
    }

    /// The rate in bytes a second; 0 before anything was measured.
    pub fn rate(&self, now: Moment) -> f64 {
        let Some(begun) = self.begun else { return 0.0 };
        let age = now.saturating_sub(begun).as_secs_f64().max(SHORTEST);
        self.weighted * self.decay(now) / (1.0 - (-age / self.span).exp())
    }

    fn decay(&self, now: Moment) -> f64 {
        (-now.saturating_sub(self.updated).as_secs_f64() / self.span).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Duration::from_millis(ms)
    }

    #[test]
    fn is_right_early_and_late() {
        let mut meter = Meter::new(Duration::from_secs(2));
        assert!(meter.rate(at(5)).abs() < f64::EPSILON);
        meter.begin(at(0));
        for step in 1..=1_000 {
            meter.add(at(step * 10), 10_000);
            let rate = meter.rate(at(step * 10));
            assert!((0.9e6..1.1e6).contains(&rate), "{rate} after {step} steps");
        }
    }

    #[test]
    fn follows_a_change_and_forgets() {
        let mut meter = Meter::new(Duration::from_secs(1));
        meter.begin(at(0));
        (1..=100).for_each(|step| meter.add(at(step * 100), 100_000));
        (101..=150).for_each(|step| meter.add(at(step * 100), 10_000));
        assert!((0.8e5..1.3e5).contains(&meter.rate(at(15_000))));
        assert!(meter.rate(at(30_000)) < 1.0);
    }
}
