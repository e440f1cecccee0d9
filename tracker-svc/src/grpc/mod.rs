//! The services, one file each: decode, decide, store, encode.

mod announce;
pub mod authn;
pub mod gate;
pub mod group;
pub mod limits;
mod page;
pub mod swarm;
