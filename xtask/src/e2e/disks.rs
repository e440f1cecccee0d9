//! Full disks of the tracker and of a peer. All other hosts continue. The host itself continues without a
//! restart when there is room again.

use anyhow::{Result, bail};
use testbed::{Host, Hosts, cmd, fill, peer, peer_exits, try_peer, unfill, wait_for};

use super::steps::{LONG, SOON, Sample, arrives, reaches, share};
use testbed::scenario::{self, GROUP, scene};

/// A file that does not fit next to the data that fills the disk.
const FILE: Sample = Sample { name: "file.bin", bytes: 16 << 20, seed: 8 };

/// Runs both scenes. The volumes of the tracker and of peer2 must be small.
pub(super) fn play(hosts: &dyn Hosts) -> Result<()> {
    scene("Small volumes");
    println!("  {}", hosts.describe());
    scenario::accounts(hosts)?;
    scenario::group(hosts)?;
    the_trackers(hosts)?;
    a_peers(hosts)
}

fn the_trackers(hosts: &dyn Hosts) -> Result<()> {
    scene("The tracker's volume is full: changes are refused, the rest goes on");
    let file = share(hosts, &FILE)?;
    peer(hosts, 3, &["download", GROUP, FILE.name, "out/", "--detach"])?;
    reaches(hosts, 3, FILE.name, 10)?;
    fill(hosts, Host::Tracker)?;
    let mut groups = 0;
    let refused = wait_for("the tracker refuses a change", SOON, || {
        // The first groups still fit into free pages inside the database file.
        groups += 1;
        let answer = try_peer(hosts, 1, &["create-group", &format!("more{groups}")], "")?;
        Ok((answer.code != 0).then_some(answer))
    })?;
    println!("  create-group: exit {}, {}", refused.code, refused.stderr.trim());
    if ![7, 9].contains(&refused.code) {
        bail!("a change on a full disk should end with 9, or with 7");
    }
    wait_for("the tracker says that it is not well", SOON, || Ok((!healthy(hosts)).then_some(())))?;
    peer(hosts, 2, &["list-groups"])?;
    peer(hosts, 2, &["list-files", GROUP])?;
    // No new download starts, because the tracker issues no ticket that it can't record. Running downloads
    // continue.
    arrives(hosts, 3, &FILE, &file)?;
    unfill(hosts, Host::Tracker)?;
    wait_for("the tracker is well again", SOON, || Ok(healthy(hosts).then_some(())))?;
    peer(hosts, 1, &["create-group", "afterwards"]).map(drop)
}

/// Whether the tracker's own health check succeeds.
fn healthy(hosts: &dyn Hosts) -> bool {
    let script = "tracker-svc health --tracker \"$1\" --ca \"$TRACKER_DATA_DIR/ca.pem\"";
    cmd::capture(hosts.command(Host::Tracker, &["sh", "-c", script, "sh", &hosts.tracker_url()])).is_ok()
}

fn a_peers(hosts: &dyn Hosts) -> Result<()> {
    scene(
        "A peer's volume is full in the middle of a download: it waits, says why, and goes on once there is room",
    );
    peer(hosts, 3, &["stop-share", GROUP, FILE.name])?;
    let file = share(hosts, &FILE)?;
    fill(hosts, Host::Peer(2))?;
    // A download does not start where there is no room for it.
    peer_exits(hosts, 9, 2, &["download", GROUP, FILE.name, "out/"], "")?;
    unfill(hosts, Host::Peer(2))?;
    peer(hosts, 2, &["download", GROUP, FILE.name, "out/", "--detach"])?;
    reaches(hosts, 2, FILE.name, 20)?;
    fill(hosts, Host::Peer(2))?;
    let cause = wait_for("peer2 says that its disk is full", SOON, || {
        let found = scenario::download(hosts, 2, FILE.name)?.filter(|download| download.state == "stalled");
        Ok(found.map(|download| download.cause).filter(|cause| cause.contains("space")))
    })?;
    println!("  {cause}");
    let doctor = peer_exits(hosts, 1, 2, &["doctor"], "")?;
    if !doctor.stdout.lines().any(|line| line.starts_with("bad") && line.contains("full")) {
        bail!("the doctor should say that the disk is full: {}", doctor.stdout);
    }
    peer(hosts, 2, &["status"])?;
    peer(hosts, 2, &["list-files", GROUP])?;
    unfill(hosts, Host::Peer(2))?;
    scenario::watch(hosts, &[2], FILE.name, LONG)?;
    arrives(hosts, 2, &FILE, &file)
}
