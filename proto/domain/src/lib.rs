//! The vocabulary that tracker and peer share. Pure: no I/O, no clock, no ambient randomness, no async.

pub mod address;
pub mod bitfield;
pub mod digest;
pub mod expiry;
mod fold;
pub mod folder;
pub mod ids;
pub mod invite;
pub mod limits;
pub mod look_alike;
pub mod manifest;
pub mod names;
pub mod obstacle;
pub mod piece;
pub mod race;
pub mod size;
pub mod visible;

pub use bitfield::Bitfield;
pub use digest::{Blake3, PieceHash, Sha1};
pub use ids::{FileId, FileName, GroupId, Name, PeerId, TokenName, Username};
pub use manifest::{FileHeader, Manifest};
pub use piece::{PIECE_LENGTH, PieceIndex, PieceLayout};
