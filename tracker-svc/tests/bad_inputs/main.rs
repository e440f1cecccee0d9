//! Bad input of every kind against a real tracker process: each gets the right code, the process lives, its memory
//! stays bounded, and others are served meanwhile. [`index`] lists every kind and names the test that proves it, here
//! or in another crate.
//!
//! Each test starts a tracker of its own and ends with [`process::Tracker::finish`], which checks what must hold
//! whatever was sent: the process lives, took bounded memory, answered a bystander all the while, ends with code 0 on
//! SIGTERM, panicked nowhere, met no fault of its own, and left no secret in its log or its database.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod access;
mod accounts;
mod client;
mod command_line;
mod files;
mod floods;
mod frames;
mod groups;
mod index;
mod largest;
mod process;
mod swarm;
mod wire;
