//! Who and what: ids that can only be made well-formed.

use std::{fmt, str::FromStr, sync::Arc};

use data_encoding::BASE32_NOPAD;

/// A peer: the SHA-256 of its public key's SubjectPublicKeyInfo. Written as 52 characters of lower-case base32.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId([u8; 32]);

impl PeerId {
    /// The domain that every peer's one certificate name ends with.
    pub(crate) const TLS_SUFFIX: &str = ".peer.minitorrent.internal";

    /// The id's bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The one name in this peer's certificate.
    pub fn tls_name(&self) -> String {
        format!("{self}{}", Self::TLS_SUFFIX)
    }

    /// The id as text, in ASCII.
    pub(crate) fn text(&self) -> [u8; 52] {
        let mut text = [0; 52];
        BASE32_NOPAD.encode_mut(&self.0, &mut text);
        text.make_ascii_lowercase();
        text
    }

    /// The peer that a certificate's name is of.
    pub fn from_tls_name(name: &str) -> Option<Self> {
        name.strip_suffix(Self::TLS_SUFFIX)?.parse().ok()
    }
}

impl From<[u8; 32]> for PeerId {
    fn from(spki_sha256: [u8; 32]) -> Self {
        Self(spki_sha256)
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(str::from_utf8(&self.text()).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text or bytes that are not an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not 52 characters of lower-case base32.
    #[error("a peer id is 52 characters of lower-case base32")]
    Peer,
    /// Not 16 bytes, or all zero.
    #[error("a file id is 16 bytes, not all zero")]
    File,
}

impl FromStr for PeerId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        if text.len() != 52 || text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(IdError::Peer);
        }
        let bytes = BASE32_NOPAD.decode(text.to_ascii_uppercase().as_bytes()).map_err(|_| IdError::Peer)?;
        bytes.try_into().map(Self).map_err(|_| IdError::Peer)
    }
}

/// A listed file: 16 random bytes made by the tracker. Not derived from the content, so that a group of the same name
/// made anew never reaches the shares of the old one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId([u8; 16]);

impl FileId {
    /// The id's bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl TryFrom<&[u8]> for FileId {
    type Error = IdError;

    fn try_from(bytes: &[u8]) -> Result<Self, IdError> {
        match <[u8; 16]>::try_from(bytes) {
            Ok(id) if id != [0; 16] => Ok(Self(id)),
            _ => Err(IdError::File),
        }
    }
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

macro_rules! name_type {
    ($name:ident, $check:path, $what:literal) => {
        #[doc = $what]
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = super::names::NameError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                $check(text)?;
                Ok(Self(text.into()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    };
}

name_type!(Username, super::names::check_username, "An account's name: 3-32 of `[a-z0-9][a-z0-9_.-]*`.");
name_type!(
    GroupId,
    super::names::check_group,
    "A group's chosen name: 1-64 visible characters, at most 256 bytes, NFC."
);
name_type!(
    FileName,
    super::names::check_file,
    "A file's name in its group: one safe path component, at most 255 bytes, NFC."
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_ids_survive_their_text_and_name() {
        let id = PeerId::from([0xa5; 32]);
        assert_eq!(id.to_string().len(), 52);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(PeerId::from_tls_name(&id.tls_name()), Some(id));
        for bad in ["", "abc", &id.to_string().to_uppercase(), &"é".repeat(26), &"1".repeat(52)] {
            assert_eq!(bad.parse::<PeerId>(), Err(IdError::Peer));
        }
    }

    #[test]
    fn file_ids_are_16_bytes_and_not_nil() {
        for length in [0, 15, 17] {
            assert_eq!(FileId::try_from(&vec![1u8; length][..]), Err(IdError::File));
        }
        assert_eq!(FileId::try_from(&[0u8; 16][..]), Err(IdError::File));
        assert!(FileId::try_from(&[7u8; 16][..]).is_ok());
    }
}
