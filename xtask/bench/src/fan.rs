//! Several seeders with one leecher, and one seeder with several leechers. Only the machine limits the rate.

use std::collections::BTreeMap;

use anyhow::Result;

use super::{
    lab::Lab,
    ours::Ours,
    pair::{compare, present},
    probe,
    report::{Goal, Report},
    rivals::{self, Rival, Swarm},
};

/// Measures three seeders and one leecher with 1 GiB.
pub(crate) fn fan_in(lab: &Lab, report: &mut Report) -> Result<()> {
    let goal = Goal::AtMost { must: 0.8, aim: 0.5 };
    race(lab, report, "3 to 1", (3, 1), lab.bytes(1 << 30), &[Rival::Rqbit, Rival::Libtorrent], goal)
}

/// Measures one seeder and four leechers that start together with 512 MiB, until all of them have it.
pub(crate) fn fan_out(lab: &Lab, report: &mut Report) -> Result<()> {
    let goal = Goal::AtMost { must: 0.75, aim: 0.5 };
    race(lab, report, "1 to 4", (1, 4), lab.bytes(512 << 20), &rivals::ALL, goal)
}

fn race(
    lab: &Lab,
    report: &mut Report,
    what: &str,
    (seeders, leechers): (u16, u16),
    bytes: u64,
    rivals: &[Rival],
    goal: Goal,
) -> Result<()> {
    let what = format!("{what}, {} MiB", bytes >> 20);
    let rivals = present(report, &what, rivals);
    let file = lab.file(bytes)?;
    let swarm = Swarm::new(lab.data_path()?, lab.dir(), &file)?;
    let peers = usize::from(seeders + leechers);
    let ours = Ours::on_loopback(lab.dir(), &lab.bin, peers)?;
    let seeding: Vec<usize> = (1..=usize::from(seeders)).collect();
    let leeching: Vec<usize> = (usize::from(seeders) + 1..=peers).collect();
    let touch = || probe::touch(bytes * u64::from(leechers));
    let mut times: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
    let mut least_share = Vec::new();
    for round in 0..=lab.rounds {
        let name = format!("fan-{round}.bin");
        for &n in &seeding {
            ours.upload(n, &file, &name)?;
        }
        ours.seeders(peers, &name, seeders.into())?;
        touch();
        let took = ours.race(&leeching, &name)?;
        println!("  round {round}: ours {:.2} s", took.as_secs_f64());
        let shares = ours.shares(peers, &name)?;
        ours.check_and_forget(&leeching, &name, &file)?;
        ours.unpublish(&name)?;
        if round > 0 {
            times.entry("ours").or_default().push(took.as_secs_f64());
            let least = shares.iter().map(|(_, bytes)| *bytes).min().unwrap_or(0);
            least_share.push(least as f64 / bytes as f64 * shares.len() as f64);
        }
        for &rival in &rivals {
            let took = swarm.race(rival, seeders, leechers, touch)?;
            println!("  round {round}: {} {:.2} s", rival.name(), took.as_secs_f64());
            if round > 0 {
                times.entry(rival.name()).or_default().push(took.as_secs_f64());
            }
        }
    }
    compare(report, &what, &times, goal);
    if seeders > 1 {
        report.note(format!("{what}: least source's bytes over an even share"), least_share);
    }
    lab.forget(&file)
}
