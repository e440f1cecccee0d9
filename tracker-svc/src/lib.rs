//! The Mini Torrent tracker, as a library.

pub mod ca;
pub mod domain;
mod durable;
pub mod error;
pub mod events;
pub mod grpc;
pub mod keys;
pub mod password;
pub mod store;
