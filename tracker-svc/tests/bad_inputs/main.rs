//! Bad input of every kind against a real tracker process. Each input gets the right code. The process
//! survives, its memory stays bounded, and others are served meanwhile. `xtask/tests/index/bad_inputs.rs` lists
//! every kind, and names the test that proves it, here or in another crate.
//!
//! Each test starts its own tracker and ends with [`process::Tracker::finish`]. That checks the general
//! promises: the process runs, took bounded memory, and answered a bystander throughout. On SIGTERM it ends
//! with code 0. It never panicked, had no internal fault, and left no secret in its log or its database.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod access;
mod accounts;
mod client;
mod command_line;
mod files;
mod floods;
mod frames;
mod groups;
mod largest;
mod process;
mod swarm;
mod wire;
