//! Measures what the engine and the tracker can do, beside other programs where they are installed.
//!
//! Every figure with a goal is a ratio, or a cost, of runs taken in turn: machines differ, and one machine differs from
//! hour to hour. Medians, with the least and the most beside them. To mean anything, nothing else may run meanwhile.

mod announce;
mod crowd;
mod fan;
mod hash;
mod lab;
mod ours;
mod pair;
mod probe;
mod relay;
mod report;
mod rivals;
mod tracker;
mod wan;

use anyhow::{Result, bail};

pub(crate) use self::lab::build_bench;
use self::{lab::Lab, report::Report};
use crate::demo;

type Section = (&'static str, fn(&Lab, &mut Report) -> Result<()>);

const SECTIONS: &[Section] = &[
    ("pair", pair::run),
    ("fan-in", fan::fan_in),
    ("fan-out", fan::fan_out),
    ("crowd", crowd::run),
    ("wan", wan::run),
    ("hash", hash::run),
    ("tracker", tracker::run),
];

pub(crate) fn run(args: &[&str]) -> Result<()> {
    let (flags, only): (Vec<&str>, Vec<&str>) = args.iter().partition(|arg| arg.starts_with('-'));
    if let Some(unknown) = flags.iter().find(|flag| **flag != "--quick") {
        bail!("bench knows --quick, not {unknown:?}");
    }
    if let Some(unknown) = only.iter().find(|name| !SECTIONS.iter().any(|(section, _)| section == *name)) {
        let known: Vec<&str> = SECTIONS.iter().map(|(name, _)| *name).collect();
        bail!("bench has no part {unknown:?}; it has {}", known.join(", "));
    }
    let lab = Lab::new(demo::build(false)?, !flags.is_empty())?;
    let head = probe::machine();
    println!("{head}");
    let mut report = Report::default();
    let mut broken = Vec::new();
    for (name, section) in SECTIONS.iter().filter(|(name, _)| only.is_empty() || only.contains(name)) {
        println!("\n==== {name} ====");
        // One part that breaks must not hide what the others found.
        if let Err(error) = section(&lab, &mut report) {
            report.skip(*name, format!("it broke: {error:#}"));
            broken.push(*name);
        }
    }
    println!("\n{head}\n{}\n{}", rounds(&lab), report.table());
    println!("{} figures are not what they must be", report.missed());
    if !broken.is_empty() {
        bail!("could not be measured: {}", broken.join(", "));
    }
    Ok(())
}

fn rounds(lab: &Lab) -> String {
    match lab.quick {
        true => "A smoke run: one round, small files. Its figures mean little.".to_owned(),
        false => format!("Medians of {} rounds, in turn, after one to warm up.\n", lab.rounds),
    }
}
