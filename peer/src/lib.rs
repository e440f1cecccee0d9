//! The Mini Torrent peer, as a library.

pub mod domain;
pub mod engine;
pub mod hashing;
