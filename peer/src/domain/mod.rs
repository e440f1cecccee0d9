//! The decisions of a peer, pure: no I/O, no locks, no async, no clock and no ambient randomness. Events go in, actions
//! come out; the time and the seed are arguments. The same code runs in the daemon, in unit tests and in
//! `cargo xtask simulate`.

pub mod availability;
pub mod bit_tree;
pub mod download;
pub mod meter;
pub mod picker;
pub mod pieces;
mod request_id;
pub mod sources;
pub mod upload;

use std::time::Duration;

/// A moment, as time since the owner's own start. Never compared across owners.
pub type Moment = Duration;

/// The generator of all choices that are left to chance: small, fast and the same on every platform.
pub type Rng = rand::rngs::Xoshiro256PlusPlus;
