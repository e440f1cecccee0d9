//! Faults of hosts and of the network while a file is being transferred.

use anyhow::{Context as _, Result, bail};
use testbed::{Host, Hosts, peer, peer_exits, peer_json, try_peer, wait_for};

use super::steps::{BIG, MOVED, PEERS, SOON, arrives, ends_well, reaches, share};
use testbed::scenario::{self, GROUP, mib, scene};

/// The host that bob's volume moves to.
const ELSEWHERE: usize = PEERS + 1;

/// Cuts off one peer, stops the tracker and kills another peer. The remaining hosts continue, and the failed
/// ones come back.
pub(super) fn while_downloading(hosts: &mut dyn Hosts) -> Result<()> {
    reaches(hosts, 2, BIG.name, 10)?;
    scene("peer2 is cut off: peer3 goes on");
    hosts.cut(Host::Peer(2))?;
    let before = done(hosts, 3)?;
    reaches(hosts, 3, BIG.name, percent(before) + 10)?;
    hosts.heal(Host::Peer(2))?;
    scene("peer2 is back");
    let before = done(hosts, 2)?;
    reaches(hosts, 2, BIG.name, percent(before) + 5)?;

    scene("The tracker ends; the peers go on without it");
    ends_well(hosts, Host::Tracker)?;
    let before = done(hosts, 3)?;
    reaches(hosts, 3, BIG.name, (percent(before) + 5).min(100))?;
    peer_exits(hosts, 7, 2, &["list-groups"], "")?;
    hosts.start(Host::Tracker)?;
    wait_for("peer2 reaches the tracker again", SOON, || {
        Ok((try_peer(hosts, 2, &["list-groups"], "")?.code == 0).then_some(()))
    })?;

    scene("peer3 is killed, and goes on from where it was");
    let before = done(hosts, 3)?;
    hosts.kill(Host::Peer(3))?;
    hosts.start(Host::Peer(3))?;
    let after = wait_for("peer3 has its download again", SOON, || {
        Ok(scenario::download(hosts, 3, BIG.name)?
            .filter(|download| download.done > 0 || download.state == "complete"))
    })?;
    println!("  before {}, after {}", mib(before), mib(after.done));
    if after.done + (48 << 20) < before {
        bail!("more than 48 MiB of verified pieces were lost");
    }
    Ok(())
}

/// Starts two hosts with one volume: the second is refused. Then the first ends, and the second continues as
/// the same peer under another name and address.
pub(super) fn a_volume_moves(hosts: &mut dyn Hosts) -> Result<()> {
    scene("A second host with bob's volume is refused");
    hosts.lend(Host::Peer(2), Host::Peer(ELSEWHERE))?;
    peer_exits(hosts, 6, ELSEWHERE, &["daemon"], "")?;
    scene("bob's volume moves to that host, in the middle of a download");
    let file = share(hosts, &MOVED)?;
    peer(hosts, 2, &["download", GROUP, MOVED.name, "out/", "--detach"])?;
    reaches(hosts, 2, MOVED.name, 20)?;
    let before = advertised(hosts, 2)?;
    ends_well(hosts, Host::Peer(2))?;
    hosts.start(Host::Peer(ELSEWHERE))?;
    arrives(hosts, ELSEWHERE, &MOVED, &file)?;
    let after = advertised(hosts, ELSEWHERE)?;
    println!("  bob was at {before}, and is at {after}");
    if before == after {
        bail!("bob should be at another address");
    }
    // No other peer has the file now.
    peer(hosts, 1, &["stop-share", GROUP, MOVED.name])?;
    peer(hosts, 3, &["download", GROUP, MOVED.name, "out/"])?;
    arrives(hosts, 3, &MOVED, &file)?;
    scene("And back");
    ends_well(hosts, Host::Peer(ELSEWHERE))?;
    hosts.start(Host::Peer(2))
}

/// Waits until peer `n` has an address to advertise, and returns it.
fn advertised(hosts: &dyn Hosts, n: usize) -> Result<String> {
    wait_for(&format!("peer{n} knows its address"), SOON, || {
        Ok(peer_json(hosts, n, &["status"])?["advertise"].as_str().map(str::to_owned))
    })
}

fn done(hosts: &dyn Hosts, n: usize) -> Result<u64> {
    Ok(scenario::download(hosts, n, BIG.name)?.context("the download is gone")?.done)
}

/// Percentage of [`BIG`].
fn percent(done: u64) -> u64 {
    done * 100 / BIG.bytes
}
