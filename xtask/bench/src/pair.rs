//! One seeder and one leecher: compared with the rivals and with the bare socket, and their cost in processor
//! time and memory.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result};
use testbed::{Host, programs::Server};

use super::{
    lab::Lab,
    ours::Ours,
    probe,
    report::{Goal, Report, Samples},
    rivals::{self, Rival, Swarm},
};

const GIB: u64 = 1 << 30;
/// Time after which a peer's limit on announces is fully replenished.
const RESTED: std::time::Duration = std::time::Duration::from_secs(2);
/// The name of our program among the contestants.
const OURS: &str = "ours";

pub(crate) fn run(lab: &Lab, report: &mut Report) -> Result<()> {
    let bytes = lab.bytes(GIB);
    let file = lab.file(bytes)?;
    against_rivals(lab, report, &file, bytes)?;
    data_path(lab, report, &file, bytes)?;
    lab.forget(&file)?;
    first_piece(lab, report)?;
    memory(lab, report)
}

/// The seconds that each contestant took, one value per round.
type Times = BTreeMap<&'static str, Vec<f64>>;

/// Adds a figure, the ratio of our time to that of the best rival in each round, and the times of every
/// contestant as notes.
pub(crate) fn compare(report: &mut Report, what: &str, times: &Times, goal: Goal) {
    let median = |times: &Vec<f64>| Samples::of(times.clone()).map_or(f64::INFINITY, |times| times.median());
    let rivals = times.iter().filter(|(name, _)| **name != OURS);
    let best = rivals.min_by(|(_, one), (_, other)| median(one).total_cmp(&median(other)));
    match (times.get(OURS), best) {
        (Some(ours), Some((name, rival))) => {
            let ratios = ours.iter().zip(rival).map(|(ours, rival)| ours / rival).collect();
            report.figure(format!("{what}: time over {name}'s"), ratios, goal);
        }
        _ => report.skip(what, "there is nobody to compare with"),
    }
    for (name, times) in times {
        report.note(format!("{what}: {name}, s"), times.clone());
    }
}

/// Returns the rivals of `wanted` that are installed. The report lists the others as skipped.
pub(crate) fn present(report: &mut Report, what: &str, wanted: &[Rival]) -> Vec<Rival> {
    let mut present = Vec::new();
    for &rival in wanted {
        if rival.installed() {
            present.push(rival);
        } else {
            report.skip(format!("{what}: {}", rival.name()), "not installed");
        }
    }
    present
}

fn against_rivals(lab: &Lab, report: &mut Report, file: &Path, bytes: u64) -> Result<()> {
    let what = format!("1 to 1, {} MiB, call to exit", bytes >> 20);
    let rivals = present(report, &what, &rivals::ALL);
    let swarm = Swarm::new(lab.data_path()?, lab.dir(), file)?;
    let ours = Ours::on_loopback(lab.dir(), &lab.bin, 2)?;
    let (mut times, mut cpu) = (Times::new(), Vec::new());
    // Round 0 is a warm-up.
    for round in 0..=lab.rounds {
        let name = format!("pair-{round}.bin");
        ours.upload(1, file, &name)?;
        ours.seeders(2, &name, 1)?;
        probe::touch(bytes);
        let before = ours.cpu_time(&[1, 2])?;
        let took = ours.race(&[2], &name)?;
        let used = ours.cpu_time(&[1, 2])?.saturating_sub(before);
        ours.check_and_forget(&[2], &name, file)?;
        ours.unpublish(&name)?;
        println!("  round {round}: ours {:.2} s", took.as_secs_f64());
        if round > 0 {
            times.entry(OURS).or_default().push(took.as_secs_f64());
            cpu.push(used.as_secs_f64() * GIB as f64 / bytes as f64);
        }
        for &rival in &rivals {
            let took = swarm.race(rival, 1, 1, || probe::touch(bytes))?;
            println!("  round {round}: {} {:.2} s", rival.name(), took.as_secs_f64());
            if round > 0 {
                times.entry(rival.name()).or_default().push(took.as_secs_f64());
            }
        }
    }
    compare(report, &what, &times, Goal::AtMost { must: 0.6, aim: 0.4 });
    report.figure("CPU s/GiB, both daemons, TLS", cpu, Goal::AtMost { must: 3.8, aim: 3.0 });
    for (n, who) in [(1, "seeder"), (2, "leecher")] {
        report.figure(
            format!("peak memory, {who}'s daemon after {} x {} MiB, MiB", lab.rounds + 1, bytes >> 20),
            vec![ours.peak_memory(n)?],
            Goal::AtMost { must: 96.0, aim: 48.0 },
        );
    }
    Ok(())
}

