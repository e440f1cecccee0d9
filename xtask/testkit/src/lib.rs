//! What the tests of several crates share. It is a dev-dependency only: no program contains it.
//!
//! - [`authority`]: a certificate authority, and keys with its certificates.
//! - [`content`]: bytes, manifests, and the messages that publish them.
//! - [`wait`]: polls with a deadline.
//! - [`bystander`]: a caller that must be answered whatever a test does.
//! - [`process`]: the tracker as a process.
//! - [`clock`]: a clock that is off, for a process.
//! - [`client`]: a user that calls a tracker.
//! - [`postgres`]: a PostgreSQL server.
//! - `tracker`: a tracker in this process (feature `tracker`).
//! - [`world`]: what peers of a test trust: an authority and a key that signs tickets. No tracker.
//! - [`redis`]: a Redis server.
//! - [`relay`]: a TCP relay that breaks, holds up or delays connections.
//! - [`liar`]: a source that lies.
//! - `node`, `guarded`: peers in this process (feature `peer`).
//!
//! The crate stands beside `testbed`, which starts the programs and which it builds on. It depends on the
//! crates that it helps to test. Cargo allows that, because these depend on it for their tests only. The
//! features keep a test of the transport from building peer and tracker. A pure crate can't use it for the
//! tests inside its sources, since these see other types than this crate does.
//!
//! The crate stops a test by a panic that says what was expected.
#![allow(clippy::unwrap_used, reason = "a test ends at the first thing that is not as expected")]

pub mod authority;
pub mod bystander;
pub mod client;
pub mod clock;
pub mod content;
#[cfg(feature = "peer")]
pub mod guarded;
pub mod liar;
#[cfg(feature = "peer")]
pub mod node;
pub mod postgres;
pub mod process;
pub mod redis;
pub mod relay;
#[cfg(feature = "tracker")]
pub mod tracker;
pub mod wait;
pub mod world;
