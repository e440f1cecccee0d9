//! The tracker with 100,000 registered peers: the processor time of a call, and the memory of a peer.

use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{
    lab::{Lab, build_bench},
    report::{Goal, Report},
};
use testbed::cmd;

pub(crate) fn run(lab: &Lab, report: &mut Report) -> Result<()> {
    let bench = build_bench("tracker-svc", "announce")?;
    let peers = if lab.quick { 10_000 } else { 100_000 };
    let mut found = Vec::new();
    for round in 1..=lab.rounds {
        let mut command = Command::new(&bench);
        command.args(["run", &peers.to_string()]);
        let out = cmd::capture(command)?;
        let json: Value = serde_json::from_str(out.trim()).with_context(|| format!("not JSON: {out:?}"))?;
        println!("  round {round}: {json}");
        found.push(json);
    }
    let values = |key: &str| found.iter().filter_map(|json| json[key].as_f64()).collect::<Vec<f64>>();
    let with = format!("{peers} peers");
    let goal = Goal::AtMost { must: 25.0, aim: 10.0 };
    report.figure(format!("tracker, {with}: CPU per announce on a stream, µs"), values("announce_us"), goal);
    let goal = Goal::AtMost { must: 60.0, aim: 30.0 };
    report.figure(format!("tracker, {with}: CPU per FindPeers, µs"), values("unary_us"), goal);
    let goal = Goal::AtMost { must: 60.0, aim: 30.0 };
    report.figure(format!("tracker, {with}: CPU per WhoAmI, µs"), values("who_am_i_us"), goal);
    let goal = Goal::AtMost { must: 1024.0, aim: 200.0 };
    report.figure(format!("tracker, {with}: bytes per peer and file, seeders"), values("seeder_bytes"), goal);
    let bits = 2_048.0 / 8.0;
    let goal = Goal::AtMost { must: 1024.0 + bits, aim: 200.0 + bits };
    report.figure(
        format!("tracker, {with}: bytes per peer and file, leechers of 2,048 pieces"),
        values("leecher_bytes"),
        goal,
    );
    Ok(())
}