/// Measures the engine through its library, with and without TLS, relative to the bare socket.
fn data_path(lab: &Lab, report: &mut Report, file: &Path, bytes: u64) -> Result<()> {
    let path = file.to_str().context("the path is not UTF-8")?;
    let to = lab.dir().join("data-path.bin");
    let to_text = to.to_string_lossy().into_owned();
    let keep = lab.dir().join("identities");
    let keep = keep.to_string_lossy();
    let raw = lab.server(&["serve-raw", path])?;
    let plain_dir = format!("{keep}-plain");
    let tls_dir = format!("{keep}-tls");
    let plain = lab.server(&["serve", "plain", path, &plain_dir])?;
    let tls = lab.server(&["serve", "tls", path, &tls_dir])?;
    let size = bytes.to_string();
    let contestants: [(&str, &Server, Vec<&str>); 3] = [
        ("raw", &raw, vec!["fetch-raw", raw.address(), &size, &to_text]),
        ("plain", &plain, vec!["fetch", "plain", path, &plain_dir, plain.address(), &to_text]),
        ("tls", &tls, vec!["fetch", "tls", path, &tls_dir, tls.address(), &to_text]),
    ];
    let mut rates: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    let mut costs: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for round in 0..=lab.rounds {
        for (name, server, args) in &contestants {
            probe::touch(bytes);
            let before = probe::cpu_time(server.pid())?;
            let (seconds, cpu) = lab.fetch(args)?;
            let served = probe::cpu_time(server.pid())?.saturating_sub(before).as_secs_f64();
            println!("  round {round}: {name} {seconds:.3} s, CPU {served:.2} + {cpu:.2} s");
            fs::remove_file(&to)?;
            if round > 0 {
                rates.entry(name).or_default().push(bytes as f64 / 1e9 / seconds);
                costs.entry(name).or_default().push((served + cpu) * GIB as f64 / bytes as f64);
            }
        }
    }
    let rate = |name: &str| rates.get(name).cloned().unwrap_or_default();
    let cost = |name: &str| costs.get(name).cloned().unwrap_or_default();
    for (name, goal) in
        [("tls", Goal::AtLeast { must: 0.40, aim: 0.50 }), ("plain", Goal::AtLeast { must: 0.60, aim: 0.75 })]
    {
        let ratios = rate(name).iter().zip(rate("raw")).map(|(ours, raw)| ours / raw).collect();
        report.figure(format!("data path over the bare socket: {name}"), ratios, goal);
    }
    report.figure("CPU s/GiB, both sides, plain TCP", cost("plain"), Goal::AtMost { must: 2.8, aim: 2.1 });
    report.note("CPU s/GiB, both sides, TLS, data path alone", cost("tls"));
    report.note("CPU s/GiB, both sides, bare socket", cost("raw"));
    for name in ["raw", "plain", "tls"] {
        report.note(format!("GB/s: {name}"), rate(name));
    }
    Ok(())
}

/// Measures a file of one piece. The time is almost all overhead of a call, because there is little to
/// transfer.
fn first_piece(lab: &Lab, report: &mut Report) -> Result<()> {
    let ours = Ours::on_loopback(lab.dir(), &lab.bin, 2)?;
    let file = lab.file(524_288)?;
    let mut times = Vec::new();
    for round in 0..=2 * lab.rounds {
        let name = format!("piece-{round}.bin");
        ours.upload(1, &file, &name)?;
        ours.seeders(2, &name, 1)?;
        // A peer announces at most twice a second. The pause makes it as ready as a peer that has not
        // announced recently.
        std::thread::sleep(RESTED);
        let took = ours.race(&[2], &name)?;
        ours.check_and_forget(&[2], &name, &file)?;
        if round > 0 {
            times.push(took.as_secs_f64() * 1e3);
        }
    }
    lab.forget(&file)?;
    report.figure(
        "call to the exit of a download of one piece, ms",
        times,
        Goal::AtMost { must: 150.0, aim: 50.0 },
    );
    Ok(())
}

/// Measures the memory of a daemon that serves a sparse file of 8 GiB, while one of the 32 streams of a
/// reader stalls.
fn memory(lab: &Lab, report: &mut Report) -> Result<()> {
    let bytes = lab.bytes(8 * GIB);
    let what = format!("peak memory, sparse {} GiB, a reader stalled", bytes >> 30);
    let ours = Ours::on_loopback(lab.dir(), &lab.bin, 3)?;
    let sparse = lab.dir().join("sparse.bin");
    fs::File::create(&sparse)?.set_len(bytes)?;
    ours.upload(1, &sparse, "sparse.bin")?;
    ours.seeders(2, "sparse.bin", 1)?;
    let stalled = ours.stalled_reader(lab, 3, "sparse.bin", 32)?;
    let took = ours.race(&[2], "sparse.bin")?;
    drop(stalled);
    println!("  8 GiB arrived in {:.1} s", took.as_secs_f64());
    fs::remove_file(ours.hosts.files(Host::Peer(2)).join("sparse.bin"))?;
    for (n, who) in [(1, "seeder"), (2, "leecher")] {
        let goal = Goal::AtMost { must: 96.0, aim: 48.0 };
        report.figure(format!("{what}: {who}'s daemon, MiB"), vec![ours.peak_memory(n)?], goal);
    }
    Ok(())
}
