//! Digests as values. These types only fix the sizes; other modules compute the digests.

use std::fmt;

macro_rules! digest {
    ($name:ident, $bytes:literal, $what:literal) => {
        #[doc = $what]
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; $bytes]);

        impl $name {
            /// Bytes in the digest.
            pub const LENGTH: usize = $bytes;

            /// The digest's bytes.
            pub fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }

            /// The digest in lower-case hexadecimal.
            pub fn to_hex(self) -> String {
                data_encoding::HEXLOWER.encode(&self.0)
            }
        }

        impl From<[u8; $bytes]> for $name {
            fn from(bytes: [u8; $bytes]) -> Self {
                Self(bytes)
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = std::array::TryFromSliceError;

            fn try_from(bytes: &[u8]) -> Result<Self, Self::Error> {
                bytes.try_into().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.to_hex())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

digest!(Sha1, 20, "A SHA-1 digest.");
digest!(Blake3, 32, "A BLAKE3 root, or the chaining value of a subtree.");

/// The hashes of one piece in a manifest. A piece is valid only if both match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PieceHash {
    /// SHA-1 of the piece.
    pub sha1: Sha1,
    /// BLAKE3 of the piece. In a file of several pieces it is the chaining value of the piece's subtree in
    /// the file's hash tree. In a file of one piece it is the file's root.
    pub blake3: Blake3,
}
