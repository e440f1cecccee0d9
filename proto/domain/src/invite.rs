//! The link of an invitation: `minitorrent://HOST:PORT[,HOST:PORT]/GROUP[/NAME]#FINGERPRINT.SECRET`.
//!
//! Names are percent-encoded (RFC 3986). The fingerprint is the SHA-256 of the tracker's CA certificate, in hexadecimal.
//! The secret stands after `#`, because programs that follow links send no server what stands there. Whoever has the link
//! may use the invitation, so a secret is never shown by `Debug`.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
};

use data_encoding::{BASE64URL_NOPAD, HEXLOWER, HEXLOWER_PERMISSIVE};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::{FileName, GroupId, Name as _};

const SCHEME: &str = "minitorrent://";
/// What RFC 3986 calls unreserved stays as it is.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// Maximum length of a link, in bytes.
pub const MAX_LINK: usize = 4 << 10;
/// Maximum number of tracker addresses in a link.
pub const MAX_TRACKERS: usize = 8;
/// Maximum length of a host name, in bytes.
const MAX_HOST: usize = 253;

/// The reason why text is not an invitation's link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// It does not begin with the scheme.
    #[error("a link begins with minitorrent://")]
    Scheme,
    /// It is too long.
    #[error("a link has at most {MAX_LINK} bytes")]
    TooLong,
    /// The part after `#` is missing or malformed.
    #[error("the link is not complete: after # it has 64 hexadecimal digits, a dot and a secret")]
    Fragment,
    /// The secret is malformed.
    #[error("the secret of an invitation has 22 characters of base64url")]
    Secret,
    /// The address of a tracker is malformed.
    #[error("the link has 1 to {MAX_TRACKERS} trackers as HOST:PORT, separated by commas")]
    Tracker,
    /// The group's name is missing or malformed.
    #[error("the link names no group")]
    Group,
    /// The file's name is malformed.
    #[error("the link's file name is not one")]
    File,
}

/// The address of a tracker: a host name or an IP address, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    host: String,
    port: u16,
}

impl HostPort {
    /// The address of this host, without brackets, at this port.
    ///
    /// # Errors
    /// [`LinkError::Tracker`] if the host is neither a name nor an address, or the port is 0.
    pub fn new(host: &str, port: u16) -> Result<Self, LinkError> {
        let is_name = |host: &str| {
            (1..=MAX_HOST).contains(&host.len())
                && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        };
        if port == 0 || !(is_name(host) || host.parse::<Ipv6Addr>().is_ok()) {
            return Err(LinkError::Tracker);
        }
        Ok(Self { host: host.to_ascii_lowercase(), port })
    }

    /// The host, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for HostPort {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Self, LinkError> {
        let (host, port) = text.rsplit_once(':').ok_or(LinkError::Tracker)?;
        if port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(LinkError::Tracker);
        }
        let port = port.parse().map_err(|_| LinkError::Tracker)?;
        match host.strip_prefix('[').map(|rest| rest.strip_suffix(']')) {
            Some(Some(inner)) if inner.contains(':') => Self::new(inner, port),
            None if !host.contains(':') => Self::new(host, port),
            _ => Err(LinkError::Tracker),
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.parse() {
            Ok(IpAddr::V6(_)) => write!(f, "[{}]:{}", self.host, self.port),
            _ => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// The secret of an invitation: 16 random bytes. Written as 22 characters of base64url without padding.
#[derive(Clone, PartialEq, Eq)]
pub struct InviteSecret([u8; Self::BYTES]);

impl InviteSecret {
    /// The bytes of a secret.
    pub const BYTES: usize = 16;

    /// The secret's bytes.
    pub fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }

    /// The secret as text.
    pub fn text(&self) -> String {
        BASE64URL_NOPAD.encode(&self.0)
    }
}

impl From<[u8; Self::BYTES]> for InviteSecret {
    fn from(random: [u8; Self::BYTES]) -> Self {
        Self(random)
    }
}

impl FromStr for InviteSecret {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Self, LinkError> {
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| LinkError::Secret)?;
        bytes.try_into().map(Self).map_err(|_| LinkError::Secret)
    }
}

impl fmt::Debug for InviteSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InviteSecret(..)")
    }
}

/// An invitation's link, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InviteLink {
    /// The addresses of the tracker, 1 to [`MAX_TRACKERS`]. Any of them may be used.
    pub trackers: Vec<HostPort>,
    /// The group that the invitation is for.
    pub group: GroupId,
    /// The file of the group that the link is about.
    pub file: Option<FileName>,
    /// The SHA-256 of the certificate of the tracker's CA.
    pub authority: [u8; 32],
    /// The secret.
    pub secret: InviteSecret,
}

impl InviteLink {
    /// The link as text. It contains the secret, so it is printed for the user who asked for it and nowhere else.
    pub fn text(&self) -> String {
        let trackers: Vec<_> = self.trackers.iter().map(ToString::to_string).collect();
        let encode = |name: &str| utf8_percent_encode(name, ENCODED).to_string();
        let file = self.file.as_ref().map(|name| format!("/{}", encode(name.as_str()))).unwrap_or_default();
        format!(
            "{SCHEME}{}/{}{file}#{}.{}",
            trackers.join(","),
            encode(self.group.as_str()),
            HEXLOWER.encode(&self.authority),
            self.secret.text()
        )
    }
}

fn decoded(part: &str, error: LinkError) -> Result<String, LinkError> {
    // A percent sign that encodes nothing would stay as it is.
    let bytes = part.as_bytes();
    let is_encoded =
        |at: usize| bytes.get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit));
    if (0..bytes.len()).any(|at| bytes.get(at) == Some(&b'%') && !is_encoded(at)) {
        return Err(error);
    }
    percent_decode_str(part).decode_utf8().map(|text| text.into_owned()).map_err(|_| error)
}

impl FromStr for InviteLink {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Self, LinkError> {
        if text.len() > MAX_LINK {
            return Err(LinkError::TooLong);
        }
        let rest = text.strip_prefix(SCHEME).ok_or(LinkError::Scheme)?;
        let (place, fragment) = rest.split_once('#').ok_or(LinkError::Fragment)?;
        let (fingerprint, secret) = fragment.split_once('.').ok_or(LinkError::Fragment)?;
        let authority =
            HEXLOWER_PERMISSIVE.decode(fingerprint.as_bytes()).map_err(|_| LinkError::Fragment)?;
        let authority = authority.try_into().map_err(|_| LinkError::Fragment)?;
        let secret = secret.parse()?;
        let (trackers, names) = place.split_once('/').ok_or(LinkError::Group)?;
        let trackers = trackers.split(',').map(str::parse).collect::<Result<Vec<_>, _>>()?;
        if trackers.len() > MAX_TRACKERS {
            return Err(LinkError::Tracker);
        }
        let (group, file) = names.split_once('/').map_or((names, None), |(group, file)| (group, Some(file)));
        let group = GroupId::stored(&decoded(group, LinkError::Group)?).map_err(|_| LinkError::Group)?;
        let file = match file {
            Some(file) => {
                let name = decoded(file, LinkError::File)?;
                Some(FileName::stored(&name).map_err(|_| LinkError::File)?)
            }
            None => None,
        };
        Ok(Self { trackers, group, file, authority, secret })
    }
}

#[cfg(test)]
mod tests;
