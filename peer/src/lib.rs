//! The Mini Torrent peer, as a library.

pub mod domain;
