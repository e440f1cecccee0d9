//! The effect of distance and of bad sources: a link with high rate and delay, a source at a very low rate,
//! and a source that accepts connections and never answers.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::{
    lab::Lab,
    ours::Ours,
    relay::Relay,
    report::{Goal, Report},
};
use testbed::{Host, Hosts as _};

/// One-way delay: half the round trip.
const DELAY: Duration = Duration::from_millis(50);
/// Rate of the link in bytes per second: 200 Mbit/s.
const RATE: u64 = 25_000_000;
/// Time at the start that is not measured: handshakes, and the growth of the windows.
const START: Duration = Duration::from_secs(2);

/// Rate of each good source in the runs with a bad one, in bytes per second.
const GOOD: u64 = 25 << 20;

pub(crate) fn run(lab: &Lab, report: &mut Report) -> Result<()> {
    distance(lab, report)?;
    bad_source(lab, report, "one of five sources at 10 kB/s", |ours| {
        ours.run(5, &["limit", "--up", "10000"]).map(drop)
    })?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let silent = listener.local_addr()?;
    thread::spawn(move || {
        let kept: Vec<TcpStream> = listener.incoming().flatten().collect();
        drop(kept);
    });
    bad_source(lab, report, "one of five sources accepts and says nothing", |ours| {
        restart(ours, 5, "PEER_ADVERTISE", silent.to_string())
    })
}

/// Restarts peer `n` with an environment variable set. The peer resumes its shares.
fn restart(ours: &mut Ours, n: usize, name: &'static str, value: String) -> Result<()> {
    ours.hosts.set(Host::Peer(n), name, value)?;
    ours.hosts.stop(Host::Peer(n))?;
    ours.hosts.start(Host::Peer(n))
}

fn distance(lab: &Lab, report: &mut Report) -> Result<()> {
    let file = lab.file(lab.bytes(512 << 20))?;
    let mut ours = Ours::on_loopback(lab.dir(), &lab.bin, 2)?;
    // The relay needs the seeder's port, and the seeder needs the relay's address to advertise it. So the
    // port is chosen first.
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let seeder = SocketAddr::from(([127, 0, 0, 1], port));
    let relay = Relay::start(DELAY, RATE, seeder)?;
    ours.hosts.set(Host::Peer(1), "PEER_LISTEN", seeder.to_string())?;
    restart(&mut ours, 1, "PEER_ADVERTISE", relay.address().to_string())?;
    let mut shares = Vec::new();
    for round in 1..=lab.rounds.min(3) {
        let name = format!("far-{round}.bin");
        ours.upload(1, &file, &name)?;
        ours.seeders(2, &name, 1)?;
        let before = relay.down();
        let mut child = ours.download(2, &name)?;
        let mut first = None;
        let mut mark = None;
        let status = loop {
            let (now, down) = (Instant::now(), relay.down());
            if first.is_none() && down > before {
                first = Some(now);
            }
            if mark.is_none() && first.is_some_and(|first| now >= first + START) {
                mark = Some((now, down));
            }
            if let Some(status) = child.try_wait()? {
                break status;
            }
            thread::sleep(Duration::from_millis(5));
        };
        anyhow::ensure!(status.success(), "the download ended ({status})");
        let (since, down) = mark.context("it was over before it was measured")?;
        let rate = (relay.down() - down) as f64 / since.elapsed().as_secs_f64();
        println!("  round {round}: {:.1} MB/s after the first 2 s", rate / 1e6);
        shares.push(rate / RATE as f64);
        ours.check_and_forget(&[2], &name, &file)?;
        ours.unpublish(&name)?;
    }
    let goal = Goal::AtLeast { must: 0.80, aim: 0.95 };
    report.figure("100 ms, 200 Mbit/s (relay): share of the link after 2 s", shares, goal);
    lab.forget(&file)
}

/// Measures the time with four good sources and a bad one, relative to the time with the four alone.
fn bad_source(
    lab: &Lab,
    report: &mut Report,
    what: &str,
    spoil: impl Fn(&mut Ours) -> Result<()>,
) -> Result<()> {
    let file = lab.file(lab.bytes(256 << 20))?;
    let mut ours = Ours::on_loopback(lab.dir(), &lab.bin, 6)?;
    for n in 1..=4 {
        ours.run(n, &["limit", "--up", &GOOD.to_string()])?;
    }
    spoil(&mut ours)?;
    let mut ratios = Vec::new();
    for round in 0..=lab.rounds {
        let mut times = Vec::new();
        for sources in [4, 5] {
            let name = format!("bad-{round}-{sources}.bin");
            for n in 1..=sources {
                ours.upload(n, &file, &name)?;
            }
            ours.seeders(6, &name, sources as u64)?;
            let took = ours.race(&[6], &name)?;
            println!("  round {round}: {sources} sources {:.2} s", took.as_secs_f64());
            times.push(took.as_secs_f64());
            ours.check_and_forget(&[6], &name, &file)?;
            ours.unpublish(&name)?;
        }
        if round > 0 {
            ratios.push(times[1] / times[0]);
        }
    }
    report.figure(
        format!("{what}: time over that without it"),
        ratios,
        Goal::AtMost { must: 1.3, aim: 1.05 },
    );
    lab.forget(&file)
}
