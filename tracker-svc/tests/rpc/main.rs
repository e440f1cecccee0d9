//! The tracker over the wire, in this process: one file per service. It is one program, so that it is linked
//! once.

#![allow(clippy::unwrap_used, reason = "a test that can't go on may stop")]

mod auth;
mod faults;
mod file;
mod group;
mod invites;
mod kills;
mod rights;
mod serving;
mod tokens;
