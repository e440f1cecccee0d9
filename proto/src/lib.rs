//! The wire format of Mini Torrent.
//!
//! - [`pb`]: the messages and services, generated from `minitorrent/v1/*.proto`.
//! - [`domain`]: the shared vocabulary, a separate crate: ids, names, pieces, bitfields, digests, manifests,
//!   limits.
//! - [`convert`]: the only module that uses both, with typed errors.
//! - [`reason`]: the closed set of error reasons, in both directions.
//! - [`ticket`]: the tracker's signed statement that a peer may fetch a file.
//!
//! Of this workspace's crates it depends only on `domain`.

pub mod convert;
pub mod pb;
pub mod reason;
pub mod ticket;

pub use domain;
