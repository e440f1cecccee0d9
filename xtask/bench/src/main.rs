//! Measures the engine and the tracker, and compares them with other programs where those are installed.
//!
//! Machines differ, and one machine differs from hour to hour. So every figure with a goal is a ratio, or a
//! cost, of runs that alternate. The report gives medians, with the minimum and the maximum. The figures are
//! valid only if nothing else runs meanwhile.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what this program does")]
#![allow(clippy::disallowed_methods, reason = "nothing here is async: a thread may sleep between two polls")]

mod announce;
mod class;
mod cluster;
mod crowd;
mod earlier;
mod fan;
mod folders;
mod hash;
mod lab;
mod ours;
mod page;
mod pair;
mod probe;
mod reading;
mod relay;
mod report;
mod rivals;
mod tracker;
mod wan;

use std::{fs, process::ExitCode};

use anyhow::{Context as _, Result, bail};
use testbed::programs;

use self::{lab::Lab, report::Report};

type Section = (&'static str, fn(&Lab, &mut Report) -> Result<()>);

const SECTIONS: &[Section] = &[
    ("pair", pair::run),
    ("fan-in", fan::fan_in),
    ("fan-out", fan::fan_out),
    ("crowd", crowd::run),
    ("class", class::run),
    ("reading", reading::run),
    ("wan", wan::run),
    ("hash", hash::run),
    ("folders", folders::run),
    ("tracker", tracker::run),
    ("cluster", cluster::run),
    ("earlier", earlier::run),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[&str]) -> Result<()> {
    let (flags, only): (Vec<&str>, Vec<&str>) = args.iter().partition(|arg| arg.starts_with('-'));
    let (mut quick, mut against) = (false, None);
    for flag in flags {
        match flag.strip_prefix("--against=") {
            Some(dir) => {
                against = Some(fs::canonicalize(dir).with_context(|| format!("{dir} can't be read"))?);
            }
            None if flag == "--quick" => quick = true,
            None => bail!("bench knows --quick and --against=DIR, not {flag:?}"),
        }
    }
    if let Some(unknown) = only.iter().find(|name| !SECTIONS.iter().any(|(section, _)| section == *name)) {
        let known: Vec<&str> = SECTIONS.iter().map(|(name, _)| *name).collect();
        bail!("bench has no part {unknown:?}; it has {}", known.join(", "));
    }
    let lab = Lab::new(programs::build(false)?, quick, against)?;
    let head = probe::machine();
    println!("{head}");
    let mut report = Report::default();
    let mut broken = Vec::new();
    for (name, section) in SECTIONS.iter().filter(|(name, _)| only.is_empty() || only.contains(name)) {
        println!("\n==== {name} ====");
        // A section that fails must not hide the results of the others.
        if let Err(error) = section(&lab, &mut report) {
            report.skip(*name, format!("it broke: {error:#}"));
            broken.push(*name);
        }
    }
    let text = format!("{head}\n{}\n{}", rounds(&lab), report.table());
    println!("\n{text}");
    if only.is_empty() && broken.is_empty() && !lab.quick {
        page::write(&text)?;
    }
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
