//! The Mini Torrent peer, as a library.

pub mod domain;
mod download;
pub mod engine;
pub mod hashing;
pub mod limiter;
pub mod serve;
pub mod storage;
#[cfg(test)]
mod test_support;
