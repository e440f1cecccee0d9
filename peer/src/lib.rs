//! The Mini Torrent peer, as a library.

mod agent;
pub mod cli;
mod config;
mod control;
mod daemon;
mod download;
pub mod engine;
mod error;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
pub mod hashing;
pub mod home;
mod hooks;
pub mod identity;
mod interfaces;
mod invitation;
mod library;
mod limiter;
pub mod memory;
mod metrics;
mod observe;
mod page;
mod paths;
mod patterns;
mod ports;
mod serve;
mod session;
pub mod storage;
mod subscriptions;
mod text;
mod totals;
mod tracker;
mod trust_memory;
mod units;

pub use daemon::serve;
use peer_core as domain;
