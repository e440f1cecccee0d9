//! The Mini Torrent tracker, as a library.

pub mod domain;
pub mod error;
pub mod events;
pub mod grpc;
pub mod store;
