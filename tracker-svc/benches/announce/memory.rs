//! The memory that peers take.

use anyhow::{Context as _, Result};
use tokio_util::sync::CancellationToken;
use tracker_svc::hub::Hub;

use super::world;

/// Inserts peers of one kind into swarms, and prints how many bytes the process has grown by per peer.
pub(super) fn run(leechers: bool, peers: u32) -> Result<()> {
    // Tokio's clock needs a runtime.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let hub = runtime.block_on(async { Hub::new(CancellationToken::new()) });
    // Memory that is allocated once, for example at the first hash of a kind.
    world::announce(&hub, 10, |_| leechers)?;
    let before = resident()?;
    world::announce(&hub, peers, |_| leechers)?;
    if leechers {
        // Each leecher is told about the sources that it may know.
        for number in 0..peers {
            hub.pull(&world::peer(number), world::file(number % world::files(peers))?);
        }
    }
    let grown = resident()?.saturating_sub(before);
    println!("{{\"bytes\":{:.1}}}", grown as f64 / f64::from(peers));
    Ok(())
}

/// Bytes of memory that this process holds.
fn resident() -> Result<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = statm.split(' ').nth(1).context("no such field")?.parse()?;
    Ok(pages * rustix::param::page_size() as u64)
}
