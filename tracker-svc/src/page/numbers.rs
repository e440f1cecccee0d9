//! The values in a text of metrics.

use std::{collections::BTreeMap, time::Duration};

/// What precedes the names of all metrics.
const PREFIX: &str = "minitorrent_tracker_";

/// The values of all metrics at one time, by name and labels as they stand in the text.
#[derive(Clone, Debug, Default)]
pub(super) struct Numbers(BTreeMap<Box<str>, f64>);

/// The metrics at one time. The time counts from the start of the page.
pub(super) type Sample = (Duration, Numbers);

impl Numbers {
    /// Reads the text that [`Metrics::render`](crate::metrics::Metrics::render) writes.
    pub(super) fn read(text: &str) -> Self {
        let lines = text.lines().filter_map(|line| line.strip_prefix(PREFIX)?.rsplit_once(' '));
        Self(lines.filter_map(|(series, value)| Some((series.into(), value.parse().ok()?))).collect())
    }

    /// The value of a metric without labels; 0 if there is none.
    pub(super) fn get(&self, name: &str) -> f64 {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// The labels and values of a metric.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = (&str, f64)> {
        let from: Box<str> = format!("{name}{{").into();
        let length = name.len();
        let rest = self.0.range(from.clone()..).take_while(move |(series, _)| series.starts_with(&*from));
        rest.map(move |(series, value)| (&series[length..], *value))
    }

    /// The sum of a metric over its labels, where `is_meant` holds for them.
    pub(super) fn sum(&self, name: &str, is_meant: impl Fn(&str) -> bool) -> f64 {
        self.all(name).filter(|(labels, _)| is_meant(labels)).fold(0.0, |sum, (_, value)| sum + value)
    }
}

/// The value of a label. The values of all labels of the tracker are words without a quotation mark.
pub(super) fn label<'a>(labels: &'a str, name: &str) -> &'a str {
    let pairs = labels.trim_matches(['{', '}']).split(',').filter_map(|pair| pair.split_once('='));
    let mut found = pairs.filter(|(key, _)| *key == name).map(|(_, value)| value.trim_matches('"'));
    found.next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_read() {
        let text = "# HELP minitorrent_tracker_x Text 1\nminitorrent_tracker_x 2\n\
                    minitorrent_tracker_y_total{a=\"1\",b=\"z\"} 3\nminitorrent_tracker_y_total{a=\"2\"} 4.5\n\
                    minitorrent_tracker_y_total_more{a=\"2\"} 9\nother 1\n# EOF\n";
        let numbers = Numbers::read(text);
        assert_eq!((numbers.get("x"), numbers.get("missing")), (2.0, 0.0));
        assert_eq!(numbers.sum("y_total", |_| true), 7.5);
        assert_eq!(format!("{:.0}", numbers.sum("missing", |_| true)), "0");
        assert_eq!(numbers.sum("y_total", |labels| label(labels, "b") == "z"), 3.0);
        assert_eq!(label("{le=\"+Inf\",method=\"/a/B\"}", "method"), "/a/B");
    }
}
