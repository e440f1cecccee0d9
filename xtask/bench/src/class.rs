//! Fifty subscribers, each in its own network namespace: how soon does a published file start to arrive?

use anyhow::Result;

use super::{
    lab::Lab,
    report::{Goal, Report},
};
use testbed::{
    classroom::{Class, play},
    processes::Processes,
};

const STUDENTS: usize = 50;

pub(crate) fn run(lab: &Lab, report: &mut Report) -> Result<()> {
    if !Processes::namespaces_work()? {
        report.skip("class", "needs root and network namespaces");
        return Ok(());
    }
    let class = Class { students: STUDENTS, bytes: lab.bytes(16 << 20), uplink: None };
    let (mut started, mut first, mut done) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..lab.rounds {
        let figures = play(&lab.bin, &class)?;
        started.extend(figures.started.last());
        first.extend(figures.first.last());
        done.push(figures.took());
    }
    let what = format!("{STUDENTS} subscribers: seconds from publication until");
    report.figure(format!("{what} the last one has started"), started, Goal::AtMost { must: 1.0, aim: 0.5 });
    report.note(format!("{what} the last one has a piece on disk"), first);
    report.note(format!("{what} all have the {} MiB", class.bytes >> 20), done);
    Ok(())
}
