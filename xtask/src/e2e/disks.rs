//! Full disks: the tracker's, and a peer's. The others go on, and so does it once there is room again, without a restart.

use anyhow::{Result, bail};

use super::{LONG, SOON, Sample, arrives, reaches, share};
use crate::{
    cmd,
    stage::{Host, Stage, fill, peer, peer_exits, try_peer, unfill, wait_for},
    story::{self, GROUP, scene},
};

/// More than fits beside what fills the disk.
const FILE: Sample = Sample { name: "file.bin", bytes: 16 << 20, seed: 8 };

/// Plays both on a stage where the tracker's and peer2's volumes are small.
pub(super) fn play(stage: &dyn Stage) -> Result<()> {
    scene("Small volumes");
    println!("  {}", stage.describe());
    story::accounts(stage)?;
    story::group(stage)?;
    the_trackers(stage)?;
    a_peers(stage)
}

fn the_trackers(stage: &dyn Stage) -> Result<()> {
    scene("The tracker's volume is full: changes are refused, the rest goes on");
    let file = share(stage, &FILE)?;
    peer(stage, 3, &["download", GROUP, FILE.name, "out/", "--detach"])?;
    reaches(stage, 3, FILE.name, 10)?;
    fill(stage, Host::Tracker)?;
    let mut groups = 0;
    let refused = wait_for("the tracker refuses a change", SOON, || {
        // What its database has of room of its own is used up first.
        groups += 1;
        let answer = try_peer(stage, 1, &["create-group", &format!("more{groups}")], "")?;
        Ok((answer.code != 0).then_some(answer))
    })?;
    println!("  create-group: exit {}, {}", refused.code, refused.stderr.trim());
    if ![7, 9].contains(&refused.code) {
        bail!("a change on a full disk should end with 9, or with 7");
    }
    wait_for("the tracker says that it is not well", SOON, || Ok((!healthy(stage)).then_some(())))?;
    peer(stage, 2, &["list-groups"])?;
    peer(stage, 2, &["list-files", GROUP])?;
    // Nothing new begins, as no ticket goes out that can't be recorded; what runs goes on.
    arrives(stage, 3, &FILE, &file)?;
    unfill(stage, Host::Tracker)?;
    wait_for("the tracker is well again", SOON, || Ok(healthy(stage).then_some(())))?;
    peer(stage, 1, &["create-group", "afterwards"]).map(drop)
}

/// Whether the tracker's own health check is content.
fn healthy(stage: &dyn Stage) -> bool {
    let script = "tracker-svc health --tracker \"$1\" --ca \"$TRACKER_DATA_DIR/ca.pem\"";
    cmd::capture(stage.command(Host::Tracker, &["sh", "-c", script, "sh", &stage.tracker_url()])).is_ok()
}

fn a_peers(stage: &dyn Stage) -> Result<()> {
    scene(
        "A peer's volume is full in the middle of a download: it waits, says why, and goes on once there is room",
    );
    peer(stage, 3, &["stop-share", GROUP, FILE.name])?;
    let file = share(stage, &FILE)?;
    fill(stage, Host::Peer(2))?;
    // Not even begun where there is no room.
    peer_exits(stage, 9, 2, &["download", GROUP, FILE.name, "out/"], "")?;
    unfill(stage, Host::Peer(2))?;
    peer(stage, 2, &["download", GROUP, FILE.name, "out/", "--detach"])?;
    reaches(stage, 2, FILE.name, 20)?;
    fill(stage, Host::Peer(2))?;
    let cause = wait_for("peer2 says that its disk is full", SOON, || {
        let found = story::download(stage, 2, FILE.name)?.filter(|download| download.state == "stalled");
        Ok(found.map(|download| download.cause).filter(|cause| cause.contains("space")))
    })?;
    println!("  {cause}");
    let doctor = peer_exits(stage, 1, 2, &["doctor"], "")?;
    if !doctor.stdout.lines().any(|line| line.starts_with("bad") && line.contains("full")) {
        bail!("the doctor should say that the disk is full: {}", doctor.stdout);
    }
    peer(stage, 2, &["status"])?;
    peer(stage, 2, &["list-files", GROUP])?;
    unfill(stage, Host::Peer(2))?;
    story::watch(stage, &[2], FILE.name, LONG)?;
    arrives(stage, 2, &FILE, &file)
}
