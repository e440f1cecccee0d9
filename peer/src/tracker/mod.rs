//! This peer's dealings with its tracker.
//!
//! - [`client`]: one channel, its trust and its session token.
//! - [`announcer`]: the standing stream of announces one way and swarm changes the other.
//! - [`tickets`]: tickets, kept and renewed in time.
//! - [`manifests`]: manifests, published and fetched frame by frame.

pub mod announcer;
pub mod client;
pub mod manifests;
pub mod tickets;
