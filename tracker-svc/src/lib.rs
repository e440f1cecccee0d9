//! The Mini Torrent tracker, as a library.
