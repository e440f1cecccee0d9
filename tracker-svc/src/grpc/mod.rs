//! The services, one file each: decode, decide, store, encode.

pub mod gate;
