//! A verb may name the trackers that it means. A daemon that works with others refuses it.

use tonic::{Status, metadata::MetadataMap};

use crate::{agent::Agent, error::PeerError, tracker::list::TrackerList};

/// The metadata key under which a verb sends the URLs of the only trackers that it accepts, with
/// commas between them.
pub(crate) const TRACKER_METADATA: &str = "x-peer-tracker";

/// Checks that the verb names this daemon's trackers, in any order, or none.
///
/// # Errors
/// Fails with [`PeerError::AnotherTracker`].
pub(super) fn same_tracker(agent: &Agent, metadata: &MetadataMap) -> Result<(), Status> {
    let Some(asked) = metadata.get(TRACKER_METADATA).and_then(|value| value.to_str().ok()) else {
        return Ok(());
    };
    let daemon = agent.tracker().trackers();
    if TrackerList::parse(asked).is_ok_and(|asked| asked.is_same(daemon)) {
        return Ok(());
    }
    Err(PeerError::AnotherTracker { daemon: daemon.to_string(), asked: asked.to_owned() }.into())
}
