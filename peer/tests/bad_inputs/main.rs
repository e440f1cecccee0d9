//! Bad input of every kind against a peer: requests without rights, invalid requests, sources that lie, paths
//! that are not files. Each gets the right code, others are served meanwhile, and no bad byte gets into a
//! file.
//!
//! Each peer ends with [`testkit::guarded::Guarded::end`], which checks what must always hold: the peer answered a
//! bystander all the time, took bounded memory, and did not panic.
//!
//! `xtask/tests/index/bad_inputs.rs` lists every kind and names the test that proves it.

#![allow(clippy::unwrap_used)]

mod forged;
mod lying_sources;
mod paths;
mod requests;
mod rights;
