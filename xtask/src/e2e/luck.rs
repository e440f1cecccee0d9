//! Hosts and lines that fail while a file is on its way.

use anyhow::{Context as _, Result, bail};

use super::{BIG, MOVED, PEERS, SOON, arrives, ends_well, reaches, share};
use crate::{
    stage::{Host, Stage, peer, peer_exits, peer_json, try_peer, wait_for},
    story::{self, GROUP, mib, scene},
};

/// The host that bob's volume moves to.
const ELSEWHERE: usize = PEERS + 1;

/// One is cut off, the tracker goes, one is killed: the others go on, and they all come back.
pub(super) fn while_downloading(stage: &mut dyn Stage) -> Result<()> {
    reaches(stage, 2, BIG.name, 10)?;
    scene("peer2 is cut off: peer3 goes on");
    stage.cut(Host::Peer(2))?;
    let before = done(stage, 3)?;
    reaches(stage, 3, BIG.name, percent(before) + 10)?;
    stage.heal(Host::Peer(2))?;
    scene("peer2 is back");
    let before = done(stage, 2)?;
    reaches(stage, 2, BIG.name, percent(before) + 5)?;

    scene("The tracker ends; the peers go on without it");
    ends_well(stage, Host::Tracker)?;
    let before = done(stage, 3)?;
    reaches(stage, 3, BIG.name, (percent(before) + 5).min(100))?;
    peer_exits(stage, 7, 2, &["list-groups"], "")?;
    stage.start(Host::Tracker)?;
    wait_for("peer2 reaches the tracker again", SOON, || {
        Ok((try_peer(stage, 2, &["list-groups"], "")?.code == 0).then_some(()))
    })?;

    scene("peer3 is killed, and goes on from where it was");
    let before = done(stage, 3)?;
    stage.kill(Host::Peer(3))?;
    stage.start(Host::Peer(3))?;
    let after = wait_for("peer3 has its download again", SOON, || {
        Ok(story::download(stage, 3, BIG.name)?
            .filter(|download| download.done > 0 || download.state == "complete"))
    })?;
    println!("  before {}, after {}", mib(before), mib(after.done));
    if after.done + (48 << 20) < before {
        bail!("more than 48 MiB of verified pieces were lost");
    }
    Ok(())
}

/// Two hosts with one volume: the second is refused. Then the first ends, and the second goes on as the same peer under
/// another name, at another address.
pub(super) fn a_volume_moves(stage: &mut dyn Stage) -> Result<()> {
    scene("A second host with bob's volume is refused");
    stage.lend(Host::Peer(2), Host::Peer(ELSEWHERE))?;
    peer_exits(stage, 6, ELSEWHERE, &["daemon"], "")?;
    scene("bob's volume moves to that host, in the middle of a download");
    let file = share(stage, &MOVED)?;
    peer(stage, 2, &["download", GROUP, MOVED.name, "out/", "--detach"])?;
    reaches(stage, 2, MOVED.name, 20)?;
    let before = advertised(stage, 2)?;
    ends_well(stage, Host::Peer(2))?;
    stage.start(Host::Peer(ELSEWHERE))?;
    arrives(stage, ELSEWHERE, &MOVED, &file)?;
    let after = advertised(stage, ELSEWHERE)?;
    println!("  bob was at {before}, and is at {after}");
    if before == after {
        bail!("bob should be at another address");
    }
    // Nobody else has it now.
    peer(stage, 1, &["stop-share", GROUP, MOVED.name])?;
    peer(stage, 3, &["download", GROUP, MOVED.name, "out/"])?;
    arrives(stage, 3, &MOVED, &file)?;
    scene("And back");
    ends_well(stage, Host::Peer(ELSEWHERE))?;
    stage.start(Host::Peer(2))
}

/// Where peer `n` tells others to connect to, once it knows.
fn advertised(stage: &dyn Stage, n: usize) -> Result<String> {
    wait_for(&format!("peer{n} knows its address"), SOON, || {
        Ok(peer_json(stage, n, &["status"])?["advertise"].as_str().map(str::to_owned))
    })
}

fn done(stage: &dyn Stage, n: usize) -> Result<u64> {
    Ok(story::download(stage, n, BIG.name)?.context("the download is gone")?.done)
}

/// Of [`BIG`].
fn percent(done: u64) -> u64 {
    done * 100 / BIG.bytes
}
