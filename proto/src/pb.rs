//! The messages and services of package `minitorrent.v1`, as generated.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::unwrap_used,
    clippy::use_self,
    clippy::semicolon_if_nothing_returned
)]

mod find_peers;

pub use self::find_peers::FindPeersResponse;

tonic::include_proto!("minitorrent.v1");

/// The package's encoded `FileDescriptorSet`, for server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
