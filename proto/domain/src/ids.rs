//! Ids of peers, files, users and groups. A value of these types is always well-formed.

use std::{fmt, str::FromStr, sync::Arc};

use data_encoding::BASE32_NOPAD;

/// The id of a peer: the SHA-256 of its public key's SubjectPublicKeyInfo. Written as 52 characters of
/// lower-case base32.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId([u8; 32]);

impl PeerId {
    /// The domain at the end of the only name in a peer's certificate.
    pub const TLS_SUFFIX: &str = ".peer.minitorrent.internal";

    /// The id's bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The only name in this peer's certificate.
    pub fn tls_name(&self) -> String {
        format!("{self}{}", Self::TLS_SUFFIX)
    }

    /// The id as displayed: 52 ASCII characters of lower-case base32.
    pub fn text(&self) -> [u8; 52] {
        let mut text = [0; 52];
        BASE32_NOPAD.encode_mut(&self.0, &mut text);
        text.make_ascii_lowercase();
        text
    }

    /// The peer that this certificate name belongs to.
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

/// The reason why text or bytes are not an id.
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

/// The id of a listed file: 16 random bytes made by the tracker. The id is not derived from the content:
/// otherwise a group that is created again under an old name could reach shares of the old group.
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

/// A name of any kind.
pub trait Name: FromStr {
    /// Parses a stored name. The name was checked when it was accepted, perhaps by an earlier version with a laxer
    /// rule for its characters. It can still be read and listed, so that one old name does not make a whole list
    /// unreadable.
    ///
    /// # Errors
    /// Fails if the name violates a rule other than those for characters: it is empty, too long, or a path.
    fn stored(text: &str) -> Result<Self, super::names::NameError>;
}

macro_rules! name_type {
    ($name:ident, $check:path, $form:path, $what:literal) => {
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

        impl Name for $name {
            fn stored(text: &str) -> Result<Self, super::names::NameError> {
                $form(text)?;
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

name_type!(
    Username,
    super::names::check_username,
    super::names::check_username,
    "An account's name: 3-32 of `[a-z0-9][a-z0-9_.-]*`."
);
name_type!(
    TokenName,
    super::names::check_token,
    super::names::check_token,
    "The name of a token among those of its account: 1-32 of `[a-z0-9][a-z0-9_.-]*`."
);
name_type!(
    GroupId,
    super::names::check_group,
    super::names::check_group_form,
    "A group's chosen name: 1-64 visible characters, at most 256 bytes, NFC, no word of mixed scripts."
);
name_type!(
    FileName,
    super::names::check_file,
    super::names::check_file_form,
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
    fn a_stored_name_may_be_of_an_earlier_rule_but_is_never_a_path() {
        assert!("a\u{3000}b".parse::<FileName>().is_err());
        assert_eq!(FileName::stored("a\u{3000}b").map(|name| name.to_string()), Ok("a\u{3000}b".to_owned()));
        assert_eq!(
            GroupId::stored("p\u{430}ypal").map(|name| name.to_string()),
            Ok("p\u{430}ypal".to_owned())
        );
        for bad in ["", "..", "a/b", "a\0", ".minitorrent", &"x".repeat(256)] {
            assert!(FileName::stored(bad).is_err(), "{bad:?}");
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
