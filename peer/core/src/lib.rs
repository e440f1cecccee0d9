//! The pure decisions of a peer: no I/O, no locks, no async, no clock and no ambient randomness. Events go
//! in, and actions come out. The time and the seed are arguments. The same code runs in the daemon, in unit
//! tests and in `cargo xtask simulate`.

pub mod addresses;
pub mod announce;
pub mod availability;
pub mod bit_tree;
pub mod download;
pub mod download_plan;
pub mod evictions;
pub mod explain;
pub mod last_copy;
pub mod meter;
pub mod picker;
pub mod pieces;
pub mod reach;
pub mod reading;
mod request_id;
pub mod reuse;
pub mod running;
pub mod sources;
pub mod subscription;
pub mod trackers;
pub mod upload;
pub mod watch;

use std::time::Duration;

/// A moment, as the time since the owner's own start. Moments of different owners are never compared.
pub type Moment = Duration;

/// The random generator of all random choices: small, fast and the same on every platform.
pub type Rng = rand::rngs::Xoshiro256PlusPlus;
