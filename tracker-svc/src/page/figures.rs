//! What follows from the metrics of the last minutes. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::numbers::{Numbers, Sample, label};

/// A call that takes longer, in seconds, is counted as slow. It is the end of a bucket of the histogram.
pub(super) const SLOW: &str = "0.1024";

/// How often something happened, in times per second.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Rate {
    /// Over all samples.
    pub(super) mean: f64,
    /// Between each sample and the next.
    pub(super) course: Vec<f64>,
}

/// The calls of one method.
#[derive(Debug, PartialEq)]
pub(super) struct Method {
    /// Its path.
    pub(super) name: String,
    /// Calls since the start.
    pub(super) calls: f64,
    /// Calls that failed since the start.
    pub(super) failed: f64,
    /// Over the samples, in times per second.
    pub(super) rate: f64,
    /// Over the samples: the mean time in seconds; `None` without a call.
    pub(super) mean: Option<f64>,
    /// Over the samples: 99 of 100 calls took at most so many seconds.
    pub(super) most: Option<f64>,
    /// Over the samples: calls that took longer than [`SLOW`].
    pub(super) slow: f64,
}

/// A certificate that ends.
#[derive(Debug, PartialEq)]
pub(super) struct End {
    pub(super) name: String,
    /// In seconds since 1970.
    pub(super) at: f64,
    /// The time left, in days.
    pub(super) days: f64,
}

/// What the page shows.
pub(super) struct Figures<'a> {
    now: &'a Numbers,
    pub(super) version: &'a str,
    pub(super) store: &'a str,
    /// Empty if this tracker shares its swarms with no other.
    pub(super) swarm_store: &'a str,
    pub(super) calls: Rate,
    pub(super) announces: Rate,
    pub(super) failures: Rate,
    /// The slowest first.
    pub(super) methods: Vec<Method>,
    /// The reasons of failed calls, and how often there were such since the start; the most frequent first.
    pub(super) reasons: Vec<(&'a str, f64)>,
    pub(super) ends: Vec<End>,
    /// The time that the samples cover.
    pub(super) window: Duration,
}

impl<'a> Figures<'a> {
    /// The figures of the sample of now after earlier ones in the order of their times. `clock` counts from 1970.
    pub(super) fn new(earlier: &'a [Sample], last: &'a Sample, clock: Duration) -> Self {
        let first = earlier.first().unwrap_or(last);
        let samples: Vec<&Sample> = earlier.iter().chain([last]).collect();
        let now = &last.1;
        let build = now.all("build_info").next().map_or("", |(labels, _)| labels);
        let mut reasons: Vec<_> = now
            .all("failures_total")
            .filter(|(_, count)| *count > 0.0)
            .map(|(labels, count)| (label(labels, "reason"), count))
            .collect();
        reasons.sort_by(|a, b| b.1.total_cmp(&a.1));
        let ends = now.all("certificate_ends").map(|(labels, at)| End {
            name: label(labels, "certificate").to_owned(),
            at,
            days: (at - clock.as_secs_f64()) / 86_400.0,
        });
        let total = |name: &'static str| move |numbers: &Numbers| numbers.sum(name, |_| true);
        Self {
            now,
            version: label(build, "version"),
            store: label(build, "store"),
            swarm_store: label(build, "swarm_store"),
            calls: rate(&samples, total("calls_total")),
            announces: rate(&samples, |numbers| numbers.get("announce_seconds_count")),
            failures: rate(&samples, total("failures_total")),
            methods: methods(first, last),
            reasons,
            ends: ends.collect(),
            window: last.0 - first.0,
        }
    }

    /// The value of a metric without labels.
    pub(super) fn get(&self, name: &str) -> f64 {
        self.now.get(name)
    }
}

fn rate(samples: &[&Sample], count: impl Fn(&Numbers) -> f64) -> Rate {
    let per_second = |(from, before): &Sample, (to, after): &Sample| {
        (count(after) - count(before)) / (*to - *from).as_secs_f64().max(0.001)
    };
    let course = samples.windows(2).map(|two| per_second(two[0], two[1])).collect();
    match samples {
        [first, .., last] => Rate { mean: per_second(first, last), course },
        _ => Rate::default(),
    }
}

