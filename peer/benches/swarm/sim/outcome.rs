//! What came of it.

use std::{fmt, time::Duration};

use super::world::{START, World};

/// What came of a scenario. Times count from when a leecher came.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Outcome {
    /// Leechers that were to finish, and did not.
    pub(crate) unfinished: u32,
    /// Until everybody had it, over the least time.
    pub(crate) ratio: f64,
    /// How long half of the leechers took, over the least time.
    pub(crate) p50: f64,
    /// How long all but one in a hundred took, over the least time.
    pub(crate) p99: f64,
    /// Copies of the file that the seeder sent.
    pub(crate) copies: f64,
    /// Bytes that leechers received and had no use for, in percent of all.
    pub(crate) wasted: f64,
    /// Those of them that came twice, in percent of all, though there were other pieces to ask for.
    pub(crate) twice: f64,
    /// Those that came twice in the endgame.
    pub(crate) raced: f64,
    /// How much of all uplinks was used, in percent, until everybody had it.
    pub(crate) used: f64,
    /// Bytes of small messages, in percent of what was sent.
    pub(crate) small: f64,
    /// Requests for each piece that came.
    pub(crate) requests: f64,
    /// How far off the time left was that half of the leechers saw when they had half of the file, in percent of it.
    pub(crate) eta_off: f64,
    /// Things that happened.
    pub(crate) events: u64,
}

impl Outcome {
    pub(super) fn of(world: &World) -> Self {
        let least = world.scenario.least_time();
        let over_least = |time: Duration| time.as_secs_f64() / least.as_secs_f64();
        let leeches = || world.hosts.iter().filter_map(|host| host.leech.as_ref());
        let mut took: Vec<_> = leeches().filter_map(|leech| Some(leech.finished? - leech.begun)).collect();
        took.sort_unstable();
        let quantile = |part: f64| {
            let at = ((took.len() as f64 * part).ceil() as usize).clamp(1, took.len().max(1));
            took.get(at - 1).map_or(f64::INFINITY, |time| over_least(*time))
        };
        let off = leeches().filter_map(|leech| {
            let ((at, eta), finished) = (leech.halfway?, leech.finished?);
            let left = (finished - at).as_secs_f64();
            Some(100.0 * (eta.as_secs_f64() - left).abs() / left)
        });
        let last = leeches().filter_map(|leech| leech.finished).max().unwrap_or(START);
        let total = if world.left == 0 { over_least(last - START) } else { f64::INFINITY };
        let sum = |of: fn(&super::host::Tally) -> u64| {
            world.hosts.iter().map(|host| of(&host.tally)).sum::<u64>() as f64
        };
        let (sent, small) = (sum(|tally| tally.sent), sum(|tally| tally.small));
        let (received, verified) = (sum(|tally| tally.received), sum(|tally| tally.verified));
        let wire = sent * world.scenario.headers + small;
        let could =
            (world.scenario.peers + 1) as f64 * world.scenario.uplink * 125e3 * (last - START).as_secs_f64();
        Self {
            unfinished: world.left,
            ratio: total,
            p50: quantile(0.5),
            p99: quantile(0.99),
            copies: world.hosts[0].tally.sent as f64 / world.layout.length() as f64,
            wasted: 100.0 * (received - verified) / received,
            twice: 100.0 * sum(|tally| tally.twice) / received,
            raced: 100.0 * sum(|tally| tally.raced) / received,
            used: 100.0 * wire / could,
            small: 100.0 * small / wire,
            requests: world.requests as f64 * f64::from(proto::domain::PIECE_LENGTH) / verified,
            eta_off: middle(off.collect()),
            events: world.clock.planned(),
        }
    }
}

impl Outcome {
    /// The median of each figure; of the counts, the most.
    pub(crate) fn median(outcomes: Vec<Self>) -> Self {
        let median = |of: fn(&Self) -> f64| middle(outcomes.iter().map(of).collect());
        let most = |of: fn(&Self) -> u64| outcomes.iter().map(of).max().unwrap_or(0);
        Self {
            unfinished: most(|outcome| outcome.unfinished.into()) as u32,
            ratio: median(|outcome| outcome.ratio),
            p50: median(|outcome| outcome.p50),
            p99: median(|outcome| outcome.p99),
            copies: median(|outcome| outcome.copies),
            wasted: median(|outcome| outcome.wasted),
            twice: median(|outcome| outcome.twice),
            raced: median(|outcome| outcome.raced),
            used: median(|outcome| outcome.used),
            small: median(|outcome| outcome.small),
            requests: median(|outcome| outcome.requests),
            eta_off: median(|outcome| outcome.eta_off),
            events: most(|outcome| outcome.events),
        }
    }
}

/// The median; 0 of nothing.
fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// The columns of a table of outcomes, and a row of it.
pub(crate) const COLUMNS: &str = "T/T_min | p50 | p99 | seeder's copies | wasted % | twice % | in endgame % | \
    uplinks used % | small messages % | requests a piece | ETA off % at half time";

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.3} | {:.3} | {:.3} | {:.2} | {:.2} | {:.2} | {:.2} | {:.0} | {:.1} | {:.1} | {:.0}",
            self.ratio,
            self.p50,
            self.p99,
            self.copies,
            self.wasted,
            self.twice,
            self.raced,
            self.used,
            self.small,
            self.requests,
            self.eta_off
        )?;
        if self.unfinished > 0 {
            write!(f, " ({} never finished)", self.unfinished)?;
        }
        Ok(())
    }
}
