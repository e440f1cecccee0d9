//! The transfer engine in swarms on loopback, over real TLS and against real tickets.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod admission;
mod disk;
mod hostile;
mod serving;
mod support;
mod swarm;
mod transfer;
