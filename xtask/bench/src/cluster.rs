//! Three trackers on PostgreSQL and Redis with up to 100,000 peers that announce: what messages and calls cost.

use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;
use testbed::cmd;

use super::{
    lab::{Lab, build_bench},
    report::{Goal, Report},
};

pub(crate) fn run(lab: &Lab, report: &mut Report) -> Result<()> {
    let bench = build_bench("tracker-svc", "announce")?;
    let peers = if lab.quick { 5_000 } else { 100_000 };
    let mut found = Vec::new();
    for round in 1..=lab.rounds.min(3) {
        let mut command = Command::new(&bench);
        command.args(["cluster", &peers.to_string()]);
        let out = cmd::capture(command)?;
        let json: Value = serde_json::from_str(out.trim()).with_context(|| format!("not JSON: {out:?}"))?;
        println!("  round {round}: {json}");
        found.push(json);
    }
    for (what, key, must) in [
        ("CPU per heartbeat, µs", "heartbeat_us", 60.0),
        ("CPU per announce on a stream, µs", "announce_us", 60.0),
        ("CPU per FindPeers, µs", "find_peers_us", 150.0),
        ("99 in 100 of 300 FindPeers a second within, ms", "find_p99_ms", 50.0),
    ] {
        let values = found.iter().filter_map(|json| json[key].as_f64()).collect();
        let goal = Goal::AtMost { must, aim: must };
        report.figure(format!("three trackers, {peers} peers: {what}"), values, goal);
    }
    Ok(())
}
