//! The tracker over the wire, in process: one file a service. One program, so that it is linked once.

#![allow(clippy::unwrap_used, reason = "a test that can't go on may stop")]

mod auth;
mod file;
mod group;
mod serving;
mod support;
