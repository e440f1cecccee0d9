//! The wire and the shared vocabulary of Mini Torrent.
//!
//! - [`pb`]: what travels, generated from `minitorrent/v1/*.proto`.
//! - [`domain`]: what the words mean, pure: ids, names, pieces, bitfields, digests, manifests, limits.
//! - [`convert`]: the only place that sees both, with typed errors.
//! - [`reason`]: the closed set of error reasons, both directions.
//! - [`durable`]: small files that are whole or not there.
//! - [`settings`]: flag, environment, file, default, as both programs resolve them.
//! - [`ticket`]: the tracker's word that a peer may fetch a file.
//! - [`transport`]: TLS, the accept loop, client channels.
//!
//! It imports nothing else of ours.

pub mod convert;
pub mod domain;
pub mod durable;
pub mod reason;
pub mod settings;
pub mod ticket;
pub mod transport;

/// The messages and services of package `minitorrent.v1`, as generated.
pub mod pb {
    #![allow(
        missing_docs,
        unreachable_pub,
        clippy::all,
        clippy::unwrap_used,
        clippy::use_self,
        clippy::semicolon_if_nothing_returned
    )]
    pub use crate::convert::found::FindPeersResponse;

    tonic::include_proto!("minitorrent.v1");

    /// Encoded `FileDescriptorSet` of the package, for server reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
}
