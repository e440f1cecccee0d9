//! The Mini Torrent peer, as a library.

pub mod agent;
pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod domain;
mod download;
pub mod engine;
pub mod error;
pub mod hashing;
pub mod home;
pub mod identity;
pub mod library;
pub mod limiter;
pub mod memory;
mod metrics;
pub mod observe;
pub mod serve;
pub mod session;
pub mod storage;
#[cfg(test)]
mod test_support;
mod text;
pub mod tracker;
pub mod units;
