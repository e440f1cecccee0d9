//! Figures, their goals, and the report that shows them.

use std::fmt::{self, Write as _};

/// Several measurements of the same thing. Never empty.
#[derive(Clone, Debug)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) fn of(mut values: Vec<f64>) -> Option<Self> {
        values.retain(|value| value.is_finite());
        values.sort_by(f64::total_cmp);
        (!values.is_empty()).then_some(Self(values))
    }

    pub(crate) fn median(&self) -> f64 {
        let middle = self.0.len() / 2;
        match self.0.len() % 2 {
            0 => f64::midpoint(self.0[middle - 1], self.0[middle]),
            _ => self.0[middle],
        }
    }

    pub(crate) fn least(&self) -> f64 {
        self.0[0]
    }

    pub(crate) fn most(&self) -> f64 {
        self.0[self.0.len() - 1]
    }
}

impl fmt::Display for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (median, least, most) = (self.median(), self.least(), self.most());
        let digits = match median.abs() {
            large if large >= 100.0 => 0,
            large if large >= 10.0 => 1,
            _ => 2,
        };
        write!(f, "{median:.digits$} [{least:.digits$}-{most:.digits$}]")
    }
}

/// The goal of a figure: the value that it must reach, and the value that is aimed at.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    AtMost { must: f64, aim: f64 },
    AtLeast { must: f64, aim: f64 },
}

impl Goal {
    fn verdict(self, value: f64) -> &'static str {
        let (must, aim) = match self {
            Self::AtMost { must, aim } => (value <= must, value <= aim),
            Self::AtLeast { must, aim } => (value >= must, value >= aim),
        };
        match (must, aim) {
            (_, true) => "OK, aim reached",
            (true, false) => "OK",
            (false, false) => "MISSED",
        }
    }
}

/// One line of the table.
enum Row {
    Measured { what: String, samples: Samples, goal: Option<Goal> },
    Skipped { what: String, why: String },
}

/// All results, in the order in which they were measured.
#[derive(Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
}

impl Report {
    /// Adds a figure with a goal.
    pub(crate) fn figure(&mut self, what: impl Into<String>, values: Vec<f64>, goal: Goal) {
        self.add(what.into(), values, Some(goal));
    }

    /// Adds a figure for information.
    pub(crate) fn note(&mut self, what: impl Into<String>, values: Vec<f64>) {
        self.add(what.into(), values, None);
    }

    fn add(&mut self, what: String, values: Vec<f64>, goal: Option<Goal>) {
        let row = match Samples::of(values) {
            Some(samples) => Row::Measured { what, samples, goal },
            None => Row::Skipped { what, why: "nothing was measured".to_owned() },
        };
        println!("  -> {}", row.plain());
        self.rows.push(row);
    }

    /// Adds a measurement that could not be made here, and the reason.
    pub(crate) fn skip(&mut self, what: impl Into<String>, why: impl Into<String>) {
        let row = Row::Skipped { what: what.into(), why: why.into() };
        println!("  -> {}", row.plain());
        self.rows.push(row);
    }

    /// Returns the table in Markdown.
    pub(crate) fn table(&self) -> String {
        let mut out = String::from("| | measured [least-most] | must | aim | |\n|---|---|---|---|---|\n");
        for row in &self.rows {
            let _ = writeln!(out, "{}", row.markdown());
        }
        out
    }

    /// Number of figures that miss the value they must reach.
    pub(crate) fn missed(&self) -> usize {
        let missed = |row: &&Row| matches!(row, Row::Measured { samples, goal: Some(goal), .. } if goal.verdict(samples.median()) == "MISSED");
        self.rows.iter().filter(missed).count()
    }
}

impl Row {
    fn plain(&self) -> String {
        match self {
            Self::Measured { what, samples, goal } => {
                let verdict = goal.map_or("", |goal| goal.verdict(samples.median()));
                format!("{what}: {samples}  {verdict}")
            }
            Self::Skipped { what, why } => format!("{what}: SKIPPED, {why}"),
        }
    }

    fn markdown(&self) -> String {
        match self {
            Self::Measured { what, samples, goal: None } => format!("| {what} | {samples} | | | |"),
            Self::Measured { what, samples, goal: Some(goal) } => {
                let (sign, must, aim) = match *goal {
                    Goal::AtMost { must, aim } => ("≤", must, aim),
                    Goal::AtLeast { must, aim } => ("≥", must, aim),
                };
                let verdict = goal.verdict(samples.median());
                format!("| {what} | {samples} | {sign} {must} | {sign} {aim} | {verdict} |")
            }
            Self::Skipped { what, why } => format!("| {what} | SKIPPED: {why} | | | |"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Goal, Report, Samples};

    #[test]
    fn a_median_is_in_the_middle() {
        let median = |values: &[f64]| Samples::of(values.to_vec()).map(|samples| samples.median());
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[f64::NAN]), None);
    }

    #[test]
    fn goals_are_judged_by_the_median() {
        let mut report = Report::default();
        report.figure("a", vec![0.9, 0.5, 0.4], Goal::AtMost { must: 0.6, aim: 0.5 });
        report.figure("b", vec![0.3], Goal::AtLeast { must: 0.4, aim: 0.5 });
        report.skip("c", "not here");
        assert_eq!(report.missed(), 1);
        let table = report.table();
        assert!(table.contains("| a | 0.50 [0.40-0.90] | ≤ 0.6 | ≤ 0.5 | OK, aim reached |"), "{table}");
        assert!(table.contains("| b | 0.30 [0.30-0.30] | ≥ 0.4 | ≥ 0.5 | MISSED |"), "{table}");
        assert!(table.contains("SKIPPED: not here"), "{table}");
    }
}
