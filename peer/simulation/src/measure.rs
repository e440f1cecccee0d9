//! Computes the figures of a scenario that has run.

use std::time::Duration;

use super::{
    host::{Draining, Reading, Tally},
    outcome::{Outcome, middle},
    world::{START, World},
};

impl World {
    /// Computes the outcome. Call it when the run is over.
    pub(super) fn outcome(&self) -> Outcome {
        let world = self;
        let least = world.scenario.least_time();
        let over_least = |time: Duration| time.as_secs_f64() / least.as_secs_f64();
        let leeches = || world.hosts.iter().filter_map(|host| host.leech.as_ref());
        let mut took: Vec<_> = leeches().filter_map(|leech| Some(leech.finished? - leech.begun)).collect();
        took.sort_unstable();
        let quantile = |took: &[Duration], part: f64| {
            let at = ((took.len() as f64 * part).ceil() as usize).clamp(1, took.len().max(1));
            took.get(at - 1).map_or(f64::INFINITY, |time| over_least(*time))
        };
        let crowd = leeches().filter(|leech| leech.reading.is_none());
        let mut crowd: Vec<_> = crowd.filter_map(|leech| Some(leech.finished? - leech.begun)).collect();
        crowd.sort_unstable();
        let waited = |place: usize| {
            let readers = leeches().filter_map(|leech| leech.reading.as_ref());
            let wait =
                |reading: &Reading| reading.waits.get(place).map_or(f64::INFINITY, Duration::as_secs_f64);
            middle(readers.map(wait).collect())
        };
        let off = leeches().filter_map(|leech| {
            let ((at, eta), finished) = (leech.halfway?, leech.finished?);
            let left = (finished - at).as_secs_f64();
            Some(100.0 * (eta.as_secs_f64() - left).abs() / left)
        });
        let last = leeches().filter_map(|leech| leech.finished).max().unwrap_or(START);
        let total = if world.left == 0 { over_least(last - START) } else { f64::INFINITY };
        let sum = |of: fn(&Tally) -> u64| world.hosts.iter().map(|host| of(&host.tally)).sum::<u64>() as f64;
        let (sent, small) = (sum(|tally| tally.sent), sum(|tally| tally.small));
        let (received, verified) = (sum(|tally| tally.received), sum(|tally| tally.verified));
        let wire = sent * world.scenario.headers + small;
        let could =
            (world.scenario.peers + 1) as f64 * world.scenario.uplink * 125e3 * (last - START).as_secs_f64();
        Outcome {
            unfinished: world.left,
            ratio: total,
            p50: quantile(&took, 0.5),
            p99: quantile(&took, 0.99),
            crowd_p95: quantile(&crowd, 0.95),
            first: waited(0),
            seek: waited(1),
            copies: world.hosts[0].tally.sent as f64 / world.layout.length() as f64,
            wasted: 100.0 * (received - verified) / received,
            twice: 100.0 * sum(|tally| tally.twice) / received,
            raced: 100.0 * sum(|tally| tally.raced) / received,
            used: 100.0 * wire / could,
            small: 100.0 * small / wire,
            requests: world.requests as f64 * f64::from(domain::PIECE_LENGTH) / verified,
            eta_off: middle(off.collect()),
            drained: world.draining.as_ref().map_or(0.0, Draining::ratio),
            events: world.clock.planned(),
        }
    }
}
