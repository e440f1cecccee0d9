//! A reader in a crowd: how long it waits for its first byte and after a jump, and what it costs the others.

use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use testbed::{Host, Hosts as _, processes::Processes};

use super::{
    lab::Lab,
    ours::{GROUP, Ours},
    report::{Goal, Report},
};

const BYTES: u64 = 32 << 20;
/// Rate of each uplink, in bits per second.
const UPLINK: u64 = 20_000_000;
const LEECHERS: usize = 8;
/// The reader is one of the leechers.
const READER: usize = 2;
/// The reader jumps after this part of the least time of the crowd, to this part of the file.
const JUMP_AFTER: f64 = 0.25;
const JUMP_TO: f64 = 0.8;

/// What one crowd took, in seconds.
struct Round {
    /// When 95 % of the leechers had finished.
    crowd: f64,
    /// What the reader waited for its first byte, and after its jump.
    waits: Vec<f64>,
}

pub(crate) fn run(lab: &Lab, report: &mut Report) -> Result<()> {
    if !Processes::namespaces_work()? {
        report.skip("reading", "needs root, network namespaces and tc");
        return Ok(());
    }
    let file = lab.file(BYTES)?;
    let ours = Ours::in_namespaces(lab.dir(), &lab.bin, LEECHERS + 1)?;
    let leechers: Vec<usize> = (2..=LEECHERS + 1).collect();
    for n in 1..=LEECHERS + 1 {
        ours.hosts.shape(Host::Peer(n), UPLINK)?;
    }
    let (mut ratios, mut first, mut jump) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=lab.rounds {
        let mut crowds = Vec::new();
        for reads in [false, true] {
            let name = format!("read-{round}-{reads}.bin");
            ours.upload(1, &file, &name)?;
            ours.seeders(2, &name, 1)?;
            let took = crowd(&ours, &leechers, &name, reads)?;
            println!("  round {round}: {:.2} s, the reader waited {:.2?} s", took.crowd, took.waits);
            crowds.push(took.crowd);
            first.extend(took.waits.first());
            jump.extend(took.waits.get(1));
            ours.check_and_forget(&leechers, &name, &file)?;
            ours.unpublish(&name)?;
        }
        ratios.push(crowds[1] / crowds[0]);
    }
    let what = format!("reader in a crowd of {LEECHERS}, {} Mbit/s up", UPLINK / 1_000_000);
    report.figure(format!("{what}: seconds to the first byte"), first, Goal::AtMost { must: 1.0, aim: 0.5 });
    report.figure(
        format!("{what}: seconds after a jump to 80 %"),
        jump,
        Goal::AtMost { must: 2.0, aim: 1.0 },
    );
    let goal = Goal::AtMost { must: 1.1, aim: 1.05 };
    report.figure(format!("{what}: the crowd's p95 over that without a reader"), ratios, goal);
    lab.forget(&file)
}

/// Lets all leechers download at once, and one of them read meanwhile if `reads`.
fn crowd(ours: &Ours, leechers: &[usize], name: &str, reads: bool) -> Result<Round> {
    let start = Instant::now();
    // The reader's download is accepted before it reads. Its first byte counts from here.
    ours.run(READER, &["download", GROUP, name, "./", "--detach"])?;
    let mut reading = reads.then(|| cat(ours, name, 0)).transpose()?;
    let mut running = Vec::new();
    for &n in leechers {
        running.push(ours.download(n, name)?);
    }
    let least = Duration::from_secs_f64(8.0 * BYTES as f64 / UPLINK as f64);
    let (mut waits, mut ends, mut since) = (Vec::new(), Vec::new(), start);
    while !running.is_empty() {
        ensure!(start.elapsed() < 10 * least, "the downloads of {name} did not end");
        if let Some(status) = reading.as_mut().map(Child::try_wait).transpose()?.flatten() {
            ensure!(status.success(), "cat of {name} ended ({status})");
            waits.push(since.elapsed().as_secs_f64());
            reading = None;
        }
        if reads && waits.len() == 1 && reading.is_none() && start.elapsed() >= least.mul_f64(JUMP_AFTER) {
            since = Instant::now();
            reading = Some(cat(ours, name, (BYTES as f64 * JUMP_TO) as u64)?);
        }
        let mut still = Vec::new();
        for mut child in running {
            match child.try_wait()? {
                Some(status) => {
                    ensure!(status.success(), "a download of {name} ended ({status})");
                    ends.push(start.elapsed().as_secs_f64());
                }
                None => still.push(child),
            }
        }
        running = still;
        std::thread::sleep(Duration::from_millis(1));
    }
    let p95 = (ends.len() * 95).div_ceil(100).saturating_sub(1);
    let crowd = *ends.get(p95).context("nobody downloaded")?;
    Ok(Round { crowd, waits })
}

/// Starts reading one byte of the file at this offset.
fn cat(ours: &Ours, name: &str, offset: u64) -> Result<Child> {
    let offset = offset.to_string();
    let words = ["peer", "cat", GROUP, name, "--offset", &offset, "--length", "1"];
    let mut command: Command = ours.hosts.command(Host::Peer(READER), &words);
    command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().context("peer did not start")
}
