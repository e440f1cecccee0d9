//! Several trackers: their containers are killed in the middle of downloads.

use anyhow::{Result, bail};
use testbed::{
    containers::Containers,
    images, peer, peer_json,
    scenario::{self, GROUP, scene},
};

use super::steps::{LAST, LATER, arrives, midway};

/// Plays the story on three trackers, which share a database and a Redis server.
pub(super) fn play(bases: images::Bases) -> Result<()> {
    scene("Compose with three trackers, PostgreSQL and Redis");
    let hosts = Containers::cluster(bases)?;
    hosts.check_confinement()?;
    scenario::accounts(&hosts)?;
    scenario::group(&hosts)?;
    scene("A tracker's container is killed in the middle of two downloads: both arrive");
    let file = midway(&hosts, &LATER)?;
    peer(&hosts, 2, &["download", GROUP, LATER.name, "out/", "--detach"])?;
    hosts.kill_service("tracker1")?;
    peer(&hosts, 2, &["create-group", "meanwhile"])?;
    for n in [2, 3] {
        arrives(&hosts, n, &LATER, &file)?;
    }
    scene("It comes back, and the two others are killed: one is enough");
    hosts.start_service("tracker1")?;
    let file = midway(&hosts, &LAST)?;
    for tracker in ["tracker2", "tracker3"] {
        hosts.kill_service(tracker)?;
    }
    let groups = peer_json(&hosts, 1, &["list-groups"])?;
    if groups["groups"].as_array().is_none_or(|groups| groups.len() != 2) {
        bail!("what was acknowledged should be there: {groups}");
    }
    arrives(&hosts, 3, &LAST, &file)?;
    peer(&hosts, 3, &["verify", GROUP, LAST.name]).map(drop)
}
