//! Steps that several scenes share, and the files of the test.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, bail};
use testbed::{Host, Hosts, cmd, peer, programs, wait_for};

use testbed::scenario::{self, GROUP, mib};

pub(super) const PEERS: usize = 3;
pub(super) const SOON: Duration = Duration::from_secs(30);
pub(super) const LONG: Duration = Duration::from_secs(180);

/// A file of the test.
pub(super) struct Sample {
    pub(super) name: &'static str,
    pub(super) bytes: u64,
    pub(super) seed: u64,
}

/// The file that is transferred during a series of faults.
pub(super) const BIG: Sample = Sample { name: "big.bin", bytes: 96 << 20, seed: 2 };
/// The file that is transferred while its volume moves to another host.
pub(super) const MOVED: Sample = Sample { name: "moved.bin", bytes: 24 << 20, seed: 5 };
/// The files that are transferred when each service is told to stop, and when all are brought down.
pub(super) const LATER: Sample = Sample { name: "later.bin", bytes: 24 << 20, seed: 6 };
pub(super) const LAST: Sample = Sample { name: "last.bin", bytes: 24 << 20, seed: 7 };

/// Shares a file as alice, with a rate limit, so that its download takes some seconds.
pub(super) fn share(hosts: &dyn Hosts, sample: &Sample) -> Result<PathBuf> {
    let file = cmd::root().join("target/demo").join(sample.name);
    programs::make_file(&file, sample.bytes, sample.seed)?;
    testbed::put(hosts, Host::Peer(1), &file, sample.name)?;
    peer(hosts, 1, &["upload", sample.name, GROUP])?;
    peer(hosts, 1, &["limit", "--up", &(sample.bytes / 10).to_string()])?;
    Ok(file)
}

/// Shares a file as alice and waits until carol's download of it has begun.
pub(super) fn midway(hosts: &dyn Hosts, sample: &Sample) -> Result<PathBuf> {
    let file = share(hosts, sample)?;
    peer(hosts, 3, &["download", GROUP, sample.name, "out/", "--detach"])?;
    reaches(hosts, 3, sample.name, 20)?;
    Ok(file)
}

/// Waits until the download of peer `n` is complete, and checks that the copy equals the file.
pub(super) fn arrives(hosts: &dyn Hosts, n: usize, sample: &Sample, file: &std::path::Path) -> Result<()> {
    wait_for(&format!("peer{n} has all of {}", sample.name), LONG, || {
        let download = scenario::download(hosts, n, sample.name)?.context("the download is gone")?;
        Ok((download.state == "complete").then_some(()))
    })?;
    if !testbed::same(hosts, Host::Peer(n), &format!("out/{}", sample.name), file)? {
        bail!("peer{n}'s copy of {} is not the file", sample.name);
    }
    println!("  peer{n} has {}, byte for byte", sample.name);
    Ok(())
}

/// Waits until peer `n` has this percentage of the file.
pub(super) fn reaches(hosts: &dyn Hosts, n: usize, name: &str, wanted: u64) -> Result<()> {
    let done = wait_for(&format!("peer{n} has {wanted} % of {name}"), LONG, || {
        let download = scenario::download(hosts, n, name)?.context("the download is gone")?;
        let percent = (download.done * 100).checked_div(download.size).unwrap_or(0);
        Ok((percent >= wanted.min(100)).then_some(download.done))
    })?;
    println!("  peer{n} has {}", mib(done));
    Ok(())
}

pub(super) fn ends_well(hosts: &mut dyn Hosts, host: Host) -> Result<()> {
    let ended = hosts.stop(host)?;
    println!("  {host}: exit {:?} after {:.1} s", ended.code, ended.took.as_secs_f64());
    if ended.code != Some(0) {
        bail!("{host} should end with 0 on SIGTERM");
    }
    if ended.took > Duration::from_secs(12) {
        bail!("{host} should end within 10 s on SIGTERM");
    }
    Ok(())
}
