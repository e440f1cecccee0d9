//! One seeder and many leechers with slow uplinks, each in its own network namespace.

use std::time::Duration;

use anyhow::Result;

use super::{
    lab::Lab,
    ours::{Ours, user},
    report::{Goal, Report},
};
use testbed::{Host, processes::Processes};

const BYTES: u64 = 32 << 20;
/// Rate of each uplink, in bits per second.
const UPLINK: u64 = 20_000_000;

pub(crate) fn run(lab: &Lab, report: &mut Report) -> Result<()> {
    if !Processes::namespaces_work()? {
        report.skip("crowd", "needs root, network namespaces and tc");
        return Ok(());
    }
    one(lab, report, 8, Goal::AtMost { must: 1.30, aim: 1.15 })?;
    one(lab, report, 24, Goal::AtMost { must: 1.40, aim: 1.20 })
}

/// The least possible time, in seconds: the seeder sends every byte once, and all leechers together receive
/// no faster than all peers send.
fn least_time(leechers: usize) -> f64 {
    let (bits, n) = (8.0 * BYTES as f64, leechers as f64);
    (bits / UPLINK as f64).max(n * bits / ((n + 1.0) * UPLINK as f64))
}

fn one(lab: &Lab, report: &mut Report, leechers: usize, goal: Goal) -> Result<()> {
    let what = format!("crowd of {leechers}, {} MiB, {} Mbit/s up", BYTES >> 20, UPLINK / 1_000_000);
    let file = lab.file(BYTES)?;
    let ours = Ours::in_namespaces(lab.dir(), &lab.bin, leechers + 1)?;
    let everybody: Vec<usize> = (2..=leechers + 1).collect();
    for n in 1..=leechers + 1 {
        ours.hosts.shape(Host::Peer(n), UPLINK)?;
    }
    let (mut ratios, mut copies, mut wire, mut greatest) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 1..=lab.rounds {
        let name = format!("crowd-{round}.bin");
        ours.upload(1, &file, &name)?;
        ours.seeders(2, &name, 1)?;
        let before = ours.hosts.sent(Host::Peer(1))?;
        let took = ours.race(&everybody, &name)?;
        let sent = ours.hosts.sent(Host::Peer(1))? - before;
        let ratio = took.as_secs_f64() / least_time(leechers);
        let (mut from_seeder, mut most) = (0, 0.0_f64);
        for &n in &everybody {
            for (from, bytes) in ours.shares(n, &name)? {
                from_seeder += if from == user(1) { bytes } else { 0 };
                most = most.max(bytes as f64 / BYTES as f64);
            }
        }
        ours.check_and_forget(&everybody, &name, &file)?;
        ours.unpublish(&name)?;
        let copies_now = from_seeder as f64 / BYTES as f64;
        let wire_now = sent as f64 / BYTES as f64;
        println!(
            "  round {round}: {took:.1?}, {ratio:.3} of T_min; copies {copies_now:.2}, on the wire {wire_now:.2}"
        );
        ratios.push(ratio);
        copies.push(copies_now);
        wire.push(wire_now);
        greatest.push(most);
    }
    report.figure(format!("{what}: T over T_min"), ratios, goal);
    let goal = Goal::AtMost { must: 1.25, aim: 1.10 };
    report.figure(format!("{what}: copies that the seeder sent"), copies, goal);
    report.note(format!("{what}: copies on the seeder's wire, headers and all"), wire);
    report.note(format!("{what}: greatest share of a source in a leecher's file"), greatest);
    drop(ours);
    // The kernel removes namespaces in the background. The pause keeps that out of the next measurement.
    std::thread::sleep(Duration::from_secs(1));
    Ok(())
}
