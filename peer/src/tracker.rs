//! The peer's side of everything between it and its tracker.
//!
//! - [`client`]: which of several trackers is called, and what happens when it does not answer.
//! - [`mod@line`]: the channel to one of them, with its CA and the session's token.
//! - [`list`]: the trackers' addresses as a person writes them.
//! - [`announcer`]: the stream that sends announces and receives changes of the swarms.
//! - [`tickets`]: keeps tickets and renews them in time.
//! - [`manifests`]: publishes and fetches manifests frame by frame.

pub(crate) mod announcer;
pub(crate) mod client;
pub(crate) mod line;
pub(crate) mod list;
pub(crate) mod manifests;
pub(crate) mod outage;
pub(crate) mod tickets;