fn methods(first: &Sample, last: &Sample) -> Vec<Method> {
    let (now, seconds) = (&last.1, (last.0 - first.0).as_secs_f64().max(0.001));
    let names: BTreeSet<&str> = now.all("calls_total").map(|(labels, _)| label(labels, "method")).collect();
    let mut methods: Vec<Method> = names
        .into_iter()
        .map(|name| {
            let its = |labels: &str| label(labels, "method") == name;
            let since = |metric: &str, is_meant: &dyn Fn(&str) -> bool| {
                now.sum(metric, is_meant) - first.1.sum(metric, is_meant)
            };
            let calls = since("call_seconds_count", &its);
            let fast = since("call_seconds_bucket", &|labels| its(labels) && label(labels, "le") == SLOW);
            Method {
                name: name.to_owned(),
                calls: now.sum("calls_total", its),
                failed: now.sum("calls_total", |labels| its(labels) && label(labels, "code") != "OK"),
                rate: calls / seconds,
                mean: (calls > 0.0).then(|| since("call_seconds_sum", &its) / calls),
                most: most(name, &first.1, now),
                slow: calls - fast,
            }
        })
        .collect();
    methods.sort_by(|a, b| {
        let key = |method: &Method| (method.slow, method.most.unwrap_or_default(), method.calls);
        key(b).partial_cmp(&key(a)).unwrap_or(std::cmp::Ordering::Equal)
    });
    methods
}

/// The end of the bucket in which 99 of 100 calls have ended.
fn most(method: &str, before: &Numbers, now: &Numbers) -> Option<f64> {
    let bucket = "call_seconds_bucket";
    let mut counts = BTreeMap::new();
    for (numbers, sign) in [(before, -1.0), (now, 1.0)] {
        for (labels, count) in numbers.all(bucket).filter(|(labels, _)| label(labels, "method") == method) {
            // The bits of numbers that are not negative are in the order of the numbers.
            let end = label(labels, "le").replace("+Inf", "inf").parse::<f64>().ok()?.to_bits();
            *counts.entry(end).or_insert(0.0) += sign * count;
        }
    }
    let all = counts.last_key_value().map(|(_, all)| *all).filter(|all| *all > 0.0)?;
    let found = counts.iter().find(|(_, count)| **count >= 0.99 * all)?;
    Some(f64::from_bits(*found.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    fn sample(seconds: u64, text: &str) -> Sample {
        let text =
            text.replace("calls", "minitorrent_tracker_calls").replace("call_", "minitorrent_tracker_call_");
        (Duration::from_secs(seconds), Numbers::read(&text))
    }

    #[test]
    fn the_slowest_method_comes_first() {
        let before = sample(0, "calls_total{method=\"/a\",code=\"OK\"} 5\n");
        let now = sample(
            10,
            "calls_total{method=\"/a\",code=\"OK\"} 105\ncalls_total{method=\"/b\",code=\"INTERNAL\"} 10\n\
             call_seconds_count{method=\"/a\"} 100\ncall_seconds_sum{method=\"/a\"} 1\n\
             call_seconds_bucket{le=\"0.0016\",method=\"/a\"} 98\ncall_seconds_bucket{le=\"0.1024\",method=\"/a\"} 100\n\
             call_seconds_bucket{le=\"+Inf\",method=\"/a\"} 100\n\
             call_seconds_count{method=\"/b\"} 10\ncall_seconds_sum{method=\"/b\"} 100\n\
             call_seconds_bucket{le=\"0.1024\",method=\"/b\"} 1\ncall_seconds_bucket{le=\"+Inf\",method=\"/b\"} 10\n",
        );
        let earlier = [before];
        let figures = Figures::new(&earlier, &now, Duration::ZERO);
        let [slow, fast] = &figures.methods[..] else { panic!("{:?}", figures.methods) };
        assert_eq!(
            (slow.name.as_str(), slow.slow, slow.failed, slow.most),
            ("/b", 9.0, 10.0, Some(f64::INFINITY))
        );
        assert_eq!((fast.calls, fast.rate, fast.mean, fast.most), (105.0, 10.0, Some(0.01), Some(0.1024)));
        assert_eq!(figures.calls, Rate { mean: 11.0, course: vec![11.0] });
    }

    #[test]
    fn a_tracker_that_has_just_started_has_figures() {
        let metrics = Metrics::default();
        metrics.describe("SQLite", "");
        let now = (Duration::ZERO, Numbers::read(&metrics.render()));
        let figures = Figures::new(&[], &now, Duration::ZERO);
        assert_eq!((figures.store, figures.swarm_store), ("SQLite", ""));
        assert_eq!(figures.version, env!("CARGO_PKG_VERSION"));
        assert!(figures.methods.is_empty() && figures.calls == Rate::default());
    }
}
