//! Bad input of every kind against a peer: requests without right, requests that can't be, sources that lie, paths
//! that are no files. Each gets the right code, others are served meanwhile, and no bad byte gets to a file.
//!
//! Each peer ends with [`support::Guarded::end`], which checks what must hold whatever was done to it: it answered a
//! bystander all the while, took bounded memory, and panicked nowhere.
//!
//! `tracker-svc/tests/bad_inputs/index.rs` lists every kind and names the test that proves it.

#![allow(clippy::unwrap_used)]

mod hostile_sources;
mod paths;
mod requests;
mod rights;
mod support;
/// The same swarm in one process as in the engine's own tests.
#[allow(dead_code, missing_docs, unreachable_pub, reason = "each of the two uses its part of it")]
#[path = "../engine/support.rs"]
mod world;
