//! The shared vocabulary. Pure: no I/O, no clock, no ambient randomness, no async.

pub mod bitfield;
pub mod digest;
pub mod ids;
pub mod limits;
pub mod manifest;
pub mod names;
pub mod piece;

pub use bitfield::Bitfield;
pub use digest::{Blake3, PieceHash, Sha1};
pub use ids::{FileId, FileName, GroupId, PeerId, Username};
pub use manifest::{FileHeader, Manifest};
pub use piece::{PIECE_LENGTH, PieceIndex, PieceLayout};
