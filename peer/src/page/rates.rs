//! How fast bytes went in the last minutes. They are kept by the daemon, so that a page shows them when it is opened.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::{MissedTickBehavior, interval};

use super::api::Api;

/// The time between two values.
pub(super) const EVERY: Duration = Duration::from_secs(5);
/// The number of values that are kept: five minutes.
pub(super) const KEPT: usize = 60;

/// The rates of the last minutes in bytes a second, downwards and upwards, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Rates(VecDeque<(u64, u64)>);

impl Rates {
    fn add(&mut self, down: u64, up: u64) {
        if self.0.len() >= KEPT {
            self.0.pop_front();
        }
        self.0.push_back((down, up));
    }

    /// The rates, the oldest first.
    pub(super) fn all(&self) -> Vec<(u64, u64)> {
        self.0.iter().copied().collect()
    }
}

/// Adds the present rates from time to time. Never returns.
pub(super) async fn follow(api: Api, rates: Arc<Mutex<Rates>>) {
    let mut clock = interval(EVERY);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        clock.tick().await;
        if let Ok(status) = api.status().await {
            rates.lock().add(status.download_rate, status.upload_rate);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_minutes_are_kept() {
        let mut rates = Rates::default();
        (0..2 * KEPT as u64).for_each(|at| rates.add(at, 0));
        assert_eq!(rates.all().len(), KEPT);
        assert_eq!(rates.all()[KEPT - 1], (2 * KEPT as u64 - 1, 0));
    }
}
