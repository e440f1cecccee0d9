//! The figures of a scenario that has run.

use std::fmt;

/// The figures of one run. Times count from the leecher's arrival. "The least time" is T_min.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Leechers that should have finished and did not.
    pub unfinished: u32,
    /// Time until all leechers had the file, over the least time.
    pub ratio: f64,
    /// Median time of a leecher, over the least time.
    pub p50: f64,
    /// 99th percentile of the time of a leecher, over the least time.
    pub p99: f64,
    /// 95th percentile of the time of a leecher that does not read, over the least time.
    pub crowd_p95: f64,
    /// Median time in seconds until a reader's first piece was there.
    pub first: f64,
    /// Median time in seconds until a reader had the first piece of the place that it went to.
    pub seek: f64,
    /// Copies of the file that the seeder sent.
    pub copies: f64,
    /// Bytes that leechers received and could not use, in percent of all received bytes.
    pub wasted: f64,
    /// Bytes that were received twice outside the endgame, in percent of all received bytes.
    pub twice: f64,
    /// Bytes that were received twice in the endgame, in percent of all received bytes.
    pub raced: f64,
    /// Use of all uplinks together until all leechers had the file, in percent.
    pub used: f64,
    /// Bytes of small messages, in percent of all sent bytes.
    pub small: f64,
    /// Requests per verified piece.
    pub requests: f64,
    /// Median error of the estimated time left at half of the file, in percent of the actual time left.
    pub eta_off: f64,
    /// What a seeder that wanted to leave sent from then on, over what no leecher had then. 0 if it stays.
    pub drained: f64,
    /// Number of events in the simulation.
    pub events: u64,
}

impl Outcome {
    /// Returns the median of each figure. For `unfinished` and `events` it returns the maximum.
    pub fn median(outcomes: Vec<Self>) -> Self {
        let median = |of: fn(&Self) -> f64| middle(outcomes.iter().map(of).collect());
        let most = |of: fn(&Self) -> u64| outcomes.iter().map(of).max().unwrap_or(0);
        Self {
            unfinished: most(|outcome| outcome.unfinished.into()) as u32,
            ratio: median(|outcome| outcome.ratio),
            p50: median(|outcome| outcome.p50),
            p99: median(|outcome| outcome.p99),
            crowd_p95: median(|outcome| outcome.crowd_p95),
            first: median(|outcome| outcome.first),
            seek: median(|outcome| outcome.seek),
            copies: median(|outcome| outcome.copies),
            wasted: median(|outcome| outcome.wasted),
            twice: median(|outcome| outcome.twice),
            raced: median(|outcome| outcome.raced),
            used: median(|outcome| outcome.used),
            small: median(|outcome| outcome.small),
            requests: median(|outcome| outcome.requests),
            eta_off: median(|outcome| outcome.eta_off),
            drained: median(|outcome| outcome.drained),
            events: most(|outcome| outcome.events),
        }
    }
}

/// The median, or 0 if there are no values.
pub(super) fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// The column headings of a table of outcomes. [`fmt::Display`] of [`Outcome`] writes a row.
pub const COLUMNS: &str = "T/T_min | p50 | p99 | seeder's copies | wasted % | twice % | in endgame % | \
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
