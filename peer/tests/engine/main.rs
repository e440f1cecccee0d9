//! The transfer engine in swarms on loopback, over real TLS and against real tickets.

#![allow(clippy::unwrap_used, missing_docs)]

mod admission;
mod disk;
mod faults;
mod limits;
mod many;
mod reading;
mod serving;
mod swarm;
mod transfer;
